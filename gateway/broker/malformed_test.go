package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// hole is a string in each place of a packet where bad ones go.
const hole = "~~~~"

func withHoles() map[string]mqtt.Packet {
	users := []mqtt.UserProperty{{Key: hole, Value: hole}}
	props := mqtt.Properties{ContentType: hole, ResponseTopic: hole, UserProperties: users}
	ack := func(kind mqtt.Type) mqtt.Packet {
		return &mqtt.Ack{Kind: kind, PacketID: 1, Code: mqtt.UnspecifiedError, ReasonString: hole, UserProperties: users}
	}
	return map[string]mqtt.Packet{
		"CONNECT": &mqtt.Connect{Version: mqtt.V5, ClientID: hole, CleanStart: true, ReceiveMaximum: 1, Username: hole, UsernameFlag: true,
			Password: []byte("secret"), PasswordFlag: true, UserProperties: users,
			Will: &mqtt.Will{Topic: hole, Properties: props}},
		"PUBLISH": &mqtt.Publish{Topic: []byte(hole), QoS: 1, PacketID: 1, Properties: props},
		"PUBACK":  ack(mqtt.PUBACK), "PUBREC": ack(mqtt.PUBREC), "PUBREL": ack(mqtt.PUBREL), "PUBCOMP": ack(mqtt.PUBCOMP),
		"SUBSCRIBE":   &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: hole}}, UserProperties: users},
		"UNSUBSCRIBE": &mqtt.Unsubscribe{PacketID: 1, Filters: []string{hole}, UserProperties: users},
		"DISCONNECT":  &mqtt.Disconnect{Code: mqtt.DisconnectWithWill, ReasonString: hole, UserProperties: users},
	}
}

// Text that is not UTF-8, or holds U+0000, costs its sender the connection and
// reaches nobody else, in whatever string of whatever packet it stands.
func TestInvalidTextIsNotPassedOn(t *testing.T) {
	h := open(t, Limits{})
	watch := h.login(mqtt.V5, "bob", "watch")
	watch.subscribe("#", 1)
	cases := 0
	for name, p := range withHoles() {
		b := encode(t, mqtt.V5, p)
		for _, bad := range []string{"\xff\xfe~~", "\xc0\xaf~~", "\xed\xa0\x80~", "\xf4\x90\x80\x80", "~\x00~~", "~~~\xc3"} {
			for at, rest := 0, b; ; {
				i := bytes.Index(rest, []byte(hole))
				if i < 0 {
					break
				}
				at += i
				damaged := slices.Concat(b[:at], []byte(bad), b[at+len(hole):])
				c := h.dial(mqtt.V5)
				if name != "CONNECT" {
					c.connect("alice", "a")
				}
				c.raw(damaged)
				c.expectNoWelcome(name)
				c.nc.Close()
				cases++
				at += len(hole)
				rest = b[at:]
			}
		}
	}
	watch.ping() // nothing came before the answer
	if cases < 6*20 {
		t.Errorf("only %d cases: the packets have lost their strings", cases)
	}
}

// expectNoWelcome reads until the server hangs up, and nothing that grants.
func (c *client) expectNoWelcome(what string) {
	c.t.Helper()
	for {
		p, err := c.read()
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *mqtt.Disconnect:
		case *mqtt.Connack:
			if !p.Code.Failed() {
				c.t.Errorf("%s: accepted", what)
				return
			}
		default:
			c.t.Errorf("%s: answered by %v", what, p.Type())
			return
		}
	}
}

// legal is table 2-4 of the standard: which packets a property belongs in; 'W'
// stands for the will.
var legal = map[byte]struct{ wire, in string }{
	0x01: {"b", "PW"}, 0x02: {"4", "PW"}, 0x03: {"s", "PW"}, 0x08: {"s", "PW"}, 0x09: {"s", "PW"}, 0x0B: {"v", "S"}, 0x11: {"4", "CD"},
	0x12: {"s", ""}, 0x13: {"2", ""}, 0x15: {"s", "CA"}, 0x16: {"s", "CA"}, 0x17: {"b", "C"}, 0x18: {"4", "W"}, 0x19: {"b", "C"},
	0x1A: {"s", ""}, 0x1C: {"s", ""}, 0x1F: {"s", "1234DA"}, 0x21: {"2", "C"}, 0x22: {"2", "C"}, 0x23: {"2", "P"}, 0x24: {"b", ""},
	0x25: {"b", ""}, 0x26: {"p", "CWPSU1234DA"}, 0x27: {"4", "C"}, 0x28: {"b", ""}, 0x29: {"b", ""}, 0x2A: {"b", ""},
	0x00: {"b", ""}, 0x04: {"b", ""}, 0x2B: {"b", ""}, 0x7F: {"b", ""}, // there are none
}

func property(id byte, wire string) []byte {
	value := map[string]string{"b": "\x01", "2": "\x00\x01", "4": "\x00\x00\x00\x01", "v": "\x01", "s": "\x00\x01a", "p": "\x00\x01a\x00\x01b"}
	return append([]byte{id}, value[wire]...)
}

