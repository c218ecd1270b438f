//go:build race

package gateway_test

// The program under test is built like the test.
func init() { buildFlags = append(buildFlags, "-race") }
