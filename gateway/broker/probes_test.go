package broker

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// The probes are what took other brokers down, made them lie or let strangers in.

func TestProbe01TruncatedSubscribe(t *testing.T) {
	h := open(t, Limits{})
	for _, b := range [][]byte{
		{0x82, 5, 0, 1, 0, 0, 0}, {0x82, 2, 0, 1}, {0x82, 3, 0, 1, 0}, {0x82, 4, 0, 1, 0, 0},
		{0xA2, 3, 0, 1, 0}, {0x30, 0}, {0x32, 3, 0, 1, 'a'}, {0x40, 1, 0}, {0x62, 0}, {0xF0, 0}, {0x10, 0},
	} {
		for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			c := h.login(v, "alice", "a")
			c.raw(b)
			c.expectClosed()
		}
	}
	h.login(mqtt.V5, "alice", "a").ping()
}

func TestProbe02SocketsWithoutConnect(t *testing.T) {
	h := open(t, Limits{Connect: 300 * time.Millisecond, PreLoginPerIP: 8})
	var idle []*client
	for i := range 8 {
		c := h.dial(mqtt.V5)
		c.raw([]byte{0x10, 0x80, 0x80, 0x01}[:1+i%3]) // they begin and do not end
		idle = append(idle, c)
	}
	h.dial(mqtt.V5).expectClosed() // one too many, at once
	for _, c := range idle {
		c.expectClosed()
	}
	h.login(mqtt.V5, "alice", "a").ping()
	if n := h.b.Stats().RefusedSockets; n != 1 {
		t.Errorf("%d sockets refused", n)
	}
	big := h.dial(mqtt.V5)
	big.raw([]byte{0x10, 0xFF, 0xFF, 0xFF, 0x7F}) // announces 256 MB
	big.expectClosed()
}

// brokenListener fails a few times before it works.
type brokenListener struct {
	net.Listener
	failures int
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestProbe03FileDescriptorsExhausted(t *testing.T) {
	h := open(t, Limits{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var loop, clients sync.WaitGroup
	loop.Go(func() { h.b.accept(ctx, &Listener{}, &brokenListener{ln, 3}, &clients) })
	h.addr = ln.Addr().String()
	c := h.login(mqtt.V5, "alice", "a")
	c.ping()
	if n := h.b.Stats().AcceptErrors; n != 3 {
		t.Errorf("%d accept errors", n)
	}
	cancel()
	ln.Close()
	loop.Wait()
	c.nc.Close()
	clients.Wait()
}

func TestProbe04And05Wills(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		h.gate.SetRules(rules(t, rule(true, "*", both, "mine/#", "$SYS/#")))
		for _, topic := range []string{"theirs", "mine/+", "mine/#", "$SYS/broker/version", strings.Repeat("/", 100)} {
			c := h.dial(v)
			req := &mqtt.Connect{Version: v, ClientID: "a", CleanStart: true, ReceiveMaximum: 1, Username: "alice",
				UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true, Will: &mqtt.Will{Topic: topic, Payload: []byte("x")}}
			b, err := mqtt.Append(nil, v, req)
			if err != nil { // our encoder will not write it: put the topic in by hand
				req.Will.Topic = strings.Repeat("~", len(topic))
				b, _ = mqtt.Append(nil, v, req)
				b = []byte(strings.Replace(string(b), req.Will.Topic, topic, 1))
			}
			c.raw(b)
			if p, err := c.read(); err == nil && p.(*mqtt.Connack).Code == mqtt.Success {
				t.Errorf("a will to %q is accepted", topic)
			}
		}
	})
}

func TestProbe06SessionOfSomebodyElse(t *testing.T) {
	h := open(t, Limits{})
	a := h.login(mqtt.V5, "alice", "a", durable)
	a.subscribe("secret", 1)
	a.nc.Close()
	h.untilFree("a")
	h.login(mqtt.V5, "carol", "c").publish("secret", "for alice", 1)
	for _, change := range []func(*mqtt.Connect){durable, func(*mqtt.Connect) {}} {
		if code := h.dial(mqtt.V5).connect("bob", "a", change).Code; code != mqtt.ClientIdentifierNotValid {
			t.Errorf("bob: %v", code)
		}
	}
	h.login(mqtt.V5, "alice", "a", durable).expectMessage("for alice")
}

func TestProbe07UnknownAlias(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Publish{QoS: 1, PacketID: 1, TopicAlias: 5})
	if code := c.expectClosed(); code != mqtt.ProtocolError {
		t.Errorf("got %v", code)
	}
}