// packetWith is a packet with these properties, put together by hand.
func packetWith(kind byte, props []byte) []byte {
	props = append([]byte{byte(len(props))}, props...)
	var first byte
	var body []byte
	switch kind {
	case 'C', 'W':
		none := []byte{0}
		first, body = 0x10, append([]byte("\x00\x04MQTT\x05\xC2\x00\x3C"), none...)
		if kind == 'C' {
			body = append(body[:len(body)-1], props...)
		}
		body = append(body, "\x00\x01c"...)
		if kind == 'W' {
			body[7] |= 4
			body = append(append(body, props...), "\x00\x01w\x00\x01x"...)
		}
		body = append(body, "\x00\x05alice\x00\x06secret"...)
	case 'P':
		first, body = 0x32, slices.Concat([]byte("\x00\x01a\x00\x01"), props, []byte("x"))
	case 'S':
		first, body = 0x82, slices.Concat([]byte("\x00\x01"), props, []byte("\x00\x01a\x00"))
	case 'U':
		first, body = 0xA2, slices.Concat([]byte("\x00\x01"), props, []byte("\x00\x01a"))
	case '1', '2', '3', '4': // PUBACK, PUBREC, PUBREL, PUBCOMP
		first, body = byte(3+kind-'0')<<4, append([]byte{0, 1, 0x80}, props...)
		if kind == '3' {
			first, body[2] = first|2, 0x92
		}
		if kind == '4' {
			body[2] = 0x92
		}
	case 'D':
		first, body = 0xE0, append([]byte{0x04}, props...)
	case 'A':
		first, body = 0xF0, append([]byte{0x19}, props...)
	}
	return append([]byte{first, byte(len(body))}, body...)
}

// A property where it does not belong costs its sender the connection. Those
// who would have got the message do not notice.
func TestPropertiesInWrongPackets(t *testing.T) {
	h := open(t, Limits{})
	watch := h.login(mqtt.V5, "bob", "watch")
	watch.subscribe("#", 0)
	for id, p := range legal {
		for _, kind := range "CWPSU1234DA" {
			for _, props := range [][]byte{property(id, p.wire), slices.Concat(property(id, p.wire), property(id, p.wire))} {
				twice := len(props) > len(property(id, p.wire))
				if strings.ContainsRune(p.in, kind) && (!twice || id == 0x26) {
					continue // that is how it should be
				}
				c := h.dial(mqtt.V5)
				if kind != 'C' && kind != 'W' {
					c.connect("alice", "a")
				}
				c.raw(packetWith(byte(kind), props))
				c.expectNoWelcome(fmt.Sprintf("property %#x in %c, twice %v", id, kind, twice))
				c.nc.Close()
			}
		}
	}
	watch.ping()
	for _, kind := range "PSU1234" { // the hand does it right
		c := h.login(mqtt.V5, "alice", "a")
		c.raw(packetWith(byte(kind), property(0x26, "p")))
		c.send(&mqtt.Pingreq{})
		for pong := false; !pong; {
			p, err := c.read()
			if err != nil {
				t.Fatalf("%c: %v", kind, err)
			}
			_, pong = p.(*mqtt.Pingresp)
		}
	}
}

// What only a server sends is not for clients to send.
func TestServerPacketsFromClients(t *testing.T) {
	h := open(t, Limits{})
	p := h.login(mqtt.V5, "bob", "p")
	for name, wrong := range map[string]mqtt.Packet{
		"CONNACK": &mqtt.Connack{Version: mqtt.V5}, "SUBACK": &mqtt.Suback{PacketID: 1, Codes: []mqtt.ReasonCode{0}},
		"UNSUBACK": &mqtt.Unsuback{PacketID: 1, Codes: []mqtt.ReasonCode{0}}, "PINGRESP": &mqtt.Pingresp{},
		"AUTH": &mqtt.Auth{Code: mqtt.ReAuthenticate, Method: "m"}, "CONNECT": greeting(mqtt.V5),
	} {
		c := h.login(mqtt.V5, "alice", "a", durable)
		c.subscribe("a", 1)
		c.send(wrong)
		if code := c.expectClosed(); !code.Failed() {
			t.Errorf("%s: %v", name, code)
		}
		p.publish("a", name, 1)
		again := h.login(mqtt.V5, "alice", "a", durable)
		again.expectMessage(name) // the subscription is still there
		again.ping()              // and the answer to it, before the next one takes over
	}
	if n := h.b.subs.len(); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

// A flood of user properties is refused before it costs anything to speak of.
func TestUserPropertyFlood(t *testing.T) {
	h := open(t, Limits{})
	pair := property(0x26, "p")
	props := bytes.Repeat(pair, 60_000)
	body := slices.Concat([]byte("\x00\x01a\x00\x01"), varint(len(props)), props)
	packet := slices.Concat([]byte{0x32}, varint(len(body)), body)
	c := h.login(mqtt.V5, "alice", "a")
	began := time.Now()
	c.raw(packet)
	if code := c.expectClosed(); code != mqtt.QuotaExceeded {
		t.Errorf("got %v", code)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %v", d)
	}
	h.expectHit("user_properties")

	dec := mqtt.NewDecoder(bytes.NewReader(packet), 0)
	dec.SetVersion(mqtt.V5)
	if n := testing.AllocsPerRun(1, func() { dec.Read() }); n > 2000 {
		t.Errorf("%v allocations", n)
	}
}

func varint(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
