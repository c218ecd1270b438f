package modbus_test

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// start runs somebody else's server until the test ends and returns the line it
// prints when it is ready.
func start(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
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
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s does not start: %v", name, err)
	}
	return strings.TrimSpace(line)
}

func needProgram(t *testing.T, name, debian string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs Debian's %s: apt-get install %[1]s", debian)
	}
}

// startPair joins two pseudo-terminals and returns their names.
func startPair(t *testing.T) (ours, theirs string) {
	t.Helper()
	needProgram(t, "socat", "socat")
	dir := t.TempDir()
	ours, theirs = filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	cmd := exec.Command("socat", "-d", "-d", "PTY,raw,echo=0,link="+ours, "PTY,raw,echo=0,link="+theirs)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it knows no other end
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "starting data transfer loop") {
			go func() {
				for lines.Scan() { // or it would block
				}
			}()
			return ours, theirs
		}
	}
	t.Fatal("socat does not start")
	return "", ""
}

// python is the one that Debian's packages are for.
const python = "/usr/bin/python3"

// startPymodbus starts the server in testdata and returns how to reach it.
func startPymodbus(t *testing.T, mode string) modbus.BusConfig {
	t.Helper()
	if err := exec.Command(python, "-c", "import pymodbus.server.async_io").Run(); err != nil {
		t.Skip("needs Debian's python3-pymodbus, python3-serial and python3-serial-asyncio")
	}
	cfg := modbus.BusConfig{ResponseTimeout: 5 * time.Second, LateWindow: 10 * time.Millisecond}
	args := []string{"testdata/pymodbus_server.py", mode}
	switch mode {
	case "rtu":
		ours, theirs := startPair(t)
		cfg.URL, args = "rtu://"+ours, append(args, theirs)
		start(t, python, args...)
		return cfg
	case "tls":
		server, client := testTLS(t)
		cfg.TLS = client
		key, err := x509.MarshalPKCS8PrivateKey(server.Certificates[0].PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, writePEM(t, "CERTIFICATE", server.Certificates[0].Certificate[0]), writePEM(t, "PRIVATE KEY", key))
	}
	cfg.URL = mode + "://" + net.JoinHostPort("127.0.0.1", start(t, python, args...))
	return cfg
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// readOnce returns the first batch of a device, by tag.
func readOnce(t *testing.T, cfg modbus.BusConfig, device modbus.DeviceConfig) map[string]southbound.Reading {
	t.Helper()
	s, _, err := openBus(t, cfg, device)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]southbound.Reading)
	for _, r := range b.Readings {
		all[r.Tag] = r
	}
	return all
}

// pymodbus lays every type out in every order; each reads back as it is meant.
func TestPymodbusReadsTheSame(t *testing.T) {
	values := []struct {
		typ  string
		at   uint16
		want any
	}{
		{"int16", 0, int64(-12345)}, {"uint16", 1, uint64(54321)}, {"int32", 2, int64(-1234567890)}, {"uint32", 4, uint64(3234567890)},
		{"int64", 6, int64(-1234567890123456789)}, {"uint64", 10, uint64(12345678901234567890)},
		{"float32", 14, 71.3}, {"float64", 16, -2.718281828459045}, {"float16", 20, 1.5}, {"string", 21, "Headgate"},
	}
	device := modbus.DeviceConfig{Unit: 1, Groups: []modbus.Group{{Name: "g", Interval: time.Second}}}
	want := make(map[string]any)
	add := func(tag modbus.Tag, value any) {
		tag.Name, tag.Group = fmt.Sprint(tag.Type, " ", tag.Order, " ", tag.Table, ":", tag.Address), "g"
		device.Tags = append(device.Tags, tag)
		want[tag.Name] = value
	}
	for i, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for _, v := range values {
			for _, table := range []modbus.Table{modbus.Holding, modbus.Input} {
				tag := modbus.Tag{Table: table, Address: uint16(100*i) + v.at, Type: v.typ, Order: order}
				if v.typ == "string" {
					tag.Length, tag.Order = 4, ""
				}
				add(tag, v.want)
			}
		}
	}
	for i := range uint16(10) {
		add(modbus.Tag{Table: modbus.Coil, Address: i, Type: "bool"}, i%3 == 0)
		add(modbus.Tag{Table: modbus.Discrete, Address: i, Type: "bool"}, i%3 == 0)
	}
	for _, mode := range []string{"tcp", "rtu", "rtu+tcp", "tls"} {
		t.Run(mode, func(t *testing.T) {
			got := readOnce(t, startPymodbus(t, mode), device)
			for name, value := range want {
				if r := got[name]; r.Quality != southbound.Good || r.Value != value {
					t.Errorf("%s is %v, %s; want %v", name, r.Value, r.Quality, value)
				}
			}
		})
	}
}

