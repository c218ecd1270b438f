package northbound

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A site is what a gateway has on disk: a lane of messages with its cursor, and
// a link's state. After a crash nobody of before changes it.
type site struct {
	mu      sync.Mutex // covers the fields below
	life    int        // rises with each crash
	lane    string
	msgs    []storequeue.Message
	acked   uint64 // in memory
	flushed uint64 // on disk
	lag     uint64 // how far flushed may be behind
	state   map[string][]byte
}

func newSite(n int, step uint64) *site {
	s := &site{lane: "link/cloud", state: map[string][]byte{}}
	for i := range n {
		m := storequeue.Message{Seq: uint64(i)*step + 1, Topic: "plant/1", Payload: fmt.Append(nil, i+1)}
		if i > 0 {
			m.Prev = m.Seq - step
		}
		s.msgs = append(s.msgs, m)
	}
	return s
}

func (s *site) last() uint64 { return s.msgs[len(s.msgs)-1].Seq }

func (s *site) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked == s.last()
}

// crash leaves what is on disk.
func (s *site) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life++
	s.acked = s.flushed
}

// A living site is one between two crashes: the link's Source and State.
type living struct {
	*site
	life int
}

func (s *site) start() *living {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &living{s, s.life}
}

func (l *living) Name() string          { return l.lane }
func (l *living) Wake() <-chan struct{} { return nil }

func (l *living) More(after uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return after < l.last()
}

func (l *living) Poll(after uint64, max int) ([]storequeue.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := slices.IndexFunc(l.msgs, func(m storequeue.Message) bool { return m.Seq > after })
	if from < 0 {
		return nil, nil
	}
	return slices.Clone(l.msgs[from:min(from+max, len(l.msgs))]), nil
}

func (l *living) Acked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

func (l *living) Settled(_, last uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return last <= l.flushed
}

func (l *living) Waiting() uint64 { return 0 }

func (l *living) Ack(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life != l.site.life || seq <= l.acked {
		return
	}
	l.acked = seq
	if seq-l.flushed >= l.lag {
		l.flushed = seq
	}
}

func (l *living) State(_ string, fn func(string, []byte) error) error {
	l.mu.Lock()
	state := maps.Clone(l.state)
	l.mu.Unlock()
	for k, v := range state {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (l *living) SetState(changes ...storequeue.Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life != l.site.life {
		return storequeue.ErrFull // so that nobody relies on it
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(l.state, c.Key)
		} else {
			l.state[c.Key] = slices.Clone(c.Value)
		}
	}
	return nil
}

func onceConfig() Config {
	cfg := testConfig()
	cfg.Send = []Route{{Topics: []string{"plant/#"}, QoS: 2}}
	cfg.InFlight = 5
	cfg.MaxPause = 10 * time.Millisecond
	return cfg
}

// live runs links on a site, one after each crash, until everything is done.
func live(t *testing.T, s *site, c *cloud, crashed <-chan struct{}) {
	t.Helper()
	for !s.done() {
		l := s.start()
		cfg := onceConfig()
		cfg.State = l
		c.mu.Lock()
		c.alive = func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.life == l.life
		}
		c.mu.Unlock()
		_, stop := start(t, cfg, l, c)
		gone := false
		until(t, "done", func() bool {
			select {
			case <-crashed:
				gone = true
			default:
			}
			return gone || s.done()
		})
		stop()
	}
}

func ids(s *site) (want []string) {
	for i := range s.msgs {
		want = append(want, fmt.Sprint("gw/7/", s.msgs[i].Seq))
	}
	return want
}

var onceSteps = []step{atConnack, atPublish, atTaken, atPubrec, atPubrel, atReleased, atPubcomp}

// The cloud's session lives; the link or the whole gateway dies after each
// packet of the handshake: everything arrives once, in order.
func TestExactlyOnce(t *testing.T) {
	const n = 12
	for _, at := range onceSteps {
		for _, how := range []string{"cut", "crash", "crash with a late cursor"} {
			for _, early := range []bool{false, true} {
				t.Run(fmt.Sprint(at, " ", how, " ", early), func(t *testing.T) {
					for k := 1; k <= n; k++ {
						if os.Getenv("PROVE") == "" && k%4 != 1 {
							continue
						}
						synctest.Test(t, func(t *testing.T) { exactlyOnce(t, at, k, how, early) })
					}
				})
			}
		}
	}
}

func exactlyOnce(t *testing.T, at step, k int, how string, early bool) {
	s := newSite(12, 1)
	if how == "crash with a late cursor" {
		s.lag = 100
	}
	c := newCloud(t)
	c.early, c.rtt = early, 5*time.Millisecond
	c.connack.SessionPresent = true
	crashed := make(chan struct{}, 2)
	c.cut = func(x step, i int) bool {
		if x != at || i != k && i != k+2 {
			return false
		}
		if how != "cut" {
			s.crash()
			crashed <- struct{}{}
		}
		return true
	}
	live(t, s, c, crashed)
	if got := c.delivered(); !slices.Equal(got, ids(s)) {
		t.Errorf("%s %d: delivered %v", at, k, got)
	}
	if len(c.held) > 0 {
		t.Errorf("%s %d: left at the cloud: %v", at, k, c.held)
	}
}

