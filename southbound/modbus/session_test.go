package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// registersAt makes one uint16 tag per address, in one group of the interval.
func registersAt(unit byte, interval time.Duration, addresses ...uint16) DeviceConfig {
	cfg := DeviceConfig{Unit: unit, Retries: -1, Groups: []Group{{Name: "g", Interval: interval}}}
	for _, a := range addresses {
		cfg.Tags = append(cfg.Tags, Tag{Name: fmt.Sprint(a), Group: "g", Table: Holding, Address: a, Type: "uint16"})
	}
	return cfg
}

func openSession(t *testing.T, b *Bus, cfg DeviceConfig) southbound.Session {
	t.Helper()
	a, err := b.Adapter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// qualities reads one batch, holds its values against the peer's registers, and
// returns the qualities in the order of the tags.
func qualities(t *testing.T, s southbound.Session, unit byte) []southbound.Quality {
	t.Helper()
	b, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []southbound.Quality
	for _, r := range b.Readings {
		got = append(got, r.Quality)
		want := any(nil)
		if r.Quality == southbound.Good {
			var address uint16
			if _, err := fmt.Sscan(r.Tag, &address); err != nil {
				t.Fatal(err)
			}
			want = uint64(1000*uint16(unit) + address)
		}
		if r.Value != want {
			t.Errorf("tag %s is %v, %s; want %v", r.Tag, r.Value, r.Quality, want)
		}
	}
	return got
}

// refusing answers requests that touch one of the addresses with an exception.
func refusing(code byte, addresses ...uint16) script {
	return func(w net.Conn, _, _ int, request []byte) error {
		first := binary.BigEndian.Uint16(request[8:])
		end := first + binary.BigEndian.Uint16(request[10:])
		a := answerTo(request)
		for _, bad := range addresses {
			if first <= bad && bad < end {
				a = exceptionTo(request, code)
			}
		}
		_, err := w.Write(a)
		return err
	}
}

func TestExceptions(t *testing.T) {
	tests := []struct {
		code     byte
		quality  southbound.Quality
		requests int32
	}{
		{1, southbound.BadFunction, 1},
		{2, southbound.BadAddress, 1},
		{3, southbound.BadDevice, 1},
		{4, southbound.BadDevice, 2},
		{5, southbound.BadTimeout, 1 + busyRetries},
		{6, southbound.BadTimeout, 1 + busyRetries},
		{8, southbound.BadDevice, 2},
		{10, southbound.BadOffline, 1},
		{11, southbound.BadTimeout, 1},
		{77, southbound.BadDevice, 1},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.code), func(t *testing.T) {
			t.Parallel()
			p := startPeer(t, refusing(test.code, 5))
			s := openSession(t, p.bus(t, patient), registersAt(1, time.Millisecond, 5))
			if got := qualities(t, s, 1); got[0] != test.quality {
				t.Errorf("got %s, want %s", got[0], test.quality)
			}
			if got := p.requests.Load(); got != test.requests {
				t.Errorf("%d requests, want %d", got, test.requests)
			}
		})
	}
}

func TestBusyUnitIsAskedAgain(t *testing.T) {
	p := startPeer(t, func(w net.Conn, _, n int, request []byte) error {
		a := answerTo(request)
		if n < busyRetries {
			a = exceptionTo(request, 6)
		}
		_, err := w.Write(a)
		return err
	})
	s := openSession(t, p.bus(t, patient), registersAt(1, time.Second, 5))
	if got := qualities(t, s, 1); got[0] != southbound.Good {
		t.Errorf("got %s", got[0])
	}
}

// One address that does not exist costs only the tag that wants it, and is
// asked for once. Values that nobody asked for may not exist either.
func TestBadAddressIsFoundAndRemembered(t *testing.T) {
	good, bad := southbound.Good, southbound.BadAddress
	p := startPeer(t, refusing(2, 4, 13, 17))
	b := p.bus(t, patient)
	s := openSession(t, b, registersAt(1, time.Millisecond, 0, 2, 4, 10, 11, 12, 13, 14, 20))
	want := []southbound.Quality{good, good, bad, good, good, good, bad, good, good}
	for poll := range 3 {
		requests, exceptions := p.requests.Load(), b.Stats().Exceptions
		got := qualities(t, s, 1)
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("poll %d: qualities %v, want %v", poll, got, want)
				break
			}
		}
		if n := p.requests.Load() - requests; n > int32(2*len(want)) {
			t.Errorf("poll %d: %d requests", poll, n)
		}
		if n := b.Stats().Exceptions - exceptions; poll > 0 && n != 0 {
			t.Errorf("poll %d: %d exceptions; the bad addresses were forgotten", poll, n)
		}
	}
}

