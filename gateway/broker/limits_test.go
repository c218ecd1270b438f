package broker

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

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

// expectHit fails unless each of the named limits, and no other, was hit.
func (h *house) expectHit(names ...string) {
	h.t.Helper()
	var hit []string
	for name, n := range h.b.Stats().LimitHits {
		if n > 0 {
			hit = append(hit, name)
		}
	}
	slices.Sort(hit)
	slices.Sort(names)
	if !slices.Equal(hit, names) {
		h.t.Errorf("limits hit: %v, want %v", hit, names)
	}
}

// What a client may do is bounded, and each bound that decided is counted.
func TestEachLimitIsCounted(t *testing.T) {
	publish := func(c *client, p *mqtt.Publish) { c.send(p); c.expectClosed() }
	for _, tt := range []struct {
		limit string
		set   Limits
		try   func(h *house, c *client)
	}{
		{"connections", Limits{Connections: 1}, func(h *house, c *client) { h.dial(mqtt.V5).connect("alice", "b") }},
		{"connections_per_ip", Limits{ConnectionsPerIP: 1}, func(h *house, c *client) { h.dial(mqtt.V5).connect("alice", "b") }},
		{"pre_login", Limits{PreLogin: 1}, func(h *house, c *client) { h.dial(mqtt.V5); h.dial(mqtt.V5).expectClosed() }},
		{"pre_login_per_ip", Limits{PreLoginPerIP: 1}, func(h *house, c *client) { h.dial(mqtt.V5); h.dial(mqtt.V5).expectClosed() }},
		{"connect_time", Limits{Connect: 50 * time.Millisecond}, func(h *house, c *client) { h.dial(mqtt.V5).expectClosed() }},
		{"connect_size", Limits{ConnectSize: 100}, func(h *house, c *client) {
			o := h.dial(mqtt.V5)
			o.raw([]byte{0x10, 100})
			o.expectClosed()
		}},
		{"client_id", Limits{}, func(h *house, c *client) { h.dial(mqtt.V5).connect("alice", strings.Repeat("x", 129)) }},
		{"packet_size", Limits{PacketSize: 100}, func(h *house, c *client) {
			publish(c, &mqtt.Publish{Topic: []byte("a"), Payload: make([]byte, 100)})
		}},
		{"topic_levels", Limits{TopicLevels: 2}, func(h *house, c *client) { publish(c, &mqtt.Publish{Topic: []byte("a/b/c")}) }},
		{"topic_aliases", Limits{Aliases: 1}, func(h *house, c *client) { publish(c, &mqtt.Publish{Topic: []byte("a"), TopicAlias: 2}) }},
		{"user_properties", Limits{}, func(h *house, c *client) {
			large := mqtt.UserProperty{Key: "a", Value: strings.Repeat("x", 33<<10)}
			publish(c, &mqtt.Publish{Topic: []byte("a"), Properties: mqtt.Properties{UserProperties: []mqtt.UserProperty{large, large}}})
		}},
		{"sessions", Limits{Sessions: 1}, func(h *house, c *client) { h.dial(mqtt.V5).connect("alice", "b") }},
		{"sessions_per_identity", Limits{SessionsPerUser: 1}, func(h *house, c *client) { h.dial(mqtt.V5).connect("alice", "b") }},
		{"subscriptions", Limits{Subscriptions: 1}, func(h *house, c *client) { c.subscribe("a", 0); c.askFor("b") }},
		{"subscriptions_total", Limits{AllSubscriptions: 1}, func(h *house, c *client) { c.subscribe("a", 0); c.askFor("b") }},
		{"retained", Limits{Retained: 1}, func(h *house, c *client) {
			c.publish("a", "x", 1, retain)
			c.send(&mqtt.Publish{Topic: []byte("b"), Payload: []byte("x"), QoS: 1, PacketID: 1, Retain: true})
			c.expectAck(mqtt.PUBACK, 1, mqtt.QuotaExceeded)
		}},
	} {
		t.Run(tt.limit, func(t *testing.T) {
			h := open(t, tt.set)
			tt.try(h, h.login(mqtt.V5, "alice", "a"))
			h.expectHit(tt.limit)
		})
	}
}

func (c *client) askFor(filter string) {
	c.t.Helper()
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: filter}}})
	if a := expect[*mqtt.Suback](c); a.Codes[0] != mqtt.QuotaExceeded {
		c.t.Errorf("SUBACK %v", a.Codes[0])
	}
}

// One credential with ever new client ids gets its share of sessions and no
// more, and others get theirs (N-36).
func TestSessionsOfOneIdentity(t *testing.T) {
	ids := 2_000
	if os.Getenv("PROVE") != "" {
		ids = 100_000
	}
	h := open(t, Limits{SessionsPerUser: 10, Sessions: 50})
	for i := range ids {
		c := h.dial(mqtt.V5)
		ack := c.connect("alice", fmt.Sprint("c", i), durable)
		if want := i >= 10; (ack.Code == mqtt.QuotaExceeded) != want {
			t.Fatalf("session %d: %v", i, ack.Code)
		}
		if i < 10 {
			c.subscribe("a", 1) // so that it is on disk
		}
		c.nc.Close()
	}
	h.login(mqtt.V5, "bob", "b", durable).ping()
	h.login(mqtt.V5, "alice", "c3", durable).ping() // one that is hers
	if n := h.b.Stats().Sessions; n != 11 {
		t.Errorf("%d sessions", n)
	}
	h.login(mqtt.V5, "alice", "c3").nc.Close() // ends with its connection
	h.untilGone("c3")
	h.login(mqtt.V5, "alice", "new", durable).subscribe("a", 1)
	h.expectHit("sessions_per_identity")
	h.restart()
	if code := h.dial(mqtt.V5).connect("alice", "newer", durable).Code; code != mqtt.QuotaExceeded {
		t.Errorf("after a restart: %v", code)
	}
}