func TestProbe08And18OfflineOrder(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		s := h.login(v, "bob", "s", durable)
		s.subscribe("a", 1)
		s.nc.Close()
		h.untilFree("s")
		const total = 10_000
		p := h.login(v, "alice", "p")
		for i := 0; i < total; i += 50 {
			var burst []mqtt.Packet
			for id := range 50 {
				burst = append(burst, &mqtt.Publish{Topic: []byte("a"), Payload: fmt.Append(nil, i+id), QoS: 1, PacketID: uint16(id + 1)})
			}
			p.send(burst...)
			for id := range uint16(50) {
				p.expectAck(mqtt.PUBACK, id+1, mqtt.Success)
			}
		}
		next := 0
		for range 4 { // a quarter at a time
			s = h.login(v, "bob", "s", durable)
			for range total / 4 {
				s.expectMessage(fmt.Sprint(next))
				next++
			}
			s.send(&mqtt.Disconnect{}) // behind the last acknowledgement
			s.expectClosed()
		}
	})
}

func TestProbe09SmallWindow(t *testing.T) {
	h := open(t, Limits{})
	s := h.login(mqtt.V5, "bob", "s", func(r *mqtt.Connect) { r.ReceiveMaximum = 10 })
	s.subscribe("a", 1)
	p := h.login(mqtt.V5, "alice", "p")
	for i := range 500 {
		p.publish("a", fmt.Sprint(i), 1)
	}
	for i := range 500 {
		s.expectMessage(fmt.Sprint(i))
	}
}

// stuck subscribes and never reads again.
func (h *house) stuck(id string, qos byte, change ...func(*mqtt.Connect)) *client {
	c := h.login(mqtt.V5, "bob", id, change...)
	c.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	c.subscribe("a", qos)
	return c
}

func TestProbe11StuckSubscriber(t *testing.T) {
	h := open(t, Limits{})
	h.stuck("one", 1)
	h.stuck("zero", 0)
	good := h.login(mqtt.V5, "bob", "good")
	good.subscribe("a", 1)
	p := h.login(mqtt.V5, "alice", "p")
	payload := strings.Repeat("x", 16<<10)
	for range 600 { // about 10 MB: more than the sockets and the outbox take
		p.publish("a", payload, 1)
		good.expectMessage(payload)
	}
	if n := h.b.Stats().DroppedSlow; n == 0 {
		t.Error("nothing was dropped for the stuck QoS 0 subscriber")
	}
}

func TestProbe12ReconnectWhileStuck(t *testing.T) {
	h := open(t, Limits{})
	h.stuck("s", 1, durable)
	zero := h.stuck("z", 0, durable)
	p := h.login(mqtt.V5, "alice", "p")
	payload := strings.Repeat("x", 64<<10)
	for h.b.Stats().DroppedSlow == 0 {
		p.publish("a", payload, 1)
	}
	began := time.Now()
	h.login(mqtt.V5, "bob", "s", durable).expectMessage(payload)
	h.login(mqtt.V5, "bob", "z", durable).ping()
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %v", d)
	}
	zero.nc.Close()
}

