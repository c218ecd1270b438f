package mqtt

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// body reads the fields behind a fixed header. After the first error every read
// returns zero, so that a packet is read straight through and asked once.
type body struct {
	version Version
	data    []byte
	at      int
	err     *Error
	set     propertySet
}

func (b *body) fail(code ReasonCode, clause, format string, args ...any) {
	if b.err == nil {
		b.err = &Error{code, clause, fmt.Sprintf(format, args...)}
	}
}

func (b *body) left() int { return len(b.data) - b.at }

// next returns the next n bytes, not copied; nil after an error.
func (b *body) next(n int) []byte {
	if b.err != nil {
		return nil
	}
	if n > b.left() {
		b.fail(MalformedPacket, "section 2.1.4", "packet ends in the middle of a field")
		return nil
	}
	p := b.data[b.at : b.at+n : b.at+n]
	b.at += n
	return p
}

func (b *body) rest() []byte { return b.next(b.left()) }

func (b *body) byte() byte {
	if p := b.next(1); p != nil {
		return p[0]
	}
	return 0
}

func (b *body) uint16() uint16 {
	if p := b.next(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (b *body) uint32() uint32 {
	if p := b.next(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// varint reads a variable byte integer (section 1.5.5).
func (b *body) varint() (n uint32) {
	for shift := 0; shift < 28; shift += 7 {
		c := b.byte()
		n |= uint32(c&0x7F) << shift
		if c >= 0x80 {
			continue
		}
		if c == 0 && shift > 0 { // [MQTT-1.5.5-1]
			b.fail(MalformedPacket, "MQTT-1.5.5-1", "variable byte integer is longer than needed")
		}
		return n
	}
	b.fail(MalformedPacket, "section 1.5.5", "variable byte integer of more than four bytes")
	return 0
}

// binary reads binary data: a length and as many bytes, not copied.
func (b *body) binary() []byte { return b.next(int(b.uint16())) }

// text reads a UTF-8 string, not copied. A byte order mark stays [MQTT-1.5.4-3].
func (b *body) text() []byte {
	s := b.binary()
	if err := checkText(s, utf8.Valid(s)); err != nil {
		b.fail(err.Code, err.Clause, "%s", err.Text)
	}
	return s
}

// checkText applies section 1.5.4 to a string that is valid UTF-8 or not. Go's
// UTF-8 has neither surrogates nor overlong forms.
func checkText[T string | []byte](s T, valid bool) *Error {
	if !valid {
		return &Error{MalformedPacket, "MQTT-1.5.4-1", "string is not UTF-8"}
	}
	for i := range len(s) {
		if s[i] == 0 {
			return &Error{MalformedPacket, "MQTT-1.5.4-2", "string contains U+0000"}
		}
	}
	return nil
}

// packetID reads a packet identifier.
func (b *body) packetID() uint16 {
	id := b.uint16()
	if id == 0 {
		b.fail(ProtocolError, "MQTT-2.2.1-3", "packet identifier is 0")
	}
	return id
}

// reasonCode reads a reason code that a packet of type t may carry.
func (b *body) reasonCode(t Type) ReasonCode {
	code := ReasonCode(b.byte())
	if !code.allowedIn(t) {
		b.fail(ProtocolError, "section 2.4", "reason code 0x%02X in %v", byte(code), t)
	}
	return code
}

// finish demands that the packet ends here.
func (b *body) finish() {
	if b.left() > 0 {
		b.fail(MalformedPacket, "section 2.1.4", "%d bytes behind the end of the packet", b.left())
	}
}
