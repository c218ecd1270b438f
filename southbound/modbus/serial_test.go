package modbus_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// startSerial simulates a device on a serial port whose registers hold their
// addresses.
func startSerial(t *testing.T, cfg simulator.Config) *simulator.Simulator {
	t.Helper()
	cfg.Read = func(_ byte, _ modbus.Table, address, quantity uint16) ([]uint16, error) {
		values := make([]uint16, quantity)
		for i := range values {
			values[i] = address + uint16(i)
		}
		return values, nil
	}
	s, err := simulator.Listen("rtu://"+filepath.Join(t.TempDir(), "port"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func openBus(t *testing.T, cfg modbus.BusConfig, device modbus.DeviceConfig) (southbound.Session, *modbus.Bus, error) {
	t.Helper()
	b, err := modbus.NewBus(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	a, err := b.Adapter(device)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	return s, b, err
}

func oneBlock(registers uint16) modbus.DeviceConfig {
	cfg := modbus.DeviceConfig{Unit: 1, MaxGap: 125, Groups: []modbus.Group{{Name: "g", Interval: time.Millisecond}}}
	for _, at := range []uint16{0, registers - 1} {
		cfg.Tags = append(cfg.Tags, modbus.Tag{Name: map[bool]string{true: "first", false: "last"}[at == 0], Group: "g",
			Table: modbus.Holding, Address: at, Type: "uint16"})
	}
	return cfg
}

// 125 registers at 115200 baud keep the bus for little longer than the
// characters take.
func TestSerialLineIsUsedWell(t *testing.T) {
	const baud, polls = 115200, 20
	sim := startSerial(t, simulator.Config{Baud: baud})
	s, b, err := openBus(t, modbus.BusConfig{URL: sim.URL(), Serial: modbus.Serial{Baud: baud}, LateWindow: time.Millisecond}, oneBlock(125))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context()); err != nil { // connects
		t.Fatal(err)
	}
	took := time.Hour // the quickest: the machine may have other things to do
	for range polls {
		start := time.Now()
		batch, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := batch.Readings[1]; last.Value != uint64(124) {
			t.Fatalf("%+v", last)
		}
		took = min(took, time.Since(start))
	}
	wire := time.Duration(8+5+250) * 11 * time.Second / baud
	t.Logf("%v a poll, %v of it on the wire: %.2f times", took, wire, float64(took)/float64(wire))
	if took > wire*13/10 {
		t.Errorf("%v a poll is more than 1.3 times the %v on the wire", took, wire)
	}
	if got := b.Stats().Requests; got != polls+1 {
		t.Errorf("%d requests", got)
	}
}

// A second program, or a second bus, cannot have a port that is in use.
func TestSerialPortIsLocked(t *testing.T) {
	sim := startSerial(t, simulator.Config{})
	cfg := modbus.BusConfig{URL: sim.URL(), LateWindow: time.Millisecond}
	first, _, err := openBus(t, cfg, oneBlock(2))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, _, err := openBus(t, cfg, oneBlock(2)); err == nil || !strings.Contains(err.Error(), "stop") {
		t.Errorf("a second opening gave %v", err)
	}
}

func TestSerialPortThatIsNone(t *testing.T) {
	for url, cure := range map[string]string{"rtu:///dev/no-such-port": "plugged in", "rtu:///dev/null": "no serial port"} {
		if _, _, err := openBus(t, modbus.BusConfig{URL: url}, oneBlock(2)); err == nil || !strings.Contains(err.Error(), cure) {
			t.Errorf("%s: %v", url, err)
		}
	}
	sim := startSerial(t, simulator.Config{})
	_, _, err := openBus(t, modbus.BusConfig{URL: sim.URL(), Serial: modbus.Serial{RS485: &modbus.RS485{}}}, oneBlock(2))
	if err == nil || !strings.Contains(err.Error(), "remove rs485") {
		t.Errorf("RS-485 of a port that has none: %v", err)
	}
}

// An adapter that hears itself needs to be told, and then reads as any other.
func TestEcho(t *testing.T) {
	sim := startSerial(t, simulator.Config{Faults: []simulator.Fault{simulator.Echo}, FaultRate: 1})
	for _, echo := range []bool{true, false} {
		s, _, err := openBus(t, modbus.BusConfig{URL: sim.URL(), Echo: echo, LateWindow: time.Millisecond}, oneBlock(2))
		if err != nil {
			t.Fatal(err)
		}
		batch, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]southbound.Quality{true: southbound.Good, false: southbound.BadCRC}[echo]
		if got := batch.Readings[1]; got.Quality != want {
			t.Errorf("echo %v: %+v", echo, got)
		}
		_ = s.Close()
		if !echo {
			break
		}
		if err := errors.Join(sim.Break(), sim.Mend()); err != nil { // which frees the port
			t.Fatal(err)
		}
	}
}

func TestBackupAddress(t *testing.T) {
	first, second := startSerial(t, simulator.Config{}), startSerial(t, simulator.Config{})
	cfg := modbus.BusConfig{URL: first.URL(), Backup: second.URL(), LateWindow: time.Millisecond, ResponseTimeout: 100 * time.Millisecond}
	if err := first.Break(); err != nil {
		t.Fatal(err)
	}
	s, _, err := openBus(t, cfg, oneBlock(2))
	if err != nil {
		t.Fatal(err)
	}
	if batch, err := s.Read(t.Context()); err != nil || batch.Readings[1].Quality != southbound.Good {
		t.Errorf("%+v, %v", batch, err)
	}
}
