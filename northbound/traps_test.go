package northbound

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// What common clients do wrong when a cloud misbehaves, each as a script, at
// QoS 1 and 2: nothing is lost, nothing out of order, and no message costs more
// than one reconnect.

func trap(t *testing.T, script func(c *cloud, s *site, cfg *Config)) (*cloud, *Link) {
	t.Helper()
	c := newCloud(t)
	c.connack.SessionPresent = true
	s := newSite(100, 1)
	l := s.start()
	cfg := onceConfig()
	cfg.InFlight = 1000
	cfg.State = l
	left := 0
	cfg.Dropped = func(m storequeue.Message, _ Drop, _ byte) { left++ }
	script(c, s, &cfg)
	link, stop := start(t, cfg, l, c)
	until(t, "done", s.done)
	stop()
	first := []string{} // arrivals, without repeats
	for _, p := range c.received() {
		if id := hgID(p); !slices.Contains(first, id) {
			first = append(first, id)
		}
	}
	if want := ids(s); !slices.Equal(first, want) {
		t.Errorf("arrived: %v", first)
	}
	done := map[string]bool{}
	for _, id := range append(c.ackedIDs(), c.delivered()...) {
		done[id] = true
	}
	if len(done)+left != len(s.msgs) {
		t.Errorf("%d taken by the cloud and %d left out, of %d", len(done), left, len(s.msgs))
	}
	return c, link
}

func eachQoS(t *testing.T, test func(t *testing.T, qos byte)) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, qos) })
		})
	}
}

// A: everything is sent, nothing acknowledged, and the server comes back without
// the session.
func TestTrapSessionGone(t *testing.T) {
	eachQoS(t, func(t *testing.T, qos byte) {
		c, _ := trap(t, func(c *cloud, _ *site, cfg *Config) {
			cfg.Send[0].QoS = qos
			c.reply = func(n int, _ *packets.Publish) byte { // the window has grown to 50 by then
				if n == 100 {
					c.mu.Lock()
					c.connack.SessionPresent = false
					c.mu.Unlock()
					return dropLine
				}
				return 0
			}
			c.rtt = 10 * time.Millisecond
		})
		if again := len(c.received()) - 100; again < 1 {
			t.Errorf("%d were sent again: nothing was in flight", again)
		}
	})
}

// B: quota exceeded. What is refused is sent again, more slowly.
func TestTrapQuota(t *testing.T) {
	eachQoS(t, func(t *testing.T, qos byte) {
		began := time.Now()
		c, l := trap(t, func(c *cloud, _ *site, cfg *Config) {
			cfg.Send[0].QoS = qos
			cfg.MaxPause = 0
			c.reply = func(int, *packets.Publish) byte {
				if time.Since(began) < 5*time.Minute {
					return packets.PubackQuotaExceeded
				}
				return 0
			}
		})
		if n := l.Stats().Refused[packets.PubackQuotaExceeded]; n < 4 || n > 60 || l.Stats().Quarantined > 0 || len(c.connects) != 1 {
			t.Errorf("%d refusals in five minutes, %d connections, %d quarantined", n, len(c.connects), l.Stats().Quarantined)
		}
	})
}

// C: a message that is too large, for a server that says so in CONNACK, and for
// one that just hangs up.
func TestTrapTooLarge(t *testing.T) {
	for _, said := range []bool{true, false} {
		eachQoS(t, func(t *testing.T, qos byte) {
			c := newCloud(t)
			c.connack.SessionPresent = true
			c.rtt = 10 * time.Millisecond
			if limit := uint32(1000); said {
				c.connack.Properties.MaximumPacketSize = &limit
			}
			c.reply = func(_ int, p *packets.Publish) byte {
				if len(p.Payload) > 1000 {
					return sayTooLarge
				}
				return 0
			}
			s := newSite(100, 1)
			s.msgs[60].Payload = make([]byte, 2000)
			l := s.start()
			cfg := onceConfig()
			cfg.InFlight, cfg.State, cfg.Send[0].QoS = 1000, l, qos
			var dropped []uint64
			cfg.Dropped = func(m storequeue.Message, _ Drop, _ byte) { dropped = append(dropped, m.Seq) }
			_, stop := start(t, cfg, l, c)
			until(t, "done", s.done)
			stop()
			most := 2
			if said {
				most = 1
			}
			if len(c.connects) > most || !slices.Equal(dropped, []uint64{61}) {
				t.Errorf("said %v: %d connections, dropped %v", said, len(c.connects), dropped)
			}
			taken := map[string]bool{}
			for _, id := range append(c.ackedIDs(), c.delivered()...) {
				taken[id] = true
			}
			if len(taken) < 99 {
				t.Errorf("said %v: %d arrived, want 99", said, len(taken))
			}
		})
	}
}

// D: Receive Maximum is smaller on the next connection than what is in flight.
func TestTrapReceiveMaximumShrinks(t *testing.T) {
	eachQoS(t, func(t *testing.T, qos byte) {
		c, _ := trap(t, func(c *cloud, _ *site, cfg *Config) {
			cfg.Send[0].QoS = qos
			first, then := uint16(50), uint16(7)
			c.connack.Properties.ReceiveMaximum = &first
			c.rtt = 10 * time.Millisecond
			c.reply = func(n int, _ *packets.Publish) byte {
				if n == 80 {
					c.mu.Lock()
					c.connack.Properties = &packets.Properties{ReceiveMaximum: &then}
					c.mu.Unlock()
					return dropLine
				}
				return 0
			}
		})
		if c.maxOpen[1] > 7 || c.maxOpen[0] <= 7 {
			t.Errorf("in flight at most %v, want 50 and 7", c.maxOpen)
		}
	})
}

// E: topic aliases, and a session that goes on on a new connection: each alias
// is said anew there.
func TestTrapTopicAlias(t *testing.T) {
	eachQoS(t, func(t *testing.T, qos byte) {
		c, _ := trap(t, func(c *cloud, s *site, cfg *Config) {
			cfg.Send[0].QoS = qos
			for i := range s.msgs {
				s.msgs[i].Topic = fmt.Sprint("plant/", i%5)
			}
			most := uint16(3)
			c.connack.Properties.TopicAliasMaximum = &most
			c.rtt = 10 * time.Millisecond
			c.reply = func(n int, _ *packets.Publish) byte {
				if n%30 == 0 {
					return dropLine
				}
				return 0
			}
		})
		for _, p := range c.received() {
			if i := len(c.received()); p.Topic == "" || i == 0 {
				t.Error("a PUBLISH without topic")
			}
		}
		if len(c.connects) < 3 || c.aliased < 40 {
			t.Errorf("%d connections, %d messages with an alias for a topic", len(c.connects), c.aliased)
		}
	})
}

// F: the line breaks after every few packets.
func TestTrapReconnectStorm(t *testing.T) {
	eachQoS(t, func(t *testing.T, qos byte) {
		c, _ := trap(t, func(c *cloud, _ *site, cfg *Config) {
			cfg.Send[0].QoS = qos
			c.rtt = 3 * time.Millisecond
			packet := 0
			c.cut = func(at step, _ int) bool {
				if at == atConnect || at == atConnack {
					return false
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				packet++
				return packet%7 == 0
			}
		})
		if len(c.connects) < 10 {
			t.Errorf("%d connections: no storm", len(c.connects))
		}
		if given := c.delivered(); qos == 2 && len(given) != 100 {
			t.Errorf("%d delivered", len(given))
		}
	})
}
