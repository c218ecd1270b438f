package northbound

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// A new connection under load costs nothing: no message twice, none lost, no
// will, no pause.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		c := newCloud(t)
		c.rtt = 20 * time.Millisecond
		src := newSource(t, c)
		src.put(t, numbered(n)...)
		cfg := testConfig()
		cfg.InFlight = 50
		l, stop := start(t, cfg, src, c)
		for range 5 {
			before := src.Acked()
			until(t, "more", func() bool { return src.Acked() > before })
			l.Reconnect()
			l.Reconnect()
			dials := l.Stats().Reconnects
			until(t, "again", func() bool { return l.Stats().Connected && l.Stats().Reconnects > dials })
		}
		until(t, "done", func() bool { return src.Acked() == n })
		if s := l.Stats(); s.Reconnects != 5 || s.LastError != "" {
			t.Errorf("%d reconnects, error %q", s.Reconnects, s.LastError)
		}
		stop()
		if got := len(c.received()); got != n {
			t.Errorf("%d messages were sent, want %d, each once", got, n)
		}
		if want := append(slices.Repeat([]byte{packets.DisconnectNormalDisconnection}, 5), packets.DisconnectDisconnectWithWillMessage); !slices.Equal(c.byes, want) {
			t.Errorf("goodbyes %v, want %v", c.byes, want)
		}
		if took := c.dialled[5].Sub(c.dialled[0]); took > 5*time.Second {
			t.Errorf("five new connections took %v", took)
		}
	})
}

// One that is asked for while there is none is not made up for.
func TestReconnectWithoutConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		src := newSource(t, c)
		cfg := testConfig()
		l, err := NewLink(cfg, src)
		if err != nil {
			t.Fatal(err)
		}
		l.Reconnect()
		l.dial = c.dial
		runUntil(t, l, func() bool { return l.Stats().Connected })
		if got := l.Stats().Reconnects; got != 0 {
			t.Errorf("%d reconnects", got)
		}
	})
}
