package broker

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

func TestWindowOfTheSubscriber(t *testing.T) {
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s", func(r *mqtt.Connect) { r.ReceiveMaximum = 3 })
	s.subscribe("a", 1)
	p := h.login(mqtt.V5, "alice", "p")
	for i := range 20 {
		p.publish("a", fmt.Sprint(i), 1)
	}
	var ids []uint16
	for i := range 3 {
		m := expect[*mqtt.Publish](s)
		if string(m.Payload) != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", m.Payload, i)
		}
		ids = append(ids, m.PacketID)
	}
	s.ping() // nothing beyond the window comes before the answer
	s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: ids[1]})
	m := expect[*mqtt.Publish](s)
	if string(m.Payload) != "3" || slices.Contains(ids, m.PacketID) && m.PacketID != ids[1] {
		t.Fatalf("got %q with id %d", m.Payload, m.PacketID)
	}
	s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: ids[0]}, &mqtt.Ack{Kind: mqtt.PUBACK, PacketID: ids[2]},
		&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: m.PacketID})
	for i := 4; i < 20; i++ {
		s.expectMessage(fmt.Sprint(i))
	}
}

func TestResumeSendsAgain(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		s := h.login(v, "bob", "s", durable)
		s.subscribe("a", 2)
		p := h.login(v, "alice", "p")
		for i, qos := range []byte{1, 2, 1, 2} {
			p.publish("a", fmt.Sprint(i), qos)
		}
		var ids []uint16
		for range 4 {
			ids = append(ids, expect[*mqtt.Publish](s).PacketID)
		}
		s.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: ids[1]}, &mqtt.Ack{Kind: mqtt.PUBACK, PacketID: ids[2]})
		s.expectAck(mqtt.PUBREL, ids[1], mqtt.Success)
		s.ping()

		s = h.dial(v)
		if !s.connect("bob", "s", durable).SessionPresent {
			t.Error("session is not present")
		}
		if m := expect[*mqtt.Publish](s); string(m.Payload) != "0" || m.PacketID != ids[0] || !m.Dup {
			t.Errorf("got %q, id %d, dup %v", m.Payload, m.PacketID, m.Dup)
		}
		s.expectAck(mqtt.PUBREL, ids[1], mqtt.Success)
		if m := expect[*mqtt.Publish](s); string(m.Payload) != "3" || m.PacketID != ids[3] || !m.Dup || m.QoS != 2 {
			t.Errorf("got %q, id %d, dup %v", m.Payload, m.PacketID, m.Dup)
		}
		s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: ids[0]}, &mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: ids[1]},
			&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: ids[3]})
		s.expectAck(mqtt.PUBREL, ids[3], mqtt.Success)
		s.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: ids[3]})
		p.publish("a", "new", 1)
		if m := s.expectMessage("new"); m.Dup {
			t.Error("a new message is marked as a duplicate")
		}
		s.ping()
		if w := waiting(h, "session/bob/s"); w != 0 {
			t.Errorf("%d messages still wait", w)
		}
	})
}

func waiting(h *house, reader string) uint64 {
	for _, r := range h.queue.Stats().Readers {
		if r.Name == reader {
			return r.Waiting
		}
	}
	return 0
}

func TestRulesAreAskedAtDelivery(t *testing.T) {
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("#", 1)
	zero := h.login(mqtt.V5, "bob", "zero")
	zero.subscribe("#", 0)
	p := h.login(mqtt.V5, "alice", "p")
	s.send(&mqtt.Disconnect{SessionExpiry: 3600, HasSessionExpiry: true})
	s.expectClosed()
	p.publish("hr/pay", "secret", 1)
	zero.expectMessage("secret")
	h.gate.SetRules(rules(t, rule(false, "bob", sub, "hr/#"), rule(true, "*", both, "#")))
	p.publish("hr/pay", "secret", 1)
	p.publish("ok", "fine", 1)
	zero.expectMessage("fine")
	s = h.login(mqtt.V5, "bob", "s", durable)
	s.expectMessage("fine")
	s.ping()
	if w := waiting(h, "session/bob/s"); w != 0 {
		t.Errorf("%d messages still wait", w)
	}
}

func TestMessageExpiry(t *testing.T) {
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("#", 1)
	long := func(p *mqtt.Publish) { p.MessageExpiry, p.HasMessageExpiry = 100, true }
	h.login(mqtt.V5, "alice", "p").publish("a", "long", 1, long)
	if m := s.expectMessage("long"); !m.HasMessageExpiry || m.MessageExpiry == 0 || m.MessageExpiry > 100 {
		t.Errorf("expiry %v %d", m.HasMessageExpiry, m.MessageExpiry)
	}
	old := storequeue.Message{Topic: "a", Payload: []byte("old"), QoS: 1, Expires: time.Now().Add(-time.Second)}
	who := access.Identity{Name: "device:x"}
	if err := h.b.Publish(t.Context(), who, old); err != nil {
		t.Fatal(err)
	}
	old.Payload, old.Expires = []byte("fresh"), time.Time{}
	if err := h.b.Publish(t.Context(), who, old); err != nil {
		t.Fatal(err)
	}
	s.expectMessage("fresh")
	if n := h.b.Stats().DroppedExpired; n != 1 {
		t.Errorf("%d expired messages counted", n)
	}
}

func TestMaximumPacketSizeOfTheSubscriber(t *testing.T) {
	h := open(t, Limits{})
	for _, qos := range []byte{0, 1} {
		s := h.login(mqtt.V5, "bob", fmt.Sprint("s", qos), func(r *mqtt.Connect) { r.MaximumPacket = 64 })
		s.subscribe("a", qos)
		p := h.login(mqtt.V5, "alice", "p")
		p.publish("a", string(make([]byte, 100)), 1)
		p.publish("a", "small", 1)
		s.expectMessage("small")
	}
	if n := h.b.Stats().DroppedLarge; n != 3 { // the first subscriber is still there the second time
		t.Logf("%d dropped", n)
	}
}

