package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

func TestRetained(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		p := h.login(v, "alice", "p")
		p.publish("a/1", "old", 1, retain)
		p.publish("a/1", "one", 2, retain)
		p.publish("a/2", "two", 0, retain)
		p.publish("a/3", "three", 1, retain)
		p.publish("a/3", "", 1, retain)
		p.ping()
		for restarts := range 2 {
			for qos := range byte(3) {
				s := h.login(v, "bob", fmt.Sprint("s", qos))
				s.subscribe("a/+", qos)
				got := map[string]byte{}
				for range 2 {
					m := expect[*mqtt.Publish](s)
					if !m.Retain || m.Dup {
						t.Errorf("retain %v, dup %v", m.Retain, m.Dup)
					}
					got[string(m.Payload)] = m.QoS
					s.acknowledge(m)
				}
				if len(got) != 2 || got["one"] != qos || got["two"] != 0 {
					t.Errorf("after %d restarts, qos %d: %v", restarts, qos, got)
				}
				s.ping()
			}
			if restarts == 0 {
				h.restart()
			}
		}
		if n := h.b.Stats().Retained; n != 2 {
			t.Errorf("%d retained", n)
		}
	})
}

// acknowledge does what a subscriber does with a message.
func (c *client) acknowledge(p *mqtt.Publish) {
	c.t.Helper()
	id := p.PacketID
	switch p.QoS {
	case 1:
		c.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: id})
	case 2:
		c.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: id})
		c.expectAck(mqtt.PUBREL, id, mqtt.Success)
		c.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: id})
	}
}

func TestRetainedAndRules(t *testing.T) {
	h := open(t, Limits{})
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("a/1", "alice's", 1, retain)
	p.publish("b/1", "hidden", 1, retain)
	p.publish("c/1", "shown", 1, retain)
	h.gate.SetRules(rules(t,
		rule(false, "alice", pub, "a/#"), // the author lost it
		rule(false, "bob", sub, "b/#"),   // the reader may not see it
		rule(true, "*", both, "#")))
	for _, qos := range []byte{0, 1} {
		s := h.login(mqtt.V5, "bob", fmt.Sprint("s", qos))
		s.subscribe("#", qos)
		s.expectMessage("shown")
		s.ping()
	}
}

func TestRetainHandling(t *testing.T) {
	h := open(t, Limits{})
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("a", "x", 1, retain)
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribeWith(0, mqtt.Subscription{Filter: "a", RetainHandling: 2})
	s.ping()
	s.subscribeWith(0, mqtt.Subscription{Filter: "#", RetainHandling: 1})
	s.expectMessage("x")
	s.subscribeWith(0, mqtt.Subscription{Filter: "#", RetainHandling: 1})
	s.ping()
	s.subscribeWith(0, mqtt.Subscription{Filter: "#"})
	s.expectMessage("x")
	s.subscribeWith(0, mqtt.Subscription{Filter: "$share/g/#"})
	s.ping()
}

func TestRetainedLimit(t *testing.T) {
	h := open(t, Limits{Retained: 8, RetainedBytes: 4 * (2*retainedCost + 50)}) // a quarter is hers
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("a", "1", 1, retain)
	p.publish("b", "2", 1, retain)
	p.send(&mqtt.Publish{Topic: []byte("c"), Payload: []byte("3"), QoS: 1, PacketID: 1, Retain: true})
	p.expectAck(mqtt.PUBACK, 1, mqtt.QuotaExceeded)
	p.publish("a", "again", 1, retain)
	p.send(&mqtt.Publish{Topic: []byte("a"), Payload: make([]byte, 60), QoS: 1, PacketID: 1, Retain: true})
	p.expectAck(mqtt.PUBACK, 1, mqtt.QuotaExceeded)
	p.publish("b", "", 1, retain)
	p.publish("c", "3", 1, retain)
}

