// Package config reads the configuration of a gateway: one YAML file and the
// conf.d folder beside it.
//
// There are two shapes. The file's shape (schema_*.go) is what people write,
// with the place of every value; its key tables are the one declaration from
// which the parser, the defaults, Show, the reference page and the JSON schema
// all work. The program's shape (Config) is what the rest of the gateway
// wants: durations, bytes, absolute paths, defaults filled in, rules expanded.
//
// It keeps four invariants:
//
//   - What Load accepts is complete and consistent. What this version cannot do
//     is refused, never ignored.
//   - Every problem of every file is reported in one run, with its place and
//     what to do about it.
//   - Input is bounded before it is parsed: size, depth, number of entries.
//     Anchors, aliases, merge keys and tags are refused.
//   - Show's output loads again and yields the same Config.
//
// It never opens anything but configuration files: whether a certificate or a
// device is there is for those to say who use it. No secret is ever part of
// the configuration, and the environment is not expanded.
package config

//go:generate go test -run ^TestGenerated -update .