func threeAt(first uint16) modbus.DeviceConfig {
	device := modbus.DeviceConfig{Unit: 1, Groups: []modbus.Group{{Name: "g", Interval: time.Second}}}
	for i := range uint16(3) {
		device.Tags = append(device.Tags, modbus.Tag{Name: fmt.Sprint(first + i), Group: "g", Table: modbus.Holding, Address: first + i, Type: "uint16"})
	}
	return device
}

// The last register of three does not exist, and the others are read.
func checkRefused(t *testing.T, cfg modbus.BusConfig, first uint16) {
	t.Helper()
	got := readOnce(t, cfg, threeAt(first))
	for i, want := range []southbound.Quality{southbound.Good, southbound.Good, southbound.BadAddress} {
		if r := got[fmt.Sprint(first+uint16(i))]; r.Quality != want {
			t.Errorf("%s is %s, want %s", r.Tag, r.Quality, want)
		}
	}
}

func TestPymodbusRefusesUnknownAddress(t *testing.T) {
	checkRefused(t, startPymodbus(t, "tcp"), 398)
}

// libmodbus answers as pymodbus does, exceptions too.
func TestLibmodbus(t *testing.T) {
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libmodbus").Output()
	if err != nil {
		t.Skip("needs Debian's libmodbus-dev and pkg-config")
	}
	server := filepath.Join(t.TempDir(), "server")
	args := append([]string{"-o", server, "testdata/libmodbus_server.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	device := threeAt(10)
	device.Tags = append(device.Tags,
		modbus.Tag{Name: "input", Group: "g", Table: modbus.Input, Address: 63, Type: "uint16"},
		modbus.Tag{Name: "coil", Group: "g", Table: modbus.Coil, Address: 63, Type: "bool"},
		modbus.Tag{Name: "discrete", Group: "g", Table: modbus.Discrete, Address: 1, Type: "bool"})
	want := map[string]any{"10": uint64(30), "11": uint64(33), "12": uint64(36), "input": uint64(189), "coil": true, "discrete": false}
	for _, mode := range []string{"tcp", "rtu"} {
		reach := func(t *testing.T) modbus.BusConfig {
			cfg := modbus.BusConfig{ResponseTimeout: 5 * time.Second, LateWindow: 10 * time.Millisecond}
			if mode == "tcp" {
				cfg.URL = "tcp://127.0.0.1:" + start(t, server, mode)
				return cfg
			}
			ours, theirs := startPair(t)
			start(t, server, mode, theirs)
			cfg.URL = "rtu://" + ours
			return cfg
		}
		t.Run(mode, func(t *testing.T) {
			got := readOnce(t, reach(t), device)
			for name, value := range want {
				if r := got[name]; r.Value != value {
					t.Errorf("%s is %v, %s; want %v", name, r.Value, r.Quality, value)
				}
			}
		})
		t.Run(mode+" refuses", func(t *testing.T) { checkRefused(t, reach(t), 62) })
	}
}

// mbpoll reads our simulator, so that it is no private understanding between it
// and our client.
func TestMbpollReadsTheSimulator(t *testing.T) {
	needProgram(t, "mbpoll", "mbpoll")
	for _, scheme := range []string{"tcp", "rtu"} {
		t.Run(scheme, func(t *testing.T) {
			sim, err := simulator.Listen(proofURL(t, scheme), simulator.Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = sim.Close() })
			for i, v := range []uint16{713, 0x8000, 1, 2} {
				if err := sim.Set(1, modbus.Holding, uint16(40+i), v); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"-m", scheme, "-a", "1", "-0", "-r", "40", "-c", "4", "-t", "4", "-1"}
			if host, port, err := net.SplitHostPort(sim.Addr()); err == nil {
				args = append(args, "-p", port, host)
			} else {
				args = append(args, "-b", "19200", "-P", "even", sim.Addr())
			}
			out, err := exec.Command("mbpoll", args...).CombinedOutput()
			for _, want := range []string{"[40]: \t713", "[41]: \t32768 (-32768)", "[42]: \t1", "[43]: \t2"} {
				if err != nil || !bytes.Contains(out, []byte(want)) {
					t.Errorf("mbpoll, %v: no %q in\n%s", err, want, out)
				}
			}
		})
	}
}
