package northbound

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"go.uber.org/goleak"

	"github.com/headgate-io/headgate/storequeue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A checkedSource is a reader of the real queue that knows which messages the
// cloud has acknowledged.
type checkedSource struct {
	*storequeue.Reader
	t     *testing.T
	queue *storequeue.Queue
	cloud *cloud
	mu    sync.Mutex      // covers gone
	gone  map[uint64]bool // left out on purpose
}

func (s *checkedSource) Ack(seq uint64) {
	for n := s.Acked() + 1; s.cloud != nil && n <= seq; n++ {
		s.cloud.mu.Lock()
		acked := s.cloud.acked[fmt.Sprintf("gw/7/%d", n)]
		s.cloud.mu.Unlock()
		s.mu.Lock()
		gone := s.gone[n]
		s.mu.Unlock()
		if !acked && !gone {
			s.t.Errorf("cursor moved to %d past message %d, which the cloud has not acknowledged", seq, n)
		}
	}
	s.Reader.Ack(seq)
}

func (s *checkedSource) leaveOut(seq uint64) {
	s.mu.Lock()
	s.gone[seq] = true
	s.mu.Unlock()
}

// newSource makes a queue with one reader; c may be nil.
func newSource(t testing.TB, c *cloud) *checkedSource { return newSourceIn(t, c, t.TempDir()) }

func newSourceIn(t testing.TB, c *cloud, dir string) *checkedSource {
	q, err := storequeue.Open(dir, storequeue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := q.Reader("link:cloud")
	if err != nil {
		t.Fatal(err)
	}
	s := &checkedSource{Reader: r, queue: q, cloud: c, gone: map[uint64]bool{}}
	s.t, _ = t.(*testing.T)
	t.Cleanup(func() { q.Close() })
	return s
}

// memoryDir is a folder in memory where the system has that: syncs cost nothing.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "headgate-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// put stores messages for the link.
func (s *checkedSource) put(t testing.TB, msgs ...storequeue.Message) {
	t.Helper()
	for i := range msgs {
		msgs[i].For = []storequeue.Mark{{Reader: s.ID(), QoS: 1}}
	}
	if err := s.queue.Append(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) []storequeue.Message {
	msgs := make([]storequeue.Message, n)
	for i := range msgs {
		msgs[i] = storequeue.Message{Topic: fmt.Sprintf("plant/%d", i%3), Payload: fmt.Append(nil, i+1)}
	}
	return msgs
}

// match is enough of MQTT filters for these tests.
func match(filter, topic string) bool {
	if p, ok := strings.CutSuffix(filter, "#"); ok {
		return strings.HasPrefix(topic, p)
	}
	return filter == topic
}

func testConfig() Config {
	return Config{
		Name: "cloud", Gateway: "gw", Epoch: 7, Servers: []string{"cloud.test:8883"}, ClientID: "gw",
		KeepAlive: 30 * time.Second, SessionExpiry: time.Hour, ConnectTimeout: 5 * time.Second,
		Send:   []Route{{Topics: []string{"plant/#", "hg/#"}, Except: []string{"plant/secret"}, QoS: 1, Prefix: "sites/gw/"}},
		Match:  match,
		Leaves: func(string) bool { return true },
		TLS:    func(string) (*tls.Config, error) { return &tls.Config{}, nil },
	}
}

// start runs a link on a cloud until stop, which fails the test if Run did not
// return nil within two seconds.
func start(t *testing.T, cfg Config, src Source, c *cloud) (l *Link, stop func()) {
	t.Helper()
	l, err := NewLink(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	l.dial = c.dial
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }() // ends with ctx
	return l, sync.OnceFunc(func() {
		cancel()
		at := time.Now()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(at); d > 2*time.Second {
			t.Errorf("Run took %v to end", d)
		}
		c.done.Wait()
	})
}

// until waits, in the bubble's time, for what must come.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 20_000 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func wantInOrder(t *testing.T, c *cloud, n int) {
	t.Helper()
	ids := c.ackedIDs()
	if len(ids) != n {
		t.Fatalf("the cloud acknowledged %d messages, want %d: %v", len(ids), n, ids)
	}
	for i, id := range ids {
		if want := fmt.Sprintf("gw/7/%d", i+1); id != want {
			t.Fatalf("message %d is %s, want %s: %v", i, id, want, ids)
		}
	}
}

// Whatever packet the line breaks at, everything arrives, in order, and the
// cursor follows the cloud.
func TestCutAnywhere(t *testing.T) {
	const n = 20
	for _, at := range []step{atConnect, atConnack, atPublish, atPuback} {
		for k := 1; k <= n; k++ {
			if k > 2 && (at == atConnect || at == atConnack) {
				break
			}
			t.Run(fmt.Sprint(at, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCloud(t)
					c.connack.SessionPresent = k%2 == 0
					c.cut = func(s step, i int) bool { return s == at && (i == k || i == k+3) }
					src := newSource(t, c)
					src.put(t, numbered(n)...)
					_, stop := start(t, testConfig(), src, c)
					defer stop()
					until(t, "all acknowledged", func() bool { return src.Acked() == n })
					wantInOrder(t, c, n)
				})
			})
		}
	}
}

