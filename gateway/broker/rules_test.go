package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// What the protocol lets a server decide, and what this one does.

func TestServerKeepAlive(t *testing.T) {
	h := open(t, Limits{KeepAlive: 59500 * time.Millisecond})
	for _, tt := range []struct {
		asked  uint16
		told   bool
		accept bool // by 3.1.1, which cannot be told
	}{{0, true, false}, {1, false, true}, {60, false, true}, {61, true, false}, {65535, true, false}} {
		ask := func(r *mqtt.Connect) { r.KeepAlive = tt.asked }
		ack := h.dial(mqtt.V5).connect("alice", "five", ask)
		if ack.Code != mqtt.Success || ack.HasServerKeepAlive != tt.told || tt.told && ack.ServerKeepAlive != 60 {
			t.Errorf("keep alive %d: %v, told %v %d", tt.asked, ack.Code, ack.HasServerKeepAlive, ack.ServerKeepAlive)
		}
		want := mqtt.ClientIdentifierNotValid
		if tt.accept {
			want = mqtt.Success
		}
		if ack := h.dial(mqtt.V311).connect("alice", "three", ask); ack.Code != want {
			t.Errorf("keep alive %d in 3.1.1: %v, want %v", tt.asked, ack.Code, want)
		}
	}
}

func TestServerKeepAliveHolds(t *testing.T) {
	h := open(t, Limits{KeepAlive: time.Second})
	c := h.login(mqtt.V5, "alice", "a")
	if code := c.expectClosed(); code != mqtt.KeepAliveTimeout {
		t.Errorf("got %v", code)
	}
}

func TestNoMatchingSubscribers(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a")
	publish := func(qos byte, want mqtt.ReasonCode) {
		t.Helper()
		c.send(&mqtt.Publish{Topic: []byte("a"), QoS: qos, PacketID: 1})
		if a := expect[*mqtt.Ack](c); a.Code != want {
			t.Errorf("QoS %d: %v, want %v", qos, a.Code, want)
		}
		if qos == 2 {
			c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 1})
			c.expectAck(mqtt.PUBCOMP, 1, mqtt.Success)
		}
	}
	publish(1, mqtt.NoMatchingSubscribers)
	publish(2, mqtt.NoMatchingSubscribers)
	c.subscribeWith(0, mqtt.Subscription{Filter: "a", QoS: 1, NoLocal: true}) // is one, and gets none
	publish(1, mqtt.Success)
	c.send(&mqtt.Unsubscribe{PacketID: 1, Filters: []string{"a"}})
	expect[*mqtt.Unsuback](c)
	publish(1, mqtt.NoMatchingSubscribers)
	h.login(mqtt.V5, "bob", "b").subscribe("a", 0)
	publish(1, mqtt.Success)
	publish(2, mqtt.Success)
}

// Topics that start with '$' need a rule that says so; '$SYS' and '$share' are
// never a client's.
func TestDollarTopics(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		h.gate.SetRules(rules(t, rule(true, "*", both, "#", "$mine/#", "$SYS/#")))
		s := h.login(v, "bob", "s")
		s.subscribe("#", 1)
		s.subscribe("$mine/+", 1)
		p := h.login(mqtt.V5, "alice", "p")
		for _, topic := range []string{"$other/x", "$SYS/x", "$SYS", "$share/g/a", "$mine/x/y"} {
			want := mqtt.NotAuthorized
			if topic == "$mine/x/y" { // allowed, and nobody's
				want = mqtt.NoMatchingSubscribers
			}
			p.send(&mqtt.Publish{Topic: []byte(topic), QoS: 1, PacketID: 1})
			if a := expect[*mqtt.Ack](p); a.Code != want {
				t.Errorf("%s: %v, want %v", topic, a.Code, want)
			}
		}
		p.publish("$mine/x", "yes", 1)
		s.expectMessage("yes")
		p.publish("plain", "last", 1)
		s.expectMessage("last")
	})
}

// What was retained before a SUBSCRIBE came is there for it, also while it is on
// its way to the disk.
func TestSubscribeFindsWhatIsBeingRetained(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		c := h.login(v, "alice", "a")
		for i := range 50 {
			topic := fmt.Sprintf("t/%d", i)
			c.send(
				&mqtt.Publish{Topic: []byte(topic), Payload: []byte(topic), Retain: true},
				&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: topic, QoS: byte(i % 3)}}},
			)
			expect[*mqtt.Suback](c)
			if p := c.expectMessage(topic); !p.Retain {
				t.Errorf("%s is not the retained one", topic)
			}
		}
	})
}

