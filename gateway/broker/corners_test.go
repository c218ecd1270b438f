package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

func TestEmptyClientID(t *testing.T) {
	h := open(t, Limits{})
	for _, tt := range []struct {
		v        mqtt.Version
		clean    bool
		code     mqtt.ReasonCode
		assigned bool // and told so
	}{
		{mqtt.V311, true, mqtt.Success, false},
		{mqtt.V311, false, mqtt.ClientIdentifierNotValid, false}, // [MQTT-3.1.3-8] of 3.1.1
		{mqtt.V5, true, mqtt.Success, true},
		{mqtt.V5, false, mqtt.Success, true}, // [MQTT-3.2.2-16]
	} {
		ack := h.dial(tt.v).connect("alice", "", func(r *mqtt.Connect) { r.CleanStart = tt.clean })
		if ack.Code != tt.code || strings.HasPrefix(ack.AssignedClientID, "auto-") != tt.assigned || ack.SessionPresent {
			t.Errorf("version %v, clean %v: %v, %q, present %v", tt.v, tt.clean, ack.Code, ack.AssignedClientID, ack.SessionPresent)
		}
	}
}

// A will's expiry counts from when it is sent, and its properties travel with it.
func TestWillCarriesItsProperties(t *testing.T) {
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("gone/#", 1)
	users := []mqtt.UserProperty{{Key: "k", Value: "2"}, {Key: "a", Value: "1"}, {Key: "k", Value: "1"}}
	c := h.login(mqtt.V5, "alice", "a", func(r *mqtt.Connect) {
		r.Will = &mqtt.Will{Topic: "gone/a", Payload: []byte("x"), QoS: 1, Properties: mqtt.Properties{
			MessageExpiry: 100, HasMessageExpiry: true, ContentType: "t", ResponseTopic: "r", CorrelationData: []byte{1}, UserProperties: users,
		}}
	})
	c.nc.Close()
	m := s.expectMessage("x")
	if !m.HasMessageExpiry || m.MessageExpiry < 90 || m.MessageExpiry > 100 {
		t.Errorf("expiry %v %d", m.HasMessageExpiry, m.MessageExpiry)
	}
	if m.ContentType != "t" || m.ResponseTopic != "r" || string(m.CorrelationData) != "\x01" || !slices.Equal(m.UserProperties, users) {
		t.Errorf("got %+v", m.Properties)
	}
}

// A session with a shared and a plain subscription gets one PUBLISH for both,
// with both identifiers, when it is its turn; another member's turn does not
// keep the plain one from its message.
func TestSharedAndPlainSubscription(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		h := open(t, Limits{})
		both, other := h.login(mqtt.V5, "bob", "both"), h.login(mqtt.V5, "bob", "other")
		both.subscribeWith(1, mqtt.Subscription{Filter: "a", QoS: qos})
		both.subscribeWith(2, mqtt.Subscription{Filter: "$share/g/a", QoS: qos})
		other.subscribeWith(3, mqtt.Subscription{Filter: "$share/g/a", QoS: qos})
		p := h.login(mqtt.V5, "alice", "p")
		shared := 0
		for range 4 {
			p.publish("a", "x", 1)
			m := both.expectMessage("x")
			slices.Sort(m.SubscriptionIDs)
			switch {
			case slices.Equal(m.SubscriptionIDs, []uint32{1, 2}):
				shared++
			case slices.Equal(m.SubscriptionIDs, []uint32{1}):
				other.expectMessage("x")
			default:
				t.Errorf("QoS %d: identifiers %v", qos, m.SubscriptionIDs)
			}
		}
		if shared != 2 {
			t.Errorf("QoS %d: the turn came %d times of 4", qos, shared)
		}
		both.ping()
		other.ping()
	}
}
