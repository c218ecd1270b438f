package broker

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

func TestClients(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	var acknowledged, delivered atomic.Int64
	took := func(n *atomic.Int64) func(time.Duration) {
		return func(d time.Duration) {
			if d >= 0 && d < patience {
				n.Add(1)
			}
		}
	}
	h.config.Acknowledged, h.config.Delivered = took(&acknowledged), took(&delivered)
	h.start()
	away := h.login(mqtt.V5, "carol", "c", durable)
	away.subscribe("a", 1)
	away.send(&mqtt.Disconnect{})
	away.expectClosed()
	s := h.login(mqtt.V311, "bob", "b")
	s.subscribe("a", 1)
	p := h.login(mqtt.V5, "alice", "a")
	before := h.b.Stats()
	p.publish("a", "one", 1)
	p.publish("a", "two", 2)
	p.publish("a", "three", 0)
	acked := false
	for range 3 {
		if m := expect[*mqtt.Publish](s); m.QoS == 1 && !acked {
			acked = true
			s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: m.PacketID})
		}
	}
	for deadline := time.Now().Add(patience); acknowledged.Load() != 2 || delivered.Load() != 2; s.ping() {
		if time.Now().After(deadline) {
			t.Fatalf("%d latencies to the publisher, %d to the subscriber; want 2 and 2", acknowledged.Load(), delivered.Load())
		}
	}
	after := h.b.Stats()
	const publishes = 2*(2+3+2+1) + 2 + 2*2 + 1 // at least: header, topic, two packet ids, properties, payloads of 3 bytes or more
	if after.BytesIn-before.BytesIn < publishes || after.BytesOut-before.BytesOut < publishes {
		t.Errorf("%d bytes in, %d out", after.BytesIn-before.BytesIn, after.BytesOut-before.BytesOut)
	}
	if after.Logins["ok"] != 3 || after.Logins["bad_credentials"] != 0 {
		t.Errorf("logins %v", after.Logins)
	}
	s.ping() // its PUBACK has been taken
	got := h.b.Clients()
	if len(got) != 3 {
		t.Fatalf("clients %+v", got)
	}
	if c := got[0]; c.ID != "a" || c.Identity != "alice" || !c.Connected || c.Received != 3 || c.Sent != 0 || c.MQTT != "5" || c.BytesIn == 0 || c.Waiting != 0 {
		t.Errorf("publisher %+v", c)
	}
	if c := got[1]; c.ID != "b" || c.Received != 0 || c.Sent != 3 || c.InFlight != 1 || c.Waiting != 1 || c.MQTT != "3.1.1" || c.Subscriptions != 1 {
		t.Errorf("subscriber %+v", c)
	}
	if c := got[2]; c.ID != "c" || c.Connected || c.Waiting != 2 || c.Sent != 0 {
		t.Errorf("absent subscriber %+v", c)
	}
}
