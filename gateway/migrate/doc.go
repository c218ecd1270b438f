// Package migrate turns Modbus configurations of other programs into Headgate's.
//
// A value that Headgate would read otherwise than the other program is left out,
// and everything that is not carried over is told with its line: each reader
// marks the keys that it looks at, and those that nobody looked at are told, too.
package migrate