func TestProbe13DeepTopic(t *testing.T) {
	h := open(t, Limits{})
	deep := strings.Repeat("/", 60_000)
	c := h.login(mqtt.V5, "alice", "a")
	began := time.Now()
	c.send(&mqtt.Publish{Topic: []byte(deep), QoS: 1, PacketID: 1})
	if code := c.expectClosed(); code != mqtt.TopicNameInvalid {
		t.Errorf("PUBLISH: %v", code)
	}
	c = h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: deep}}})
	if a := expect[*mqtt.Suback](c); a.Codes[0] != mqtt.TopicFilterInvalid {
		t.Errorf("SUBSCRIBE: %v", a.Codes)
	}
	c.send(&mqtt.Unsubscribe{PacketID: 1, Filters: []string{deep}})
	expect[*mqtt.Unsuback](c)
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestProbe14InvalidFilters(t *testing.T) {
	h := open(t, Limits{})
	for _, f := range []string{"a+", "a#", "a/b+/c", "#/a", "$share//x", "$share/g/", "$share/g", "$share/+/x", "a\x00b"} {
		c := h.login(mqtt.V5, "alice", "a")
		good := strings.Repeat("~", len(f))
		b, err := mqtt.Append(nil, mqtt.V5, &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: good}}})
		if err != nil {
			t.Fatal(err)
		}
		c.raw([]byte(strings.Replace(string(b), good, f, 1)))
		if p, err := c.read(); err == nil {
			if a, ok := p.(*mqtt.Suback); ok && !a.Codes[0].Failed() {
				t.Errorf("%q is accepted", f)
			}
		}
	}
	if n := h.b.subs.len(); n != 0 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestProbe15InvalidTopics(t *testing.T) {
	h := open(t, Limits{})
	for _, topic := range []string{"a/+", "#", "a\x00b", "\xff\xfe", "\xed\xa0\x80"} {
		c := h.login(mqtt.V5, "alice", "a")
		b := append([]byte{0x32, byte(len(topic) + 5), 0, byte(len(topic))}, topic...)
		c.raw(append(b, 0, 1, 0))
		if code := c.expectClosed(); !code.Failed() {
			t.Errorf("%q: %v", topic, code)
		}
	}
}

func TestProbe16And17Credentials(t *testing.T) {
	h := open(t, Limits{})
	connect := func(v mqtt.Version, flags byte, fields ...string) []byte {
		body := []byte{0, 4, 'M', 'Q', 'T', 'T', byte(v), flags, 0, 10}
		if v != mqtt.V311 {
			body = append(body, 0) // no properties
		}
		for _, f := range fields {
			body = append(append(body, 0, byte(len(f))), f...)
		}
		return append([]byte{0x10, byte(len(body))}, body...)
	}
	for name, b := range map[string][]byte{
		"U+0000 in the user name":      connect(mqtt.V5, 0xC2, "id", "a\x00b", "secret"),
		"invalid UTF-8":                connect(mqtt.V5, 0xC2, "id", "a\xffb", "secret"),
		"3.1.1 password without user":  connect(mqtt.V311, 0x42, "id", "secret"),
		"5 password without user":      connect(mqtt.V5, 0x42, "id", "secret"),
		"wrong password":               connect(mqtt.V5, 0xC2, "id", "alice", "wrong"),
		"no credentials":               connect(mqtt.V311, 0x02, "id"),
		"reserved flag":                connect(mqtt.V311, 0x03, "id"),
		"no client id, 3.1.1, durable": connect(mqtt.V311, 0xC0, "", "alice", "secret"),
		"control character":            connect(mqtt.V5, 0xC2, "i\nd", "alice", "secret"),
		"unknown version":              connect(6, 0xC2, "id", "alice", "secret"),
	} {
		c := h.dial(mqtt.V5)
		if b[8] == byte(mqtt.V311) {
			c = h.dial(mqtt.V311)
		}
		c.raw(b)
		p, err := c.read()
		if ack, ok := p.(*mqtt.Connack); err == nil && (!ok || !ack.Code.Failed()) {
			t.Errorf("%s: %+v", name, p)
		}
		c.expectClosed()
	}
	if n := h.b.Stats().AuthFailures; n != 3 {
		t.Errorf("%d failed logins counted", n)
	}
}

func TestExtendedAuthenticationIsRefused(t *testing.T) {
	h := open(t, Limits{})
	ack := h.dial(mqtt.V5).connect("alice", "a", func(r *mqtt.Connect) { r.AuthMethod = "SCRAM-SHA-256" })
	if ack.Code != mqtt.BadAuthenticationMethod {
		t.Errorf("CONNACK %v", ack.Code)
	}
	c := h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Auth{Code: mqtt.ReAuthenticate, Method: "x"})
	if code := c.expectClosed(); !code.Failed() {
		t.Errorf("DISCONNECT %v", code)
	}
}
