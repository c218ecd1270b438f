package broker

import (
	"fmt"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// keep asks for a message to be retained and says what the answer was.
func (c *client) keep(topic, payload string) mqtt.ReasonCode {
	c.t.Helper()
	c.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, PacketID: 1, Retain: true})
	if code := expect[*mqtt.Ack](c).Code; code.Failed() {
		return code
	}
	return mqtt.Success
}

// One identity cannot fill the retained store: a quarter is the most, in number
// and in bytes. The others have theirs, also after a restart.
func TestRetainedShare(t *testing.T) {
	for name, limits := range map[string]Limits{
		"number": {Retained: 40}, "bytes": {RetainedBytes: 40 * (retainedCost + 5)},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, limits)
			mallory := h.login(mqtt.V5, "mallory", "m")
			for i := range 12 {
				want := mqtt.Success
				if i >= 10 {
					want = mqtt.QuotaExceeded
				}
				if got := mallory.keep(fmt.Sprintf("m/%02d", i), "x"); got != want {
					t.Fatalf("message %d: %v, want %v", i, got, want)
				}
			}
			h.expectHit("retained_per_identity")
			h.restart()
			mallory = h.login(mqtt.V5, "mallory", "m")
			if got := mallory.keep("m/99", "x"); got != mqtt.QuotaExceeded {
				t.Errorf("after a restart: %v", got)
			}
			alice := h.login(mqtt.V5, "alice", "a")
			if got := alice.keep("m/00", "y"); got != mqtt.Success { // hers now
				t.Errorf("alice: %v", got)
			}
			if got := mallory.keep("m/99", "x"); got != mqtt.Success {
				t.Errorf("after one of them became another's: %v", got)
			}
			if s := h.b.Stats(); s.Retained != 11 || s.RetainedBytes != 11*(retainedCost+5) || s.RetainedRefused != 1 {
				t.Errorf("%d retained, %d bytes, %d refused", s.Retained, s.RetainedBytes, s.RetainedRefused)
			}
		})
	}
}

// What nobody is shown any more makes room when it is needed, and not before.
func TestRetainedRoomIsMade(t *testing.T) {
	h := open(t, Limits{Retained: 4})
	for _, who := range []string{"a", "b", "c", "mallory"} {
		if got := h.login(mqtt.V5, who, who).keep(who, "x"); got != mqtt.Success {
			t.Fatalf("%s: %v", who, got)
		}
	}
	d := h.login(mqtt.V5, "d", "d")
	if got := d.keep("d", "x"); got != mqtt.QuotaExceeded {
		t.Errorf("full, and it takes one more: %v", got)
	}
	h.gate.SetRules(rules(t, rule(false, "mallory", pub, "#"), rule(true, "*", both, "#")))
	h.b.Recheck()
	if n := h.b.Stats().Retained; n != 4 {
		t.Errorf("%d retained, and no room was needed", n)
	}
	if got := d.keep("d", "x"); got != mqtt.Success {
		t.Errorf("what mallory may not say any more makes no room: %v", got)
	}
	h.gate.SetRules(everything(t))
	s := h.login(mqtt.V5, "s", "s")
	s.subscribe("mallory", 1)
	s.ping()
}

// A QoS 0 message that finds no room is delivered, and counted.
func TestRetainedFullWithQoS0(t *testing.T) {
	h := open(t, Limits{Retained: 1})
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("#", 0)
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("a", "kept", 1, retain)
	s.expectMessage("kept")
	p.publish("b", "not kept", 0, retain)
	s.expectMessage("not kept")
	s.subscribe("b", 0)
	s.ping()
	if s := h.b.Stats(); s.Retained != 1 || s.RetainedRefused != 1 {
		t.Errorf("%d retained, %d refused", s.Retained, s.RetainedRefused)
	}
}