// A cloud that forgets the session loses what it did not deliver at PUBREC:
// everything that is not complete is sent again, as new.
func TestSessionLostAtQoS2(t *testing.T) {
	for _, at := range onceSteps {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(12, 1)
			c := newCloud(t)
			c.rtt = 5 * time.Millisecond
			c.connack.SessionPresent = true
			c.cut = func(x step, i int) bool {
				if x != at || i != 4 {
					return false
				}
				c.mu.Lock()
				c.connack.SessionPresent = false
				c.mu.Unlock()
				return true
			}
			live(t, s, c, nil)
			got := c.delivered()
			for _, id := range ids(s) {
				if !slices.Contains(got, id) {
					t.Errorf("%s: %s is lost", at, id)
				}
			}
		})
	}
}

// Packet ids are used again and again, through crashes, by messages so far apart
// that each has a block of its own; some vanish while the gateway is down. What
// the cloud remembers of an old message is never taken for a new one.
func TestPacketIDsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(5*blocks, 1000)
		s.lag = 20_000
		c := newCloud(t)
		c.rtt = time.Millisecond
		c.connack.SessionPresent = true
		crashed := make(chan struct{}, 20)
		vanished := map[string]bool{}
		c.cut = func(x step, i int) bool {
			if x != atTaken || i%50 != 0 {
				return false
			}
			s.crash()
			s.mu.Lock()
			from := slices.IndexFunc(s.msgs, func(m storequeue.Message) bool { return m.Seq > s.acked })
			if from >= 0 && from+30 < len(s.msgs) { // the oldest that wait were too old
				for _, m := range s.msgs[from : from+10] {
					vanished[fmt.Sprint("gw/7/", m.Seq)] = true
				}
				s.msgs = slices.Delete(s.msgs, from, from+10)
			}
			s.mu.Unlock()
			crashed <- struct{}{}
			return true
		}
		live(t, s, c, crashed)
		seen := map[string]int{}
		for _, id := range c.delivered() {
			if seen[id]++; seen[id] > 1 {
				t.Errorf("%s came twice", id)
			}
		}
		for _, id := range ids(s) {
			if seen[id] == 0 {
				t.Errorf("%s is lost", id)
			}
		}
		if len(vanished) == 0 || c.unknown == 0 {
			t.Errorf("%d vanished, %d unknown PUBREL: the test does not test", len(vanished), c.unknown)
		}
	})
}

// A gateway made anew meets a session of its predecessor, which holds messages
// under all packet ids.
func TestSessionOfSomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(600, 1)
		c := newCloud(t)
		c.early = true
		c.connack.SessionPresent = true
		for id := range firstRequestID - firstID2 {
			c.held[uint16(firstID2+id)] = "of another life"
		}
		live(t, s, c, nil)
		if got := c.delivered(); !slices.Equal(got, ids(s)) {
			t.Errorf("%d delivered, want %d", len(got), len(s.msgs))
		}
	})
}

// PUBREL leaves after its commit, and the commits are few.
func TestPubrecIsOnDiskBeforePubrel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(400, 1)
		c := newCloud(t)
		c.rtt = 20 * time.Millisecond
		w := &slowState{living: s.start(), slow: 30 * time.Millisecond}
		c.cut = func(x step, i int) bool {
			if x == atPubrel {
				w.mu.Lock()
				defer w.mu.Unlock()
				if i > w.written {
					t.Errorf("PUBREL %d before its commit", i)
				}
			}
			return false
		}
		cfg := onceConfig()
		cfg.InFlight = 50
		cfg.State = w
		_, stop := start(t, cfg, w, c)
		defer stop()
		until(t, "done", s.done)
		if w.commits > 60 {
			t.Errorf("%d commits for 400 messages", w.commits)
		}
	})
}

type slowState struct {
	*living
	slow    time.Duration
	commits int
	written int // PUBRECs on disk
}

func (s *slowState) SetState(changes ...storequeue.Change) error {
	time.Sleep(s.slow)
	s.mu.Lock()
	s.commits++
	s.mu.Unlock()
	err := s.living.SetState(changes...)
	g, lerr := newLedger(s.living, "cloud")
	if lerr != nil {
		return lerr
	}
	n := 0
	for i := range g.blocks {
		for j := range blockSize {
			if g.blocks[i].received.has(j) {
				n++
			}
		}
	}
	s.mu.Lock()
	s.written = max(s.written, n)
	s.mu.Unlock()
	return err
}

// A message that is refused holds up nobody, and nothing is repeated for it.
func TestRefusedAtQoS2(t *testing.T) {
	for _, code := range []byte{0x97, 0x99} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(30, 1)
			c := newCloud(t)
			c.rtt = 5 * time.Millisecond
			refused := 0
			c.reply = func(_ int, p *packets.Publish) byte {
				if hgID(p) == "gw/7/13" && (code == 0x99 || refused < 3) {
					refused++
					return code
				}
				return 0
			}
			l := s.start()
			cfg := onceConfig()
			cfg.State = l
			dropped := 0
			cfg.Dropped = func(storequeue.Message, Drop, byte) { dropped++ }
			_, stop := start(t, cfg, l, c)
			defer stop()
			until(t, "done", s.done)
			got, want := c.delivered(), ids(s)
			if code == 0x99 {
				want = slices.Delete(want, 12, 13)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || refused != 3 || dropped != len(s.msgs)-len(want) {
				t.Errorf("%#x: refused %d times, dropped %d, delivered %v", code, refused, dropped, got)
			}
		})
	}
}

// A server that takes QoS 1 at most gets that.
func TestMaximumQoS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		most := byte(1)
		c, _ := trap(t, func(c *cloud, _ *site, _ *Config) { c.connack.Properties.MaximumQOS = &most })
		for _, p := range c.received() {
			if p.QoS != most {
				t.Fatalf("a message at QoS %d", p.QoS)
			}
		}
	})
}
