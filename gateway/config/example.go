package config

import (
	_ "embed"
	"strings"
)

//go:embed example.yaml
var example string

// Example returns the file that "headgate init" writes for a gateway of that
// id, with its data in that folder: commented, and safe as it stands. It loads
// without problems if the id is one: [A-Za-z0-9._-]{1,64}. A relative folder
// is relative to the file's.
func Example(gatewayID, data string) string {
	var show textSyntax
	return strings.NewReplacer("GATEWAY", show.show(gatewayID), "DATA", show.show(data)).Replace(example)
}
