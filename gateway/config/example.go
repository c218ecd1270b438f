package config

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed example.yaml
var example string

// Example returns the file that "headgate init" writes for a gateway of that
// id, with its data in that folder: commented, and safe as it stands. It loads
// without problems if CheckID has none with the id. A relative folder is
// relative to the file's.
func Example(gatewayID, data string) string {
	var show textSyntax
	return strings.NewReplacer("GATEWAY", show.show(gatewayID), "DATA", show.show(data)).Replace(example)
}

// CheckID says whether and why not a text can be a gateway's id.
func CheckID(id string) error {
	if f := checkName(id); f != nil {
		return fmt.Errorf("%q %s: %s", id, f.message, f.fix)
	}
	return nil
}