// untilGone waits until nobody has a session with that client id.
func (h *house) untilGone(clientID string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for {
		h.b.mu.Lock()
		_, there := h.b.sessions[clientID]
		h.b.mu.Unlock()
		if !there {
			return
		}
		if !wait(ctx, time.Millisecond) {
			h.t.Fatalf("%s is still there", clientID)
		}
	}
}

// A client beyond its rate is read more slowly. It loses nothing, and its keep
// alive does not suffer.
func TestPublishRate(t *testing.T) {
	h := open(t, Limits{PublishRate: 20})
	s := h.login(mqtt.V5, "bob", "s")
	s.subscribe("a", 1)
	p := h.login(mqtt.V5, "alice", "p", func(r *mqtt.Connect) { r.KeepAlive = 1 })
	began := time.Now()
	const total = 65 // 20 at once, 45 in 2.25 s: more than the keep alive's 1.5 s
	for i := range total {
		m := &mqtt.Publish{Topic: []byte("a"), Payload: fmt.Append(nil, i)}
		if i%2 > 0 {
			m.QoS, m.PacketID = 1, uint16(i)
		}
		p.send(m)
	}
	next := [2]int{0, 1} // QoS 0 does not wait for the disk, so each has its own order
	for range total {
		m := expect[*mqtt.Publish](s)
		if string(m.Payload) != fmt.Sprint(next[m.QoS]) {
			t.Fatalf("got %s with QoS %d, want %d", m.Payload, m.QoS, next[m.QoS])
		}
		next[m.QoS] += 2
		if m.QoS == 1 {
			s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: m.PacketID})
		}
	}
	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("%d messages took %v", total, d)
	}
	for i := 1; i < total; i += 2 {
		p.expectAck(mqtt.PUBACK, uint16(i), mqtt.Success)
	}
	p.ping()
	h.expectHit("publish_rate")
}

// What waits for slow clients together is bounded. Who holds much loses QoS 0
// first; others, and QoS 1, lose nothing.
func TestOutboxTotal(t *testing.T) {
	const total = 512 << 10
	h := open(t, Limits{OutboxTotal: total})
	for i := range 8 {
		h.stuck(fmt.Sprint("stuck", i), 0)
	}
	late := h.login(mqtt.V5, "bob", "late")
	late.subscribe("b", 1)
	good := h.login(mqtt.V5, "bob", "good")
	good.subscribe("a", 0)
	p := h.login(mqtt.V5, "alice", "p")
	payload := strings.Repeat("x", 3<<10)
	for i := range 1500 {
		p.publish("a", payload, 0)
		good.expectMessage(payload)
		if used := h.b.outboxes.used.Load(); used > total+64<<10 {
			t.Fatalf("after %d messages %d bytes wait", i, used)
		}
	}
	for range 100 {
		p.publish("b", payload, 1)
	}
	for range 100 {
		late.expectMessage(payload)
	}
	h.expectHit("outbox_total")
	h.close()
	if used := h.b.outboxes.used.Load(); used != 0 {
		t.Errorf("%d bytes are left in the books", used)
	}
}

// A SUBSCRIBE that has one filter a thousand times gets what is retained once,
// and no more filters are looked at than a client may have.
func TestSubscribeRepeatsItself(t *testing.T) {
	h := open(t, Limits{Subscriptions: 1000})
	h.login(mqtt.V5, "alice", "p").publish("a", "x", 1, retain)
	c := h.login(mqtt.V5, "bob", "s")
	many := &mqtt.Subscribe{PacketID: 1}
	for range 1001 {
		many.Subscriptions = append(many.Subscriptions, mqtt.Subscription{Filter: "#"})
	}
	c.send(many, &mqtt.Pingreq{})
	if codes := expect[*mqtt.Suback](c).Codes; codes[999] != mqtt.Success || codes[1000] != mqtt.QuotaExceeded {
		t.Errorf("SUBACK %v", codes[999:])
	}
	c.expectMessage("x")
	expect[*mqtt.Pingresp](c)
}

// Who subscribes and unsubscribes faster than anybody needs is read more
// slowly; what a client may have it may always ask for at once.
func TestSubscribeRate(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a")
	all, none := &mqtt.Subscribe{PacketID: 1}, &mqtt.Unsubscribe{PacketID: 2}
	for i := range subscribeRate {
		filter := fmt.Sprint("a/", i)
		all.Subscriptions = append(all.Subscriptions, mqtt.Subscription{Filter: filter})
		none.Filters = append(none.Filters, filter)
	}
	began := time.Now()
	c.send(all)
	expect[*mqtt.Suback](c)
	h.expectHit()
	none.Filters = none.Filters[:subscribeRate/2]
	c.send(none)
	expect[*mqtt.Unsuback](c)
	if d := time.Since(began); d < time.Second/2 {
		t.Errorf("1,500 filters took %v", d)
	}
	h.expectHit("subscribe_rate")
}
