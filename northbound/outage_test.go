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
