//go:build race

package modbus_test

// busyMachine: times mean nothing.
const busyMachine = true
