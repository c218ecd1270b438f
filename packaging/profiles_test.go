package packaging_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// A dump is the registers of a device, and what each tag is to be.
type dump struct {
	registers map[string]uint16 // by "holding 10"
	want      map[string]string
}

func readDump(t *testing.T, name string) dump {
	t.Helper()
	f, err := os.Open(filepath.Join("profiles", "testdata", name+".dump"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := dump{map[string]uint16{}, map[string]string{}}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 3 || fields[0] == "#":
		case fields[0] == "=":
			d.want[fields[1]] = strings.Join(fields[2:], " ")
		default:
			first, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			for i, word := range fields[2:] {
				v, err := strconv.ParseUint(word, 16, 16)
				if err != nil {
					t.Fatal(err)
				}
				d.registers[fmt.Sprint(fields[0], " ", first+i)] = uint16(v)
			}
		}
	}
	return d
}

// read answers like a device that has no register but those of the dump.
func (d dump) read(_ byte, table modbus.Table, address, quantity uint16) ([]uint16, error) {
	values := make([]uint16, quantity)
	for i := range values {
		v, ok := d.registers[fmt.Sprint(table, " ", int(address)+i)]
		if !ok {
			return nil, simulator.Exception(2)
		}
		values[i] = v
	}
	return values, nil
}

// Each profile reads a device that holds the registers of its dump, and every tag
// is what the dump says.
func TestProfiles(t *testing.T) {
	files, err := filepath.Glob("profiles/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d profiles: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) { checkProfile(t, name) })
	}
}

func checkProfile(t *testing.T, name string) {
	d := readDump(t, name)
	sim, err := simulator.Listen("127.0.0.1:0", simulator.Config{Read: d.read})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	device := loadProfile(t, name, sim.URL())
	bus, err := modbus.NewBus(modbus.BusConfig{URL: sim.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	adapter, err := bus.Adapter(device)
	if err != nil {
		t.Fatal(err)
	}
	session, err := adapter.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var tags []string
	for _, tag := range session.Tags() {
		tags = append(tags, tag.Name)
	}
	readings, err := session.(southbound.Asker).Get(t.Context(), tags)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readings {
		got := fmt.Sprint(r.Value)
		if v, ok := r.Value.(float64); ok {
			got = strconv.FormatFloat(v, 'f', -1, 64)
		}
		if r.Quality != southbound.Good || got != d.want[r.Tag] {
			t.Errorf("%s is %s, %s; want %q", r.Tag, got, r.Quality, d.want[r.Tag])
		}
	}
	if len(readings) != len(d.want) || len(tags) == 0 {
		t.Errorf("%d of %d tags were read, and the dump has %d", len(readings), len(tags), len(d.want))
	}
}

// loadProfile is a device with nothing but a profile, as the gateway has it.
func loadProfile(t *testing.T, name, url string) modbus.DeviceConfig {
	t.Helper()
	folder, err := filepath.Abs("profiles")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "headgate.yaml")
	text := fmt.Sprintf("version: 1\ngateway: {id: g, profiles: %q}\nbuses:\n  b: {url: %q}\ndevices:\n  - {id: d, adapter: modbus, bus: b, unit: 1, profile: %s}\n", folder, url, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Devices[0].Modbus()
}
