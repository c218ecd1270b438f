package modbus

import (
	"bufio"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// python is the one that Debian's packages are for.
const python = "/usr/bin/python3"

// startPymodbus starts the server in testdata and returns its address.
func startPymodbus(t *testing.T) string {
	t.Helper()
	if err := exec.Command(python, "-c", "import pymodbus").Run(); err != nil {
		t.Skip("needs Debian's python3-pymodbus: apt-get install python3-pymodbus")
	}
	cmd := exec.Command(python, "testdata/pymodbus_server.py")
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		if err := cmd.Wait(); err != nil {
			t.Log(err)
		}
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("pymodbus does not start: %v", err)
	}
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(port))
}

func TestPymodbusReadsTheSame(t *testing.T) {
	b := newBus(t, BusConfig{URL: "tcp://" + startPymodbus(t), ResponseTimeout: patient})
	values := []struct {
		typ  string
		at   uint16
		want any
	}{
		{"int16", 0, int64(-12345)},
		{"uint16", 1, uint64(54321)},
		{"int32", 2, int64(-1234567890)},
		{"uint32", 4, uint64(3234567890)},
		{"int64", 6, int64(-1234567890123456789)},
		{"uint64", 10, uint64(12345678901234567890)},
		{"float32", 14, 71.3},
		{"float64", 16, -2.718281828459045},
	}
	cfg := DeviceConfig{Unit: 1, Groups: []Group{{Name: "g", Interval: time.Second}}}
	want := make(map[string]any)
	for i, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for _, v := range values {
			for _, table := range []Table{Holding, Input} {
				name := v.typ + " " + order + " " + string(table)
				cfg.Tags = append(cfg.Tags, Tag{Name: name, Group: "g", Table: table, Address: uint16(100*i) + v.at, Type: v.typ, Order: order})
				want[name] = v.want
			}
		}
	}
	batch, err := openSession(t, b, cfg).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(batch.Readings) != len(want) {
		t.Errorf("%d readings, want %d", len(batch.Readings), len(want))
	}
	for _, r := range batch.Readings {
		if r.Quality != southbound.Good || r.Value != want[r.Tag] {
			t.Errorf("%s is %v, %s; want %v", r.Tag, r.Value, r.Quality, want[r.Tag])
		}
	}
	if got := b.Stats().Requests; got != 8 {
		t.Errorf("%d requests, want one per order and table", got)
	}
}

func TestPymodbusRefusesUnknownAddress(t *testing.T) {
	b := newBus(t, BusConfig{URL: "tcp://" + startPymodbus(t), ResponseTimeout: patient})
	batch, err := openSession(t, b, registersAt(1, time.Second, 398, 399, 400)).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []southbound.Quality{southbound.Good, southbound.Good, southbound.BadAddress} {
		if got := batch.Readings[i].Quality; got != want {
			t.Errorf("%s is %s, want %s", batch.Readings[i].Tag, got, want)
		}
	}
}
