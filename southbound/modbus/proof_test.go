package modbus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goburrow "github.com/goburrow/modbus"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// A world is what a simulated device holds. A value is four registers: the unit
// and the table, the address, and the version of the world, which is another
// for every answer. So a value that answers another question, or an earlier
// one, shows.
type world struct{ version atomic.Uint32 }

func (w *world) read(unit byte, table modbus.Table, address, quantity uint16) ([]uint16, error) {
	version := w.version.Add(1)
	values := make([]uint16, quantity)
	for i := range values {
		at := address + uint16(i)
		values[i] = [4]uint16{uint16(unit)<<8 | uint16(table[0]), at &^ 3, uint16(version >> 16), uint16(version)}[at%4]
	}
	return values, nil
}

// wrong says what is wrong with a value that was read after the world had the
// version before.
func (w *world) wrong(value any, unit byte, tag modbus.Tag, before uint32) error {
	v, ok := value.(uint64)
	version := uint32(v)
	switch {
	case !ok || byte(v>>56) != unit || byte(v>>48) != tag.Table[0] || uint16(v>>32) != tag.Address:
		return fmt.Errorf("unit %d %s:%d is %#x, a value of another", unit, tag.Table, tag.Address, value)
	case version <= before || version > w.version.Load():
		return fmt.Errorf("unit %d %s:%d is of version %d; the poll began at %d", unit, tag.Table, tag.Address, version, before)
	}
	return nil
}

// Timing of the proof. A late answer comes after the timeout and within the
// window, also on a machine that is busy: the simulator does not send it later.
const (
	proofTimeout = 40 * time.Millisecond
	proofLate    = 50 * time.Millisecond
	proofWindow  = 300 * time.Millisecond
)

// A trial is one device that misbehaves and how it is reached.
type trial struct {
	world world
	sim   *simulator.Simulator
	bus   *modbus.Bus
	good  atomic.Uint64

	mu    sync.Mutex           // covers asked
	asked map[byte][]time.Time // by unit: when the requests went out that it has not heard
}

// A stamped connection notes when a request goes out.
type stamped struct {
	*net.TCPConn
	trial *trial
}

func (c stamped) Write(b []byte) (int, error) {
	unit := b[0]
	if unit == ':' {
		unit = b[2] - '0' // of :0n…
	}
	c.trial.mu.Lock()
	c.trial.asked[unit] = append(c.trial.asked[unit], time.Now())
	c.trial.mu.Unlock()
	return c.TCPConn.Write(b)
}

// heard returns how long ago the request went out that a unit hears now.
func (tr *trial) heard(unit byte) (ago time.Duration, known bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	waiting := tr.asked[unit]
	if len(waiting) == 0 { // it went out on an earlier connection
		return 0, false
	}
	tr.asked[unit] = waiting[1:]
	return time.Since(waiting[0]), true
}

// read gives values only while the client may take them for the answer: on a
// machine that is too busy, a device that hears a request late keeps silent, as
// the trial promises.
func (tr *trial) read(unit byte, table modbus.Table, address, quantity uint16) ([]uint16, error) {
	if tr.asked != nil {
		if ago, known := tr.heard(unit); !known || ago > proofWindow/2 {
			return nil, simulator.ErrSilent
		}
	}
	return tr.world.read(unit, table, address, quantity)
}

// dial stamps the connections of a serial line behind a converter, where answers
// have no number.
func (tr *trial) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	clear(tr.asked)
	return stamped{c.(*net.TCPConn), tr}, nil
}

func startTrial(t *testing.T, url string, cfg simulator.Config, window time.Duration) *trial {
	t.Helper()
	server, client := testTLS(t)
	tr := new(trial)
	if strings.Contains(url, "+tcp:") {
		tr.asked = make(map[byte][]time.Time)
	}
	cfg.TLS, cfg.Slow, cfg.Read = server, proofTimeout/2, tr.read
	var err error
	tr.sim, err = simulator.Listen(url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	busConfig := modbus.BusConfig{URL: tr.sim.URL(), TLS: client, ResponseTimeout: proofTimeout, LateWindow: window}
	if tr.asked != nil {
		busConfig.Dial = tr.dial
	}
	tr.bus, err = modbus.NewBus(busConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(tr.bus.Close(), tr.sim.Close()); err != nil {
			t.Error(err)
		}
	})
	return tr
}

var proofTags = []modbus.Tag{
	{Name: "a", Group: "g", Table: modbus.Holding, Address: 0, Type: "uint64"},
	{Name: "b", Group: "g", Table: modbus.Holding, Address: 400, Type: "uint64"},
	{Name: "c", Group: "g", Table: modbus.Input, Address: 0, Type: "uint64"},
	{Name: "d", Group: "g", Table: modbus.Holding, Address: 0x0804, Type: "uint64"}, // an echo of which has the right byte count
}

// sequence is one poll of four requests, each of which may go wrong. It returns
// what is wrong with the values that it gave.
func (tr *trial) sequence(t *testing.T, unit byte, a southbound.Adapter) (wrong error) {
	before := tr.world.version.Add(1)
	tr.bus.Renew() // each sequence asks
	s, err := a.Open(t.Context())
	if err != nil {
		return nil
	}
	defer s.Close()
	b, err := s.Read(t.Context())
	if err != nil {
		return nil
	}
	for i, r := range b.Readings {
		if r.Quality == southbound.Good {
			tr.good.Add(1)
			wrong = errors.Join(wrong, tr.world.wrong(r.Value, unit, proofTags[i], before))
		} else if r.Value != nil {
			wrong = errors.Join(wrong, fmt.Errorf("%s is %s and %v", r.Tag, r.Quality, r.Value))
		}
	}
	return wrong
}

