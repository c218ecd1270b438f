package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
)

// A serial line has only so many seconds in a second.
func TestCheckRefusesAnOverloadedBus(t *testing.T) {
	for _, tc := range []struct {
		devices           int
		refused, warnedOf bool
	}{{2, false, false}, {3, false, true}, {4, true, false}} {
		text := "version: 1\ngateway: {data: " + t.TempDir() + "}\nbuses: {line: {url: \"rtu:///dev/no-such-port\", baud: 9600}}\ndevices:\n"
		for unit := range tc.devices { // 0.32 s a poll each
			text += fmt.Sprintf("  - {id: d%d, adapter: modbus, bus: line, unit: %[1]d, groups: {g: {interval: 1s}}, tags: {a: {address: \"holding:0\", type: \"uint16[125]\"}}}\n", unit)
		}
		file := filepath.Join(t.TempDir(), "headgate.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		refused := strings.Contains(fmt.Sprint(gateway.Check(cfg)), "bus line needs")
		warnings := fmt.Sprint(gateway.Warnings(cfg))
		if refused != tc.refused || strings.Contains(warnings, "bus line is busy") != tc.warnedOf {
			t.Errorf("%d devices: %v, %s", tc.devices, gateway.Check(cfg), warnings)
		}
		if !strings.Contains(warnings, "plug the adapter in") {
			t.Errorf("no word of a port that is not there: %s", warnings)
		}
	}
}
