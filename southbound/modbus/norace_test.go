//go:build !race

package modbus_test

const busyMachine = false
