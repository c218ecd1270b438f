package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// named reads PUBLISH packets as a client with topic aliases does: it answers
// "topic" for one that comes by name and "alias=topic" where an alias took part.
func (c *client) named(names map[uint16]string) string {
	c.t.Helper()
	p := expect[*mqtt.Publish](c)
	if p.QoS > 0 {
		c.send(&mqtt.Ack{Kind: answerTo(p.QoS), PacketID: p.PacketID})
	}
	if p.QoS == 2 {
		expect[*mqtt.Ack](c)
		c.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: p.PacketID})
	}
	switch {
	case p.TopicAlias == 0:
		return string(p.Topic)
	case len(p.Topic) > 0:
		names[p.TopicAlias] = string(p.Topic)
		return fmt.Sprintf("%d:%s", p.TopicAlias, p.Topic)
	}
	return fmt.Sprintf("%d=%s", p.TopicAlias, names[p.TopicAlias])
}

func TestOutgoingAliases(t *testing.T) {
	h := open(t, Limits{Aliases: 3})
	takes := func(n uint16) func(*mqtt.Connect) { return func(r *mqtt.Connect) { r.TopicAliasMax = n } }
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("plant/kept", "x", 1, retain)
	two, many, none := h.login(mqtt.V5, "bob", "two", takes(2)), h.login(mqtt.V5, "bob", "many", takes(100)), h.login(mqtt.V5, "bob", "none")
	all := []*client{two, many, none}
	for _, s := range all {
		s.subscribe("plant/#", 2)
	}
	names := map[*client]map[uint16]string{two: {}, many: {}, none: {}}
	for _, step := range []struct {
		topic string // published before, but for the first: that one was retained
		qos   byte
		want  [3]string // two, many, none
	}{
		{"plant/kept", 1, [3]string{"1:plant/kept", "1:plant/kept", "plant/kept"}},
		{"plant/b", 0, [3]string{"2:plant/b", "2:plant/b", "plant/b"}},
		{"plant/b", 1, [3]string{"2=plant/b", "2=plant/b", "plant/b"}},
		{"plant/c", 2, [3]string{"plant/c", "3:plant/c", "plant/c"}},
		{"plant/c", 0, [3]string{"plant/c", "3=plant/c", "plant/c"}},
		{"plant/d", 0, [3]string{"plant/d", "plant/d", "plant/d"}}, // beyond what the server would remember
		{"plant/kept", 0, [3]string{"1=plant/kept", "1=plant/kept", "plant/kept"}},
	} {
		if len(names[two]) > 0 {
			p.publish(step.topic, "x", step.qos)
		}
		for i, s := range all {
			if got := s.named(names[s]); got != step.want[i] {
				t.Errorf("%s at QoS %d: client %d got %s, want %s", step.topic, step.qos, i, got, step.want[i])
			}
		}
	}
	// A new connection knows none of it [MQTT-3.3.2-7].
	again := h.login(mqtt.V5, "bob", "two", takes(2))
	again.subscribe("plant/c", 0)
	p.publish("plant/c", "x", 0)
	if got := again.named(map[uint16]string{}); got != "1:plant/c" {
		t.Errorf("after reconnecting: %s", got)
	}
}

// The alias must not make a packet larger than the client takes.
func TestAliasAndMaximumPacketSize(t *testing.T) {
	h := open(t, Limits{})
	const most = 64
	s := h.login(mqtt.V5, "bob", "s", func(r *mqtt.Connect) { r.TopicAliasMax, r.MaximumPacket = 5, most })
	s.subscribe("#", 0)
	p := h.login(mqtt.V5, "alice", "p")
	for size := range most {
		topic := fmt.Sprintf("topic/%d", size)
		p.publish(topic, strings.Repeat("x", size), 0)
	}
	p.publish("topic/9", "last", 0)
	received := 0
	for p := expect[*mqtt.Publish](s); string(p.Payload) != "last"; p = expect[*mqtt.Publish](s) {
		frame, err := mqtt.Append(nil, mqtt.V5, p)
		if err != nil || len(frame) > most {
			t.Errorf("%d bytes: %v", len(frame), err)
		}
		received++
	}
	if received < most-20 {
		t.Errorf("only %d were received", received)
	}
}