// One answer missed costs one poll its values; the next is good.
func TestTimeoutCostsOnePoll(t *testing.T) {
	p := startPeer(t, lateOnce(1))
	s := openSession(t, p.bus(t, short), registersAt(1, time.Millisecond, 5, 6))
	for poll, want := range []southbound.Quality{southbound.Good, southbound.BadTimeout, southbound.Good, southbound.Good} {
		got := qualities(t, s, 1)
		if got[0] != want || got[1] != want {
			t.Errorf("poll %d: %v, want %s", poll, got, want)
		}
	}
}

func TestLostConnectionEndsSession(t *testing.T) {
	p := startPeer(t, func(w net.Conn, conn, n int, request []byte) error {
		if conn == 0 && n == 0 {
			return honest(w, 0, 0, request)
		}
		return io.EOF
	})
	s := openSession(t, p.bus(t, patient), registersAt(1, time.Millisecond, 5))
	if got := qualities(t, s, 1); got[0] != southbound.Good {
		t.Fatalf("got %s", got[0])
	}
	if _, err := s.Read(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if got := p.conns.Load(); got != 2 {
		t.Errorf("%d connections, want one and its replacement", got)
	}
}

func TestOpenFindsThatThePeerIsGone(t *testing.T) {
	p := startPeer(t, honest)
	b := p.bus(t, patient)
	a, err := b.Adapter(registersAt(1, time.Second, 5))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.listener.Close(); err != nil {
		t.Fatal(err)
	}
	p.hangUp()
	if s, err := a.Open(t.Context()); err == nil {
		t.Errorf("opened %v on a connection that the peer closed", s)
	}
}

func TestAdapterRefuses(t *testing.T) {
	ok := registersAt(1, time.Second, 1)
	tests := map[string]func(*DeviceConfig){
		"no tags":     func(c *DeviceConfig) { c.Tags = nil },
		"no group":    func(c *DeviceConfig) { c.Groups = nil },
		"group twice": func(c *DeviceConfig) { c.Groups = append(c.Groups, c.Groups[0]) },
		"no interval": func(c *DeviceConfig) { c.Groups = []Group{{Name: "g"}} },
		"tag twice":   func(c *DeviceConfig) { c.Tags = append(c.Tags, c.Tags[0]) },
		"bad tag":     func(c *DeviceConfig) { c.Tags = []Tag{{Name: "a", Group: "g", Table: Input, Type: "real"}} },
		"wide tag": func(c *DeviceConfig) {
			c.MaxRegisters = 1
			c.Tags = []Tag{{Name: "a", Group: "g", Table: Input, Type: "int32"}}
		},
		"set in two tables": func(c *DeviceConfig) {
			c.Tags = append(c.Tags, Tag{Name: "a", Group: "g", Table: Input, Type: "int16", Atomic: "s"}, Tag{Name: "b", Group: "g", Table: Holding, Type: "int16", Atomic: "s"})
		},
		"wide set": func(c *DeviceConfig) {
			c.Tags = append(c.Tags, Tag{Name: "a", Group: "g", Table: Input, Type: "int16", Atomic: "s"}, Tag{Name: "b", Group: "g", Table: Input, Address: 125, Type: "int16", Atomic: "s"})
		},
		"many registers": func(c *DeviceConfig) { c.MaxRegisters = 126 },
	}
	for name, spoil := range tests {
		cfg := ok
		spoil(&cfg)
		if _, err := newBus(t, BusConfig{URL: "tcp://nobody"}).Adapter(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := newBus(t, BusConfig{URL: "tcp://nobody"}).Adapter(ok); err != nil {
		t.Error(err)
	}
}