// The window after a timeout is what keeps late answers from being values, and
// this trial would show it.
func TestLateWindowIsNeeded(t *testing.T) {
	for _, tt := range []struct {
		window    time.Duration
		sequences int
	}{{proofWindow, 20}, {time.Millisecond, 500}} {
		tr := startTrial(t, proofURL(t, "rtu"), simulator.Config{
			Faults: []simulator.Fault{simulator.Late, simulator.Drop}, FaultRate: 0.7, Late: proofLate,
		}, tt.window)
		a, err := tr.bus.Adapter(modbus.DeviceConfig{Unit: 1, Groups: []modbus.Group{{Name: "g", Interval: time.Hour}}, Tags: proofTags})
		if err != nil {
			t.Fatal(err)
		}
		var wrong error
		for i := 0; i < tt.sequences && wrong == nil; i++ {
			wrong = tr.sequence(t, 1, a)
		}
		if (wrong != nil) != (tt.window < proofWindow) {
			t.Errorf("with a window of %v: %v", tt.window, wrong)
		}
	}
}

// proofSize is how many sequences over how many devices.
func proofSize(scheme string) (sequences, devices int) {
	if os.Getenv("PROVE") == "" {
		return 100, 4 // and not more, on machines that do other things, too
	}
	if strings.HasPrefix(scheme, "rtu") || strings.HasPrefix(scheme, "ascii") {
		return 100_000, 64 // most of the time they wait out the window
	}
	return 100_000, 16
}

// Whatever goes wrong, over whatever transport: a value that is published is
// one that the device held, at the address of its tag, during the poll.
func TestNoFaultSequenceGivesAWrongValue(t *testing.T) {
	for _, scheme := range []string{"tcp", "tls", "udp", "rtu+tcp", "ascii+tcp", "rtu", "ascii"} {
		t.Run(scheme, func(t *testing.T) {
			sequences, devices := proofSize(scheme)
			var left atomic.Int64
			left.Store(int64(sequences))
			var running sync.WaitGroup
			var good, stats = new(atomic.Uint64), make([]modbus.BusStats, devices)
			for i := range devices {
				tr := startTrial(t, proofURL(t, scheme), simulator.Config{
					Seed: uint64(i + 1), Faults: slices.DeleteFunc(simulator.Faults(), isConnections), FaultRate: 0.3, Late: proofLate,
				}, proofWindow)
				var units sync.WaitGroup
				for unit := range byte(2) {
					a, err := tr.bus.Adapter(modbus.DeviceConfig{Unit: unit + 1,
						Groups: []modbus.Group{{Name: "g", Interval: time.Hour}}, Tags: proofTags})
					if err != nil {
						t.Fatal(err)
					}
					units.Go(func() {
						for left.Add(-1) >= 0 {
							if err := tr.sequence(t, unit+1, a); err != nil {
								t.Error(err)
							}
						}
					})
				}
				running.Go(func() {
					units.Wait()
					good.Add(tr.good.Load())
					stats[i] = tr.bus.Stats()
				})
			}
			running.Wait()
			var sum modbus.BusStats
			for _, s := range stats {
				sum.Requests += s.Requests
				sum.Timeouts += s.Timeouts
				sum.Late += s.Late
				sum.Garbled += s.Garbled
				sum.Exceptions += s.Exceptions
				sum.Connects += s.Connects
			}
			t.Logf("%s: %d sequences, %d good values, %+v", scheme, sequences, good.Load(), sum)
			if int(good.Load()) < sequences/4 {
				t.Errorf("only %d good values in %d sequences: the trial is too hard to show anything", good.Load(), sequences)
			}
		})
	}
}

// isConnections is about connections and not about answers.
func isConnections(f simulator.Fault) bool { return f == simulator.OneConnection }

func proofURL(t *testing.T, scheme string) string {
	t.Helper()
	if scheme == "rtu" || scheme == "ascii" {
		return scheme + "://" + filepath.Join(t.TempDir(), "port")
	}
	return scheme + "://127.0.0.1:0"
}

// The codec library's own handler on the same device takes late answers for the
// next ones, so the trial has teeth.
func TestTheLibrarysHandlerGivesWrongValues(t *testing.T) {
	tr := startTrial(t, proofURL(t, "rtu"), simulator.Config{
		Faults: []simulator.Fault{simulator.Late, simulator.Drop}, FaultRate: 0.7, Late: 2 * proofTimeout, // it sleeps before it begins to wait
	}, proofWindow)
	h := goburrow.NewRTUClientHandler(tr.sim.Addr())
	h.BaudRate, h.Timeout, h.SlaveId, h.Parity = 115200, proofTimeout, 1, "N"
	defer h.Close()
	client := goburrow.NewClient(h)
	wrong, right := 0, 0
	for i := 0; i < 2000 && wrong < 3; i++ {
		tag := proofTags[i%2]
		before := tr.world.version.Add(1)
		data, err := client.ReadHoldingRegisters(tag.Address, 4)
		switch {
		case err != nil:
		case tr.world.wrong(binary.BigEndian.Uint64(data), 1, tag, before) != nil:
			wrong++
		default:
			right++
		}
	}
	t.Logf("%d wrong and %d right values", wrong, right)
	if wrong == 0 {
		t.Error("no wrong value: the trial has lost its teeth")
	}
}

// testTLS returns both ends of a connection where each proves who it is.
func testTLS(t *testing.T) (server *tls.Config, client func(string) (*tls.Config, error)) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	own := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return &tls.Config{Certificates: own, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert},
		func(string) (*tls.Config, error) {
			return &tls.Config{Certificates: own, RootCAs: roots, ServerName: "localhost"}, nil
		}
}
