package broker

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// FuzzSession plays bytes as a sequence of packets of a client that is logged
// in: each byte pair chooses a packet and what is damaged in it. Whatever comes,
// nothing panics, a second client is served, and neither gets what the rules
// refuse.
func FuzzSession(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 0})
	f.Add([]byte{7, 0, 1, 0, 8, 0, 7, 0, 2, 0, 5, 0, 12, 0, 14, 0})
	f.Add([]byte{2, 0, 2, 0, 5, 0, 5, 0, 2, 3, 15, 0})
	h := open(f, Limits{Sessions: 50})
	h.gate.SetRules(rules(f, rule(false, "*", both, "a/b/secret"), rule(true, "*", both, "a/#"), rule(true, "carol", both, "#")))
	good := h.login(mqtt.V5, "bob", "good")
	good.subscribe("a/#", 0)
	f.Fuzz(func(t *testing.T, script []byte) {
		h := &house{t: t, b: h.b, addr: h.addr}
		good.t = t
		c := h.login(mqtt.V5, "alice", "fuzz", durable)
		all := samples()
		var b []byte
		for ; len(script) > 1 && len(b) < 64<<10; script = script[2:] {
			at := len(b)
			if b, _ = mqtt.Append(b, mqtt.V5, all[int(script[0])%len(all)]); script[1] > 0 && len(b) > at {
				b[at+int(script[1])%(len(b)-at)] ^= script[1]
			}
		}
		c.nc.SetWriteDeadline(time.Now().Add(patience))
		c.nc.Write(b) // the server may hang up in the middle
		c.nc.(*net.TCPConn).CloseWrite()
		c.mustNotHear(t, "secret")
		h.login(mqtt.V5, "carol", "c").publish("a/b/secret", "x", 0)
		good.send(&mqtt.Pingreq{})
		for {
			p, err := good.read()
			if err != nil {
				t.Fatalf("the other client: %v", err)
			}
			if _, ok := p.(*mqtt.Pingresp); ok {
				break
			}
			if m, ok := p.(*mqtt.Publish); ok && bytes.Contains(m.Topic, []byte("secret")) {
				t.Fatal("the other client hears the secret")
			}
		}
		if n := h.b.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
		if used := h.b.outboxes.used.Load(); used > 1<<20 {
			t.Fatalf("%d bytes wait", used)
		}
	})
}

// mustNotHear reads until the server hangs up.
func (c *client) mustNotHear(t *testing.T, topic string) {
	for {
		p, err := c.read()
		if err, ok := err.(net.Error); ok && err.Timeout() {
			t.Fatal("connection is still open")
		}
		if err != nil {
			return
		}
		if m, ok := p.(*mqtt.Publish); ok && bytes.Contains(m.Topic, []byte(topic)) {
			t.Fatalf("heard %q", m.Topic)
		}
	}
}
