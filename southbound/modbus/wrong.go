package modbus

import "fmt"

// A ConfigError is what is wrong with one key of a bus or a tag, and what to do.
// The keys are those of the configuration file.
type ConfigError struct{ Key, Problem, Fix string }

func (e *ConfigError) Error() string { return e.Problem + "; " + e.Fix }

func wrong(key, fix, format string, args ...any) error {
	return &ConfigError{key, fmt.Sprintf(format, args...), fix}
}
