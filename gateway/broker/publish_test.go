package broker

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

func TestPublishReachesSubscribers(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		p := h.login(v, "alice", "publisher")
		for granted := range byte(3) {
			for sent := range byte(3) {
				s := h.login(v, "bob", fmt.Sprintf("subscriber-%d-%d", granted, sent))
				s.subscribe("plant/+/temp", granted)
				p.publish("plant/1/temp", "21", sent)
				got := expect[*mqtt.Publish](s)
				if got.QoS != min(granted, sent) || string(got.Topic) != "plant/1/temp" || string(got.Payload) != "21" || got.Retain || got.Dup {
					t.Errorf("granted %d, sent %d: got %+v", granted, sent, got)
				}
			}
		}
	})
}

func TestOrderOfAcknowledgements(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(false, "*", pub, "no"), rule(true, "*", both, "#")))
	c := h.login(mqtt.V5, "alice", "a")
	var burst []mqtt.Packet
	for id := range uint16(60) {
		topic := "yes"
		if id%3 == 2 {
			topic = "no"
		}
		burst = append(burst, &mqtt.Publish{Topic: []byte(topic), QoS: 1, PacketID: id + 1})
	}
	c.send(burst...)
	for id := range uint16(60) {
		code := mqtt.Success
		if id%3 == 2 {
			code = mqtt.NotAuthorized
		}
		c.expectAck(mqtt.PUBACK, id+1, code)
	}
}

func TestDeniedPublish(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(true, "*", sub, "#"), rule(true, "*", pub, "ok")))
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("#", 1)

	c := h.login(mqtt.V5, "alice", "five")
	c.send(&mqtt.Publish{Topic: []byte("secret"), QoS: 1, PacketID: 1})
	c.expectAck(mqtt.PUBACK, 1, mqtt.NotAuthorized)
	c.send(&mqtt.Publish{Topic: []byte("secret"), QoS: 2, PacketID: 2})
	c.expectAck(mqtt.PUBREC, 2, mqtt.NotAuthorized)
	c.send(&mqtt.Publish{Topic: []byte("secret")})
	c.send(&mqtt.Publish{Topic: []byte("$SYS/x"), QoS: 1, PacketID: 3})
	c.expectAck(mqtt.PUBACK, 3, mqtt.NotAuthorized)

	old := h.login(mqtt.V311, "alice", "three")
	old.send(&mqtt.Publish{Topic: []byte("secret"), QoS: 1, PacketID: 1})
	old.expectClosed()

	c.publish("ok", "sentinel", 1)
	s.expectMessage("sentinel")
	if n := h.b.Stats().Denied; n != 5 {
		t.Errorf("%d denials counted, want 5", n)
	}
}

func TestTopicAlias(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(true, "*", both, "open/#"), rule(true, "*", both, "later")))
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("open/#", 1)
	c := h.login(mqtt.V5, "alice", "a")
	alias := func(p *mqtt.Publish) { p.TopicAlias = 3 }
	c.publish("open/1", "by name", 1, alias)
	c.publish("", "by alias", 1, alias)
	s.expectMessage("by name")
	if got := s.expectMessage("by alias"); string(got.Topic) != "open/1" || got.TopicAlias != 0 {
		t.Errorf("got %+v", got)
	}
	// A rule that goes is gone for what the alias stands for.
	h.gate.SetRules(rules(t, rule(true, "*", both, "later")))
	c.send(&mqtt.Publish{QoS: 1, PacketID: 9, TopicAlias: 3})
	c.expectAck(mqtt.PUBACK, 9, mqtt.NotAuthorized)
	c.send(&mqtt.Publish{Topic: []byte("later"), QoS: 1, PacketID: 9, TopicAlias: 17})
	if code := c.expectClosed(); code != mqtt.TopicAliasInvalid {
		t.Errorf("alias beyond the maximum: %v", code)
	}
}

func TestReceiveMaximum(t *testing.T) {
	h := open(t, Limits{ReceiveMaximum: 4})
	c := h.dial(mqtt.V5)
	if ack := c.connect("alice", "a"); ack.ReceiveMaximum != 4 {
		t.Fatalf("CONNACK names %d", ack.ReceiveMaximum)
	}
	for id := range uint16(4) { // QoS 2 holds its place until PUBREL
		c.send(&mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: id + 1})
		c.expectAck(mqtt.PUBREC, id+1, mqtt.Success)
	}
	c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 1})
	c.expectAck(mqtt.PUBCOMP, 1, mqtt.Success)
	c.publish("a", "fits", 1)
	c.send(&mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: 5})
	c.expectAck(mqtt.PUBREC, 5, mqtt.Success)
	c.send(&mqtt.Publish{Topic: []byte("a"), QoS: 1, PacketID: 6})
	if code := c.expectClosed(); code != mqtt.ReceiveMaximumExceeded {
		t.Errorf("got %v", code)
	}

	// 3.1.1 knows no such limit: it is only read more slowly.
	old := h.login(mqtt.V311, "alice", "old")
	var burst []mqtt.Packet
	for id := range uint16(200) {
		burst = append(burst, &mqtt.Publish{Topic: []byte("a"), QoS: 1 + byte(id%2), PacketID: id + 1})
	}
	old.send(burst...)
	for id := range uint16(200) {
		old.expectAck([]mqtt.Type{mqtt.PUBACK, mqtt.PUBREC}[id%2], id+1, mqtt.Success)
	}
}

