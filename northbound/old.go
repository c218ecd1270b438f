package northbound

import (
	"encoding/binary"
	"errors"

	"github.com/eclipse/paho.golang/packets"
)

// MQTT 3.1.1, for servers that speak nothing newer. The client library knows
// MQTT 5 only. The two differ in a few bytes of a packet: those are left out, or
// put in, at the border of the connection. Our own PUBLISH is written in either
// from the start.

const levelOld = 4 // of the protocol, in CONNECT

var errPacket = errors.New("a packet ends too early")

// A body is what is left of a packet.
type body struct {
	b   []byte
	bad bool
}

func (r *body) take(n int) []byte {
	if n > len(r.b) {
		r.bad, n = true, len(r.b)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

// text is a string with its length before it.
func (r *body) text() []byte {
	if len(r.b) < 2 {
		r.bad = true
		return nil
	}
	return r.take(2 + int(binary.BigEndian.Uint16(r.b)))
}

func (r *body) skipProperties() {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > uint64(len(r.b)) {
		r.bad = true
		return
	}
	r.take(size + int(n))
}

func (r *body) rest() []byte { return r.take(len(r.b)) }

// split takes the fixed header off a packet.
func split(p []byte) (first byte, r body) {
	if len(p) < 2 {
		return 0, body{bad: true}
	}
	_, size := binary.Uvarint(p[1:])
	if size <= 0 {
		return 0, body{bad: true}
	}
	return p[0], body{b: p[1+size:]}
}

func join(first byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	out := binary.AppendUvarint([]byte{first}, uint64(n))
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// toOld makes a packet of 3.1.1 of one that the client library has written.
// Nothing: it has no counterpart.
func toOld(p []byte) ([]byte, error) {
	first, r := split(p)
	out := p
	switch first >> 4 {
	case packets.CONNECT:
		out = connectOld(first, &r)
	case packets.PUBLISH:
		topic, id := r.text(), []byte(nil)
		if first&6 != 0 {
			id = r.take(2)
		}
		r.skipProperties()
		out = join(first, topic, id, r.rest())
	case packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP:
		out = join(first, r.take(2))
	case packets.SUBSCRIBE:
		id := r.take(2)
		r.skipProperties()
		parts := [][]byte{id}
		for len(r.b) > 0 {
			filter, options := r.text(), r.take(1)
			if r.bad {
				break
			}
			parts = append(parts, filter, []byte{options[0] & 3}) // QoS
		}
		out = join(first, parts...)
	case packets.UNSUBSCRIBE:
		id := r.take(2)
		r.skipProperties()
		out = join(first, id, r.rest())
	case packets.DISCONNECT:
		if len(r.b) > 0 && r.b[0] == packets.DisconnectDisconnectWithWillMessage {
			return nil, nil // the server publishes the will of who goes without a word
		}
		out = join(first)
	}
	if r.bad {
		return nil, errPacket
	}
	return out, nil
}

func connectOld(first byte, r *body) []byte {
	name, rest := r.take(6), r.take(4) // level, flags, keepalive
	if r.bad {
		return nil
	}
	r.skipProperties()
	parts := [][]byte{name, {levelOld}, rest[1:], r.text()}
	if rest[1]&4 != 0 { // a will
		r.skipProperties()
		parts = append(parts, r.text(), r.text())
	}
	return join(first, append(parts, r.rest())...)
}

// connackCodes are the refusals of 3.1.1, in the words of MQTT 5.
var connackCodes = [...]byte{
	0, packets.ConnackUnsupportedProtocolVersion, packets.ConnackInvalidClientID, packets.ConnackServerUnavailable,
	packets.ConnackBadUsernameOrPassword, packets.ConnackNotAuthorized,
}

// fromOld makes a packet of MQTT 5 of one of 3.1.1 for the client library.
func fromOld(p []byte) ([]byte, error) {
	first, r := split(p)
	out, none := p, []byte{0} // properties
	switch first >> 4 {
	case packets.CONNACK:
		flags, code := r.take(1), r.take(1)
		if r.bad {
			break
		}
		said := byte(packets.ConnackUnspecifiedError)
		if int(code[0]) < len(connackCodes) {
			said = connackCodes[code[0]]
		}
		out = join(first, flags, []byte{said}, none)
	case packets.PUBLISH:
		topic, id := r.text(), []byte(nil)
		if first&6 != 0 {
			id = r.take(2)
		}
		out = join(first, topic, id, none, r.rest())
	case packets.SUBACK:
		out = join(first, r.take(2), none, r.rest())
	case packets.UNSUBACK:
		out = join(first, r.take(2), none)
	}
	if r.bad {
		return nil, errPacket
	}
	return out, nil
}

// readOld reads the packet that has begun to arrive, for the client library.
func (c *conn) readOld() error {
	var head []byte
	var f frame
	for n := 1; ; n++ {
		b, err := c.in.Peek(n)
		if err != nil {
			return err
		}
		head = b
		if err := f.pass(b[n-1:]); err != nil {
			return err
		}
		if n > 1 && !f.header {
			break
		}
	}
	p := make([]byte, len(head)+f.left)
	for n := 0; n < len(p); {
		if err := c.await(); err != nil {
			return err
		}
		m, err := c.in.Read(p[n:])
		if n += m; err != nil {
			return err
		}
	}
	var err error
	c.translated, err = fromOld(p)
	return err
}

// isOld reports whether the packet that has begun to arrive is to be translated:
// everything of a 3.1.1 connection, and the CONNACK of a server that speaks no
// other.
func (c *conn) isOld() (bool, error) {
	if c.old || !c.frame.between() {
		return c.old, nil
	}
	if b, err := c.in.Peek(1); err != nil || b[0] != packets.CONNACK<<4 {
		return false, err
	}
	b, err := c.in.Peek(2)
	if err == nil && b[1] == 2 {
		return true, nil
	}
	return false, err
}