func TestReceiveMaximum(t *testing.T) {
	for _, tc := range []struct{ first, then, n int }{
		{1, 10, 200}, {10, 1, 200}, {10, 65535, 6000}, {65535, 10, 6000},
	} {
		t.Run(fmt.Sprint(tc.first, tc.then), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := tc.n
				c := newCloud(t)
				c.rtt = 50 * time.Millisecond
				first, then := uint16(tc.first), uint16(tc.then)
				c.connack.Properties.ReceiveMaximum = &first
				c.cut = func(s step, i int) bool {
					if s != atPuback || i != n/2 {
						return false
					}
					c.mu.Lock()
					defer c.mu.Unlock()
					c.connack.Properties = &packets.Properties{ReceiveMaximum: &then}
					return true
				}
				src := newSource(t, c)
				src.put(t, numbered(n)...)
				_, stop := start(t, testConfig(), src, c)
				defer stop()
				until(t, "all acknowledged", func() bool { return src.Acked() == uint64(n) })
				for i, most := range []int{tc.first, tc.then} {
					if got, want := c.maxOpen[i], min(most, 1000); got > want || got < want*9/10 {
						t.Errorf("connection %d: at most %d in flight, want %d", i, got, want)
					}
				}
				wantInOrder(t, c, n)
			})
		})
	}
}

func TestSessionPresent(t *testing.T) {
	for _, present := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			c.connack.SessionPresent = present
			c.reply = func(n int, _ *packets.Publish) byte {
				if n == 5 {
					return dropLine
				}
				return 0
			}
			src := newSource(t, c)
			src.put(t, numbered(8)...)
			_, stop := start(t, testConfig(), src, c)
			defer stop()
			until(t, "all acknowledged", func() bool { return src.Acked() == 8 })
			wantInOrder(t, c, 8)
			for i, p := range c.connects {
				if p.CleanStart || p.Properties.SessionExpiryInterval == nil || *p.Properties.SessionExpiryInterval != 3600 {
					t.Errorf("CONNECT %d: clean start %v, expiry %v: commands would not wait", i, p.CleanStart, p.Properties.SessionExpiryInterval)
				}
			}
			seen := map[string]int{}
			for _, p := range c.received() {
				if seen[hgID(p)]++; seen[hgID(p)] > 2 {
					t.Errorf("%s was sent more than twice over two connections", hgID(p))
				}
				if p.Duplicate {
					t.Errorf("%s has DUP set under a packet id of another connection", hgID(p))
				}
			}
		})
	}
}

// A server that is away for an hour, and one that drops every connection, are
// both asked seldom.
func TestReconnectStorm(t *testing.T) {
	for name, script := range map[string]func(c *cloud){
		"away":    func(c *cloud) { c.down = true },
		"drops":   func(c *cloud) { c.cut = func(s step, _ int) bool { return s == atConnack } },
		"refuses": func(c *cloud) { c.connack.ReasonCode = 0x87 },
		"QoS 0 only": func(c *cloud) {
			c.connack.Properties.MaximumQOS = new(byte)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				script(c)
				src := newSource(t, c)
				l, stop := start(t, testConfig(), src, c)
				defer stop()
				time.Sleep(time.Hour)
				c.mu.Lock()
				dials := c.dials
				c.mu.Unlock()
				if dials < 60 || dials > 300 {
					t.Errorf("%d attempts in an hour, want about 120", dials)
				}
				if st := l.Stats(); st.Connected || st.LastError == "" {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

// After a long time up the first try comes within a second.
func TestReconnectSoonAfterSteadyLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		lines := make(chan net.Conn, 2)
		c.hello = func(cc *cloudConn) { lines <- cc }
		src := newSource(t, c)
		l, stop := start(t, testConfig(), src, c)
		defer stop()
		time.Sleep(time.Minute)
		cut := time.Now()
		(<-lines).Close()
		until(t, "reconnected", func() bool { return l.Stats().Reconnects == 1 })
		if d := c.dialled[1].Sub(cut); d > time.Second {
			t.Errorf("reconnected after %v", d)
		}
	})
}

func TestShutdownWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.rtt = time.Hour
		src := newSource(t, c)
		src.put(t, numbered(100)...)
		_, stop := start(t, testConfig(), src, c)
		until(t, "sent", func() bool { return len(c.received()) > 0 })
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }() // ends with the link
		time.Sleep(1500 * time.Millisecond)
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.byes) != 1 || c.byes[0] != 0x04 {
			t.Errorf("DISCONNECT codes %v, want one 0x04, which publishes the will", c.byes)
		}
		if src.Acked() != 0 {
			t.Errorf("cursor at %d, nothing was acknowledged", src.Acked())
		}
	})
}
