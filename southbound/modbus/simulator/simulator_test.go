package simulator_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/adaptertest"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

func listen(t *testing.T, cfg simulator.Config) *simulator.Simulator {
	t.Helper()
	s, err := simulator.Listen("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func adapter(t testing.TB, s *simulator.Simulator, cfg modbus.DeviceConfig) southbound.Adapter {
	t.Helper()
	return adapterOn(t, modbus.BusConfig{URL: s.URL()}, cfg)
}

func adapterOn(t testing.TB, bc modbus.BusConfig, cfg modbus.DeviceConfig) southbound.Adapter {
	t.Helper()
	bus, err := modbus.NewBus(bc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	a, err := bus.Adapter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// readAll returns the first batch of each of n groups, by tag.
func readAll(t *testing.T, a southbound.Adapter, n int) map[string]southbound.Reading {
	t.Helper()
	session, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	readings := make(map[string]southbound.Reading)
	for range n {
		b, err := session.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Readings {
			readings[r.Tag] = r
		}
	}
	return readings
}

// UDP is not among them: to open it needs nobody at the other end.
func TestAdapterContract(t *testing.T) {
	for _, scheme := range []string{"tcp", "tls", "rtu+tcp", "ascii+tcp", "rtu", "ascii"} {
		t.Run(scheme, func(t *testing.T) { contract(t, scheme) })
	}
}

// contract proves the adapter contract over one transport.
func contract(t *testing.T, scheme string) {
	address := scheme + "://127.0.0.1:0"
	if scheme == "rtu" || scheme == "ascii" {
		address = scheme + "://" + filepath.Join(t.TempDir(), "port")
	}
	server, client := certificates(t)
	s, err := simulator.Listen(address, simulator.Config{TLS: server})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	device := simulator.Devices()[0].DeviceConfig
	for i := range device.Groups {
		device.Groups[i].Interval = 20 * time.Millisecond
	}
	for _, tag := range []modbus.Tag{
		{Name: "level", Table: modbus.Holding, Address: 40, Type: "uint16"},
		{Name: "total", Table: modbus.Holding, Address: 42, Type: "float64", Order: "CDAB"},
		{Name: "part", Table: modbus.Holding, Address: 46, Type: "bits[4..7]"},
		{Name: "open", Table: modbus.Coil, Address: 3, Type: "bool"},
	} {
		tag.Group, tag.Writable = device.Groups[0].Name, true
		device.Tags = append(device.Tags, tag)
	}
	must := func(f func() error) func() {
		return func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	adaptertest.Run(t, adaptertest.Config{
		New: func(t testing.TB) southbound.Adapter {
			return adapterOn(t, modbus.BusConfig{URL: s.URL(), TLS: client, ResponseTimeout: 200 * time.Millisecond, LateWindow: 20 * time.Millisecond}, device)
		},
		Break: must(s.Break),
		Mend:  must(s.Mend),
		Written: map[string][]any{
			"level": {uint64(1), uint64(65535)}, "total": {-71.3, 1e300}, "part": {uint64(9), uint64(0)}, "open": {true, false},
		},
	})
}

func TestEveryDescribedTagIsGood(t *testing.T) {
	s := listen(t, simulator.Config{})
	for _, d := range simulator.Devices() {
		got := readAll(t, adapter(t, s, d.DeviceConfig), 2)
		if len(got) != len(d.Tags) {
			t.Errorf("%s: %d readings for %d tags", d.ID, len(got), len(d.Tags))
		}
		for tag, r := range got {
			if r.Quality != southbound.Good {
				t.Errorf("%s: %s is %s", d.ID, tag, r.Quality)
			}
		}
	}
}

func TestSameSeedAndTimeGiveTheSameValues(t *testing.T) {
	noon := func() time.Time { return time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC) }
	meter := simulator.Devices()[2].DeviceConfig
	values := func(seed uint64) map[string]southbound.Reading {
		return readAll(t, adapter(t, listen(t, simulator.Config{Seed: seed, Now: noon}), meter), 2)
	}
	first, again, other := values(7), values(7), values(8)
	for tag := range first {
		if first[tag].Value != again[tag].Value {
			t.Errorf("%s is %v and then %v", tag, first[tag].Value, again[tag].Value)
		}
	}
	if want := uint64(59*86400+12*3600) * 42000 / 3600; first["energy"].Value != want {
		t.Errorf("energy is %v, want %v", first["energy"].Value, want)
	}
	if first["power"].Value == other["power"].Value {
		t.Error("another seed gave the same power")
	}
}

func TestSetForcesARegister(t *testing.T) {
	s := listen(t, simulator.Config{})
	boiler := simulator.Devices()[0].DeviceConfig
	a := adapter(t, s, boiler)
	if err := s.Set(1, modbus.Holding, 10, 713); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, a, 1)["temp"]; got.Value != 71.3 {
		t.Errorf("temp is %v, want 71.3", got.Value)
	}
	if err := s.Set(1, modbus.Holding, 10, 0x8000); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, a, 1)["temp"]; got.Value != nil || got.Quality != southbound.BadSensor {
		t.Errorf("temp is %v, %s after its sensor broke", got.Value, got.Quality)
	}
	if err := s.Set(9, modbus.Holding, 10, 1); err == nil {
		t.Error("unit 9 was set")
	}
}

func TestRunEndsWithContext(t *testing.T) {
	s := listen(t, simulator.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Mend(); err != nil {
		t.Error(err)
	}
	if _, err := adapter(t, s, simulator.Devices()[0].DeviceConfig).Open(t.Context()); err == nil {
		t.Error("a closed simulator still accepts connections")
	}
}
