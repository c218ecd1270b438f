package northbound

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// hangs is a script that stops reading after the first CONNACK.
func hangs(c *cloud) (release func()) {
	gate := make(chan struct{})
	var once atomic.Bool
	c.hello = func(*cloudConn) {
		if once.CompareAndSwap(false, true) {
			<-gate
		}
	}
	return func() { close(gate) }
}

// A line that swallows everything is given up, and the next one delivers. In
// real time: writers wait for each other on a mutex.
func TestBlackHole(t *testing.T) {
	c := newCloud(t)
	release := hangs(c)
	src := newSource(t, c)
	src.put(t, numbered(50)...)
	cfg := testConfig()
	cfg.KeepAlive = time.Second
	l, err := NewLink(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	l.dial = c.dial
	runUntil(t, l, func() bool { return src.Acked() == 50 })
	release()
	c.done.Wait()
	wantInOrder(t, c, 50)
}

// A write that hangs does not hold shutdown.
func TestShutdownInBlackHole(t *testing.T) {
	c := newCloud(t)
	release := hangs(c)
	l, err := NewLink(testConfig(), newSource(t, c))
	if err != nil {
		t.Fatal(err)
	}
	l.dial = c.dial
	var at time.Time
	runUntil(t, l, func() bool { at = time.Now(); return l.Stats().Connected })
	if d := time.Since(at); d > 2*time.Second {
		t.Errorf("Run ended after %v", d)
	}
	release()
	c.done.Wait()
}

// Servers are tried in order, without a pause between them, and the log tells
// a lasting fault once.
func TestServersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		cfg := testConfig()
		cfg.Servers = []string{"first.test:8883", "second.test:8883"}
		src := newSource(t, c)
		src.put(t, numbered(5)...)
		l, err := NewLink(cfg, src)
		if err != nil {
			t.Fatal(err)
		}
		var tried []string
		l.dial = func(ctx context.Context, server string) (net.Conn, error) {
			tried = append(tried, server)
			if strings.HasPrefix(server, "first") {
				return nil, &net.DNSError{Err: "no such host", Name: server}
			}
			return c.dial(ctx, server)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		began := time.Now()
		go func() { ended <- l.Run(ctx) }() // ends with ctx
		until(t, "sent", func() bool { return src.Acked() == 5 })
		if !slices.Equal(tried, cfg.Servers) || time.Since(began) > time.Second {
			t.Errorf("tried %v within %v", tried, time.Since(began))
		}
		if st := l.Stats(); st.Server != "second.test:8883" || !st.Connected || st.LastError != "" {
			t.Errorf("stats %+v", st)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		c.done.Wait()
	})
}

// On a standby the link looks for the first server, and moves back without a
// message lost or repeated. One that shakes hands and refuses CONNECT costs a
// reconnect, seldom.
func TestFailback(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			c.rtt = 10 * time.Millisecond
			first := newCloud(t)
			first.rtt = c.rtt
			first.down = true
			cfg := testConfig()
			cfg.Servers = []string{"first.test:8883", "second.test:8883"}
			src := newSource(t, nil)
			l, err := NewLink(cfg, src)
			if err != nil {
				t.Fatal(err)
			}
			l.dial = func(ctx context.Context, server string) (net.Conn, error) {
				if strings.HasPrefix(server, "first") {
					return first.dial(ctx, server)
				}
				return c.dial(ctx, server)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- l.Run(ctx) }() // ends with ctx
			until(t, "on the standby", func() bool { return l.Stats().Server == "second.test:8883" && l.Stats().Connected })
			first.mu.Lock()
			first.down = false
			if refuses {
				first.connack.ReasonCode = packets.ConnackServerUnavailable
			}
			first.mu.Unlock()
			const n = 300
			for i := range n {
				src.put(t, numbered(n)[i])
				time.Sleep(time.Second)
			}
			until(t, "all acknowledged", func() bool { return src.Acked() == n })
			got := append(c.ackedIDs(), first.ackedIDs()...)
			if len(got) != n || len(c.received())+len(first.received()) != n {
				t.Errorf("%d arrived, %d were sent, want %d", len(got), len(c.received())+len(first.received()), n)
			}
			if !slices.IsSortedFunc(got, func(x, y string) int { return len(x) - len(y) }) {
				t.Errorf("out of order: %v", got)
			}
			switch moves := len(first.connects); {
			case !refuses && (moves != 1 || l.Stats().Server != "first.test:8883" || len(first.ackedIDs()) < n/2):
				t.Errorf("%d moves, on %s", moves, l.Stats().Server)
			case refuses && (moves < 1 || moves > 4 || l.Stats().Server != "second.test:8883"):
				t.Errorf("%d tries at the first in 5 minutes, on %s", moves, l.Stats().Server)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			c.done.Wait()
			first.done.Wait()
		})
	}
}

// A server that falls silent is left within one and a half keepalives, whether
// anything is sent or not; one that only has nothing to say is not.
func TestSilence(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			src := newSource(t, c)
			l, stop := start(t, testConfig(), src, c)
			defer stop()
			time.Sleep(10 * time.Minute)
			if l.Stats().Reconnects != 0 {
				t.Fatalf("a quiet link was given up: %+v", l.Stats())
			}
			c.silent.Store(true)
			if busy {
				src.put(t, numbered(3)...)
			}
			began := time.Now()
			until(t, "left", func() bool { return l.Stats().LastError != "" })
			if d := time.Since(began); d > 45*time.Second {
				t.Errorf("busy %v: silence was noticed after %v, want at most 1.5 keepalives of 30 s", busy, d)
			}
			c.silent.Store(false)
			until(t, "back", func() bool { return l.Stats().Connected })
		})
	}
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Name: "cloud.test"}, "a:1: no address for the name a: check the name and the gateway's DNS"},
		{&connackError{0x87, "", "gw"}, `a:1: the server refused the connection: not authorized 0x87: let client id "gw" with our certificate in at the server, or correct client_id`},
		{&connackError{0x89, "try later", "gw"}, `a:1: the server refused the connection: server busy 0x89, "try later"`},
		{&disconnectError{0x8E, ""}, "a:1: the server disconnected: session taken over 0x8E: somebody else connects with our client id; give each gateway its own client_id"},
		{fmt.Errorf("write: %w", io.EOF), "a:1: the server closed the connection without a reason: see its log"},
		{context.DeadlineExceeded, "a:1: no answer in time: check the network and firewalls between"},
	} {
		if got := explain("a:1", tc.err).Error(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}
