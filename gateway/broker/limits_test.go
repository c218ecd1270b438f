package broker

import (
	"fmt"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// New limits hold for who comes, and for what counts everybody; a client keeps
// what its CONNACK said.
func TestSetLimits(t *testing.T) {
	h := open(t, Limits{ReceiveMaximum: 10, TopicLevels: 4})
	c := h.dial(mqtt.V5)
	if ack := c.connect("alice", "a"); ack.ReceiveMaximum != 10 {
		t.Fatalf("receive maximum %d, want 10", ack.ReceiveMaximum)
	}
	h.b.SetLimits(Limits{ReceiveMaximum: 2, TopicLevels: 2, Connections: 2, Retained: 1})
	var burst []mqtt.Packet
	for i := range 10 {
		burst = append(burst, &mqtt.Publish{Topic: []byte("a/b"), QoS: 1, PacketID: uint16(i + 1)})
	}
	c.send(burst...) // more than 2 at once
	for i := range 10 {
		c.expectAck(mqtt.PUBACK, uint16(i+1), mqtt.Success)
	}
	for i, want := range []mqtt.ReasonCode{mqtt.Success, mqtt.QuotaExceeded} {
		c.send(&mqtt.Publish{Topic: []byte(fmt.Sprint("r/", i)), Payload: []byte("x"), Retain: true, QoS: 1, PacketID: 99})
		c.expectAck(mqtt.PUBACK, 99, want)
	}
	if ack := h.dial(mqtt.V5).connect("alice", "b"); ack.Code != mqtt.Success || ack.ReceiveMaximum != 2 {
		t.Errorf("the next client is told %v, receive maximum %d; want 2", ack.Code, ack.ReceiveMaximum)
	}
	if ack := h.dial(mqtt.V5).connect("alice", "c"); ack.Code != mqtt.QuotaExceeded {
		t.Errorf("a client too many is told %v", ack.Code)
	}
}
