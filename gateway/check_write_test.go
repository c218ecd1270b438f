package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/config"
)

// A rule that was made for messages and lets commands through is told of; one
// that names commands is meant, and a device that takes none needs no warning.
func TestWarnOfOpenWrites(t *testing.T) {
	const text = `version: 1
gateway: {id: g}
buses: {b: {url: "tcp://192.0.2.1"}}
access:
  rules:
    - {allow: publish, who: RULE}
devices:
  - {id: d, adapter: modbus, bus: b, unit: 1, writes: WRITES, groups: {fast: {interval: 1s}}, tags: {a: {address: "holding:1", type: int16, access: rw}}}
`
	for _, tt := range []struct {
		rule, writes string
		warned       bool
	}{
		{`"@all", topics: ["hg/#"]`, "allow", true}, {`"@all", topics: ["#"]`, "allow", true}, {`"@all", topics: ["hg/+/+/+/write"]`, "allow", true},
		{`"@all", topics: ["hg/g/d/cmd/write"]`, "allow", false}, {`"@all", topics: ["hg/g/+/cmd/#"]`, "allow", false},
		{`"@all", topics: ["plant/#"]`, "allow", false}, {`"@all", topics: ["hg/#"]`, "deny", false},
	} {
		path := filepath.Join(t.TempDir(), "headgate.yaml")
		if err := os.WriteFile(path, []byte(strings.NewReplacer("RULE", tt.rule, "WRITES", tt.writes).Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(Warnings(cfg), "\n"); strings.Contains(got, "write to device d") != tt.warned {
			t.Errorf("%s, writes: %s: warned %q", tt.rule, tt.writes, got)
		}
	}
}