func TestPropertiesTravel(t *testing.T) {
	h := open(t, Limits{})
	p := h.login(mqtt.V5, "alice", "p")
	for _, qos := range []byte{0, 1} {
		s := h.login(mqtt.V5, "bob", fmt.Sprint("s", qos))
		s.subscribeWith(7, mqtt.Subscription{Filter: "a/#", QoS: qos})
		s.subscribeWith(8, mqtt.Subscription{Filter: "a/b", QoS: qos})
		p.publish("a/b", "x", 1, func(p *mqtt.Publish) {
			p.Text, p.ContentType, p.ResponseTopic, p.CorrelationData = true, "json", "answer", []byte{1}
			p.UserProperties = []mqtt.UserProperty{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}}
		})
		m := s.expectMessage("x")
		slices.Sort(m.SubscriptionIDs)
		if !slices.Equal(m.SubscriptionIDs, []uint32{7, 8}) || !m.Text || m.ContentType != "json" ||
			m.ResponseTopic != "answer" || string(m.CorrelationData) != "\x01" || len(m.UserProperties) != 2 {
			t.Errorf("qos %d: %+v", qos, m)
		}
		s.ping() // once, not once for each filter
	}
}

func TestNoLocalAndRetainAsPublished(t *testing.T) {
	h := open(t, Limits{})
	for _, qos := range []byte{0, 1} {
		c := h.login(mqtt.V5, "alice", fmt.Sprint("c", qos))
		c.subscribeWith(0, mqtt.Subscription{Filter: "own", QoS: qos, NoLocal: true})
		c.subscribeWith(0, mqtt.Subscription{Filter: "kept", QoS: qos, RetainAsPublished: true, RetainHandling: 2})
		c.publish("own", "x", 0)
		h.login(mqtt.V5, "bob", "other").publish("own", "not mine", 1)
		c.expectMessage("not mine")
		h.login(mqtt.V5, "bob", "other").publish("kept", "k", 1, retain)
		if m := c.expectMessage("k"); !m.Retain {
			t.Error("retain flag is gone")
		}
	}
}

func TestSharedSubscription(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		h := open(t, Limits{})
		h.gate.SetRules(rules(t, rule(false, "*", sub, "job/secret"), rule(true, "*", both, "job/#")))
		var workers []*client
		for i := range 3 {
			w := h.login(mqtt.V5, "bob", fmt.Sprint("w", i))
			w.subscribe("$share/g/job/+", qos)
			workers = append(workers, w)
		}
		p := h.login(mqtt.V5, "alice", "p")
		p.publish("job/secret", "never", 1)
		p.publish("job/secret", "never", 1)
		p.publish("job/secret", "never", 1)
		for i := range 30 {
			p.publish("job/1", fmt.Sprint(i), 1)
		}
		for i := range 30 {
			workers[i%3].expectMessage(fmt.Sprint(i))
		}
		bad := h.login(mqtt.V5, "bob", "bad")
		bad.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "$share/g/other"}}})
		if a := expect[*mqtt.Suback](bad); a.Codes[0] != notGranted {
			t.Errorf("SUBACK %v", a.Codes[0])
		}
	}
}

func TestPaceLimitsPublishing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &conn{b: &Broker{}, limits: &Limits{PublishRate: 10}, quit: make(chan struct{})}
		began := time.Now()
		for range 30 {
			c.mayPublish(t.Context())
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("30 messages at 10/s with a burst of 10 took %v", d)
		}
		close(c.quit)
		if c.mayPublish(t.Context()) {
			t.Error("a closed connection goes on")
		}
	})
}

// A right that is taken away while a durable client is away holds when it comes
// back, also after a restart in between; what it kept the right to it gets.
func TestRightsLostWhileAway(t *testing.T) {
	h := open(t, Limits{})
	away := h.login(mqtt.V5, "bob", "away", durable)
	away.subscribe("#", 1)
	away.subscribe("$share/g/hr/#", 2)
	away.send(&mqtt.Disconnect{})
	away.expectClosed()
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("hr/live", "secret", 1)
	p.publish("hr/kept", "secret", 2, retain)
	p.publish("open", "first", 1)
	h.gate.SetRules(rules(t, rule(false, "bob", sub, "hr/#"), rule(true, "*", both, "#")))
	p.publish("hr/later", "secret", 1)
	h.restart()
	h.login(mqtt.V5, "alice", "p").publish("open", "second", 1)
	back := h.dial(mqtt.V5)
	if ack := back.connect("bob", "away", durable); !ack.SessionPresent {
		t.Error("the session is gone")
	}
	want := []string{"first", "second"}
	for released := false; !released || len(want) > 0; {
		p, err := back.read()
		m, _ := p.(*mqtt.Publish)
		a, _ := p.(*mqtt.Ack)
		switch {
		case m != nil && len(want) > 0 && string(m.Payload) == want[0]:
			want = want[1:]
			back.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: m.PacketID})
		case a != nil && a.Kind == mqtt.PUBREL && !released: // for hr/kept, which it might have had: a packet id, no more
			released = true
			back.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: a.PacketID})
		default:
			t.Fatalf("got %+v, %v; want %v", p, err, want)
		}
	}
	back.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "hr/#"}, {Filter: "$share/g/hr/#"}}})
	if a := expect[*mqtt.Suback](back); a.Codes[0] != notGranted || a.Codes[1] != notGranted {
		t.Errorf("SUBACK %v", a.Codes)
	}
	h.login(mqtt.V5, "carol", "last").publish("open", "third", 1)
	back.expectMessage("third")
}