// What is in the log and not yet in the state survives too.
func TestRetainedReplay(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	q, err := storequeue.Open(h.dir, storequeue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h.config.Queue = q
	for i := range 2 {
		b, err := New(h.config) // never run: nothing folds
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if b.Stats().Retained != 300 {
				t.Errorf("%d retained", b.Stats().Retained)
			}
			break
		}
		for n := range 301 {
			m := storequeue.Message{Topic: fmt.Sprint("t/", n), Payload: []byte("x"), Retain: true, QoS: 1}
			if err := b.Publish(t.Context(), access.Identity{Name: "device:x"}, m); err != nil {
				t.Fatal(err)
			}
		}
		m := storequeue.Message{Topic: "t/0", Retain: true, QoS: 1}
		if err := b.Publish(t.Context(), access.Identity{Name: "device:x"}, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWill(t *testing.T) {
	will := func(r *mqtt.Connect) {
		r.Will = &mqtt.Will{Topic: "will", Payload: []byte("gone"), QoS: 1}
		r.Will.ContentType = "text"
	}
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		s := h.login(v, "bob", "s")
		s.subscribe("#", 1)
		h.login(v, "alice", "a", will).nc.Close()
		if m := s.expectMessage("gone"); string(m.Topic) != "will" {
			t.Errorf("will on %q", m.Topic)
		}
		c := h.login(v, "alice", "b", will)
		c.send(&mqtt.Disconnect{})
		c.expectClosed()
		h.login(v, "alice", "c", will).raw([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF}) // breaks the protocol
		s.expectMessage("gone")
		h.login(v, "alice", "d", will)
		h.login(v, "alice", "d") // taken over: the old connection went without a word
		s.expectMessage("gone")
		h.sentinel(s)
	})
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("#", 1)
	c := h.login(mqtt.V5, "alice", "a", will)
	c.send(&mqtt.Disconnect{Code: mqtt.DisconnectWithWill})
	s.expectMessage("gone")
	// The rule went between CONNECT and the end.
	c = h.login(mqtt.V5, "alice", "a", will)
	h.gate.SetRules(rules(t, rule(false, "alice", pub, "will"), rule(true, "*", both, "#")))
	c.nc.Close()
	h.untilFree("a")
	h.sentinel(s)
}

// sentinel shows that nothing else was on its way to s, which is subscribed to
// everything.
func (h *house) sentinel(s *client) {
	h.t.Helper()
	h.login(mqtt.V5, "carol", "sentinel").publish("sentinel", "sentinel", 1)
	s.expectMessage("sentinel")
}

func TestWillDelay(t *testing.T) {
	delayed := func(r *mqtt.Connect) {
		durable(r)
		r.Will = &mqtt.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Delay: 600}
	}
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("#", 1)
	h.login(mqtt.V5, "alice", "a", delayed).nc.Close()
	h.untilFree("a")
	h.b.sweep(time.Now().Add(5 * time.Minute))
	back := h.login(mqtt.V5, "alice", "a", delayed) // in time: the will is forgotten
	back.send(&mqtt.Disconnect{})
	back.expectClosed()
	h.untilFree("a")
	h.b.sweep(time.Now().Add(11 * time.Minute))
	h.sentinel(s)
	h.login(mqtt.V5, "alice", "a", delayed).nc.Close()
	h.untilFree("a")
	h.b.sweep(time.Now().Add(11 * time.Minute))
	s.expectMessage("gone")
	h.login(mqtt.V5, "alice", "a", delayed).nc.Close()
	h.untilFree("a")
	h.login(mqtt.V5, "alice", "a") // Clean Start ends the session, and the wait with it
	s.expectMessage("gone")
	h.sentinel(s)
}

func message(topic string) *storequeue.Message {
	return &storequeue.Message{Topic: topic, Payload: []byte("x"), Retain: true}
}

// What an author may not publish any more is not shown either when it already
// waits for a subscriber.
func TestRetainedMessageOfARevokedAuthorIsTakenBack(t *testing.T) {
	h := open(t, Limits{})
	bob := h.login(mqtt.V5, "bob", "b")
	bob.publish("r/1", "one", 1, retain)
	bob.publish("r/2", "two", 1, retain)
	c := h.login(mqtt.V5, "alice", "a", func(req *mqtt.Connect) { req.ReceiveMaximum = 1 })
	c.subscribe("r/#", 1)
	first := expect[*mqtt.Publish](c)
	ack := &mqtt.Ack{Kind: mqtt.PUBACK, PacketID: first.PacketID}
	h.gate.SetRules(rules(t, rule(false, "bob", pub, "#"), rule(true, "*", both, "#")))
	c.send(ack)
	h.login(mqtt.V5, "carol", "c").publish("r/3", "three", 1)
	c.expectMessage("three")
}