// The place in the window is free before the client can know that it is.
func TestReceiveMaximumOfOne(t *testing.T) {
	h := open(t, Limits{ReceiveMaximum: 1})
	c := h.login(mqtt.V5, "alice", "a")
	for range 150 {
		c.publish("a", "x", 1)
		c.publish("a", "x", 2)
	}
}

func TestQoS2StoredOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		s := h.login(v, "bob", "s")
		s.subscribe("a", 2)
		c := h.login(v, "alice", "a", durable)
		c.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte("once"), QoS: 2, PacketID: 5})
		c.expectAck(mqtt.PUBREC, 5, mqtt.Success)
		for range 3 { // each time on a new connection
			c = h.login(v, "alice", "a", durable)
			c.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte("once"), QoS: 2, PacketID: 5, Dup: true})
			c.expectAck(mqtt.PUBREC, 5, mqtt.Success)
		}
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 5})
		c.expectAck(mqtt.PUBCOMP, 5, mqtt.Success)
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 5})
		want := mqtt.PacketIdentifierNotFound
		if v == mqtt.V311 {
			want = mqtt.Success
		}
		c.expectAck(mqtt.PUBCOMP, 5, want)
		for i, want := range []string{"once", "next"} {
			if i == 1 {
				c.publish("a", "next", 2)
			}
			got := s.expectMessage(want)
			s.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: got.PacketID})
			s.expectAck(mqtt.PUBREL, got.PacketID, mqtt.Success)
			s.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: got.PacketID})
		}
	})
}

func TestPublishFromInside(t *testing.T) {
	h := open(t, Limits{TopicLevels: 4})
	h.gate.SetRules(rules(t, rule(true, "device:boiler", pub, "hg/#"), rule(true, "*", sub, "#")))
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("#", 1)
	boiler := access.Identity{Name: "device:boiler"}
	for _, qos := range []byte{0, 1, 2} {
		m := storequeue.Message{Topic: "hg/x", Payload: fmt.Appendf(nil, "qos %d", qos), QoS: qos}
		if err := h.b.Publish(t.Context(), boiler, m); err != nil {
			t.Fatal(err)
		}
		s.expectMessage(fmt.Sprintf("qos %d", qos))
	}
	for _, topic := range []string{"elsewhere", "$SYS/x"} {
		if err := h.b.Publish(t.Context(), boiler, storequeue.Message{Topic: topic}); !errors.Is(err, ErrDenied) {
			t.Errorf("publish to %s: %v", topic, err)
		}
	}
	for _, topic := range []string{"", "hg/+", "hg/#", "hg/1/2/3/4", "hg/\x00"} {
		if err := h.b.Publish(t.Context(), boiler, storequeue.Message{Topic: topic}); err == nil || errors.Is(err, ErrDenied) {
			t.Errorf("publish to %q: %v", topic, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.b.Publish(ctx, boiler, storequeue.Message{Topic: "hg/x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("publish after the end: %v", err)
	}
}

func TestOutboundMarks(t *testing.T) {
	h := open(t, Limits{})
	link, err := h.queue.Reader("link/cloud")
	if err != nil {
		t.Fatal(err)
	}
	h.b.outbound = func(m *storequeue.Message) {
		if m.Topic == "up" {
			m.For = append(m.For, storequeue.Mark{Reader: link.ID(), QoS: 1})
		}
	}
	c := h.login(mqtt.V311, "alice", "a")
	c.publish("stays", "x", 1)
	c.publish("up", "qos 0", 0)
	c.publish("up", "qos 1", 1)
	msgs, err := link.Next(t.Context(), 0, 10)
	if err != nil || len(msgs) != 2 {
		t.Fatalf("%d messages for the link, %v", len(msgs), err)
	}
	for i, want := range []string{"qos 0", "qos 1"} {
		if m := msgs[i]; string(m.Payload) != want || m.From != "alice" || m.QoS != byte(i) {
			t.Errorf("message %d: %+v", i, m)
		}
	}
	link.Ack(msgs[1].Seq)
}