// Whoever breaks the protocol is told how, if there is room; why a login failed
// is nobody's business.
func TestReasonStrings(t *testing.T) {
	h := open(t, Limits{Connections: 2})
	disconnected := func(change ...func(*mqtt.Connect)) *mqtt.Disconnect {
		t.Helper()
		c := h.login(mqtt.V5, "alice", "a", change...)
		c.send(&mqtt.Publish{TopicAlias: 3})
		return expect[*mqtt.Disconnect](c)
	}
	if d := disconnected(); d.Code != mqtt.ProtocolError || !strings.Contains(d.ReasonString, "alias") {
		t.Errorf("%v %q", d.Code, d.ReasonString)
	}
	quiet := func(r *mqtt.Connect) { r.RequestProblem = false } // is for other packets
	if d := disconnected(quiet); d.ReasonString == "" {
		t.Error("no reason string in DISCONNECT without Request Problem Information")
	}
	small := func(r *mqtt.Connect) { r.MaximumPacket = 40 }
	if d := disconnected(small); d.Code != mqtt.ProtocolError || d.ReasonString != "" {
		t.Errorf("%v %q to a client that takes 40 bytes", d.Code, d.ReasonString)
	}
	for name, tt := range map[string]struct {
		change func(*mqtt.Connect)
		code   mqtt.ReasonCode
		says   bool
	}{
		"password": {func(r *mqtt.Connect) { r.Password = []byte("wrong") }, mqtt.NotAuthorized, false},
		"method":   {func(r *mqtt.Connect) { r.AuthMethod = "SCRAM" }, mqtt.BadAuthenticationMethod, true},
		"small":    {func(r *mqtt.Connect) { r.AuthMethod, r.MaximumPacket = "SCRAM", 30 }, mqtt.BadAuthenticationMethod, false},
	} {
		if ack := h.dial(mqtt.V5).connect("alice", "b", tt.change); ack.Code != tt.code || ack.ReasonString != "" != tt.says {
			t.Errorf("%s: %v %q", name, ack.Code, ack.ReasonString)
		}
	}
}

// A filter that no rule allows is refused in one code for both versions, and in
// words for a client that wants them and takes them.
func TestSubscribeNotAllowed(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(true, "*", both, "open/#")))
	for name, tt := range map[string]struct {
		v      mqtt.Version
		change func(*mqtt.Connect)
		says   bool
	}{
		"3.1.1": {mqtt.V311, func(*mqtt.Connect) {}, false},
		"5":     {mqtt.V5, func(r *mqtt.Connect) { r.RequestProblem = true }, true},
		"quiet": {mqtt.V5, func(r *mqtt.Connect) { r.RequestProblem = false }, false},
		"small": {mqtt.V5, func(r *mqtt.Connect) { r.RequestProblem, r.MaximumPacket = true, 40 }, false},
	} {
		c := h.login(tt.v, "alice", "s", tt.change)
		c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "closed"}}})
		a := expect[*mqtt.Suback](c)
		if a.Codes[0] != mqtt.UnspecifiedError || a.ReasonString != "" != tt.says {
			t.Errorf("%s: %v %q", name, a.Codes, a.ReasonString)
		}
	}
}

// A retained message that expires leaves memory, the limit and the disk.
func TestRetainedMessagesExpire(t *testing.T) {
	h := open(t, Limits{Retained: 8})
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("a", "x", 1, retain, func(p *mqtt.Publish) { p.MessageExpiry, p.HasMessageExpiry = 1000, true })
	p.publish("b", "x", 1, retain)
	until := func(want ...string) {
		for have := []string{""}; !slices.Equal(have, want); p.ping() {
			have = nil
			h.queue.State(bucketRetained, func(topic string, _ []byte) error {
				have = append(have, topic)
				return nil
			})
		}
	}
	until("a", "b")
	for _, tt := range []struct {
		later time.Duration
		want  int
	}{{900 * time.Second, 2}, {1001 * time.Second, 1}, {time.Hour, 1}} {
		h.b.retained.expire(time.Now().Add(tt.later))
		if n := h.b.Stats().Retained; n != tt.want {
			t.Errorf("%d are retained after %v, want %d", n, tt.later, tt.want)
		}
	}
	p.publish("c", "x", 1, retain)
	until("b", "c")
	h.restart()
	if n := h.b.Stats().Retained; n != 2 {
		t.Errorf("%d are retained after a restart, want b and c", n)
	}
}

// Nothing larger than what the client takes is sent, not even an answer
// [MQTT-3.1.2-24].
func TestAnswersAndMaximumPacketSize(t *testing.T) {
	h := open(t, Limits{})
	takes := func(n uint32) func(*mqtt.Connect) { return func(r *mqtt.Connect) { r.MaximumPacket = n } }
	c := h.login(mqtt.V5, "alice", "a", takes(30))
	filters := make([]mqtt.Subscription, 40)
	for i := range filters {
		filters[i].Filter = fmt.Sprint(i)
	}
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: filters[:20]})
	expect[*mqtt.Suback](c)
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: filters})
	if code := c.expectClosed(); code != mqtt.PacketTooLarge {
		t.Errorf("got %v", code)
	}
	tiny := h.dial(mqtt.V5)
	tiny.send(&mqtt.Connect{Version: mqtt.V5, ClientID: "b", CleanStart: true, MaximumPacket: 10, ReceiveMaximum: 9,
		Username: "alice", UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true})
	if p, err := tiny.read(); err == nil {
		t.Errorf("got %v", p)
	}
}
