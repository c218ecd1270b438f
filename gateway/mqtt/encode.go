package mqtt

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Append encodes p for version v behind dst. It fails only for what the protocol
// cannot carry: a string over 65,535 bytes, a packet identifier of 0, an AUTH in
// 3.1.1. What 3.1.1 has no field for is left out. A CONNECT or CONNACK that
// names a version is written in that one. On error dst is returned unchanged.
func Append(dst []byte, v Version, p Packet) ([]byte, error) {
	e := encoder{dst: dst, version: v}
	e.packet(p)
	if e.err != nil {
		return dst, fmt.Errorf("encode %v: %w", e.kind, e.err)
	}
	return e.dst, nil
}

// encoder appends fields. After the first error what it wrote is thrown away.
type encoder struct {
	dst     []byte
	version Version
	kind    Type
	err     error
}

// packet asks no method of p: through an interface that would cost the caller
// an allocation for every packet made on its stack.
func (e *encoder) packet(p Packet) {
	switch p := p.(type) {
	case *Connect:
		e.connect(p)
	case *Connack:
		e.connack(p)
	case *Publish:
		e.publish(p)
	case *Ack:
		e.ack(p)
	case *Subscribe:
		e.subscribe(p)
	case *Suback:
		e.suback(p)
	case *Unsubscribe:
		e.unsubscribe(p)
	case *Unsuback:
		e.unsuback(p)
	case *Pingreq:
		e.finish(e.begin(PINGREQ, 0), nil)
	case *Pingresp:
		e.finish(e.begin(PINGRESP, 0), nil)
	case *Disconnect:
		e.disconnect(p)
	case *Auth:
		e.auth(p)
	default:
		e.fail("unknown packet")
	}
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

// begin writes the first byte of a fixed header and returns where the remaining
// length belongs; finish puts it there and the payload behind.
func (e *encoder) begin(t Type, flags byte) (mark int) {
	e.kind = t
	e.byte(byte(t)<<4 | flags)
	return len(e.dst)
}

func (e *encoder) finish(mark int, payload []byte) {
	e.length(mark, len(e.dst)-mark+len(payload))
	e.dst = append(e.dst, payload...)
}

// length inserts n as a variable byte integer at mark. What has to move are
// headers: a payload comes later.
func (e *encoder) length(mark, n int) {
	if n > maxSize-5 {
		e.fail("length %d does not fit a packet", n)
		return
	}
	var room [4]byte
	written := appendVarint(room[:0], uint32(n))
	e.dst = append(e.dst, written...)
	copy(e.dst[mark+len(written):], e.dst[mark:])
	copy(e.dst[mark:], written)
}

func appendVarint(dst []byte, n uint32) []byte {
	for ; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

func (e *encoder) byte(c byte)     { e.dst = append(e.dst, c) }
func (e *encoder) uint16(n uint16) { e.dst = binary.BigEndian.AppendUint16(e.dst, n) }

func (e *encoder) packetID(id uint16) {
	if id == 0 {
		e.fail("packet identifier is 0")
	}
	e.uint16(id)
}

func (e *encoder) text(what, s string) {
	e.check(what, len(s), checkText(s, utf8.ValidString(s)))
	e.uint16(uint16(len(s)))
	e.dst = append(e.dst, s...)
}

func (e *encoder) textBytes(what string, s []byte) {
	e.check(what, len(s), checkText(s, utf8.Valid(s)))
	e.uint16(uint16(len(s)))
	e.dst = append(e.dst, s...)
}

func (e *encoder) binary(what string, s []byte) {
	e.check(what, len(s), nil)
	e.uint16(uint16(len(s)))
	e.dst = append(e.dst, s...)
}

func (e *encoder) check(what string, size int, err *Error) {
	switch {
	case err != nil:
		e.fail("%s: %s", what, err.Text)
	case size > maxString:
		e.fail("%s has %d bytes, a string holds %d", what, size, maxString)
	}
}

func (e *encoder) publish(p *Publish) {
	var flags byte
	if p.Dup {
		flags |= 8
	}
	if p.Retain {
		flags |= 1
	}
	alias := uint16(0)
	if e.version == V5 {
		alias = p.TopicAlias
	}
	switch {
	case p.QoS > 2:
		e.fail("QoS %d", p.QoS)
	case p.Dup && p.QoS == 0:
		e.fail("DUP in a PUBLISH of QoS 0")
	case len(p.Topic) == 0 && alias == 0:
		e.fail("neither topic name nor topic alias")
	}
	mark := e.begin(PUBLISH, flags|p.QoS<<1)
	e.textBytes("topic name", p.Topic)
	if p.QoS > 0 {
		e.packetID(p.PacketID)
	}
	if e.version == V5 {
		props := len(e.dst)
		e.messageProperties(&p.Properties)
		e.number(topicAlias, uint32(alias))
		for _, id := range p.SubscriptionIDs {
			e.number(subscriptionID, id)
		}
		e.length(props, len(e.dst)-props)
	}
	e.finish(mark, p.Payload)
}

func (e *encoder) ack(p *Ack) {
	flags, ok := byte(0), p.Kind >= PUBACK && p.Kind <= PUBCOMP
	if !ok {
		e.fail("%v is no acknowledgement", p.Kind)
	}
	if p.Kind == PUBREL {
		flags = headerFlags[PUBREL]
	}
	mark := e.begin(p.Kind, flags)
	e.packetID(p.PacketID)
	e.outcome(p.Code, p.ReasonString, p.UserProperties)
	e.finish(mark, nil)
}

// outcome writes a reason code and its properties as short as it may be:
// nothing for a plain success (sections 3.4.2.1 and 3.4.2.2.1).
func (e *encoder) outcome(code ReasonCode, reason string, users []UserProperty) {
	plain := reason == "" && len(users) == 0
	if e.version != V5 || plain && code == Success {
		return
	}
	e.byte(byte(code))
	if plain {
		return
	}
	e.reasonProperties(reason, users)
}

func (e *encoder) reasonProperties(reason string, users []UserProperty) {
	if e.version != V5 {
		return
	}
	props := len(e.dst)
	e.property(reasonString, reason)
	e.userProperties(users)
	e.length(props, len(e.dst)-props)
}

func (e *encoder) subscribe(p *Subscribe) {
	mark := e.begin(SUBSCRIBE, headerFlags[SUBSCRIBE])
	e.packetID(p.PacketID)
	if e.version == V5 {
		props := len(e.dst)
		e.number(subscriptionID, p.ID)
		e.userProperties(p.UserProperties)
		e.length(props, len(e.dst)-props)
	}
	if len(p.Subscriptions) == 0 {
		e.fail("no topic filter")
	}
	for _, s := range p.Subscriptions {
		if s.QoS > 2 || s.RetainHandling > 2 {
			e.fail("QoS %d, retain handling %d", s.QoS, s.RetainHandling)
		}
		e.text("topic filter", s.Filter)
		options := s.QoS
		if e.version == V5 {
			options |= bit(s.NoLocal)<<2 | bit(s.RetainAsPublished)<<3 | s.RetainHandling<<4
		}
		e.byte(options)
	}
	e.finish(mark, nil)
}

func bit(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func (e *encoder) suback(p *Suback) {
	mark := e.begin(SUBACK, 0)
	e.packetID(p.PacketID)
	e.reasonProperties(p.ReasonString, p.UserProperties)
	if len(p.Codes) == 0 {
		e.fail("no reason code")
	}
	for _, c := range p.Codes {
		if e.version != V5 && c.Failed() {
			c = UnspecifiedError // the one failure of 3.1.1, section 3.9.3
		}
		e.byte(byte(c))
	}
	e.finish(mark, nil)
}

func (e *encoder) unsubscribe(p *Unsubscribe) {
	mark := e.begin(UNSUBSCRIBE, headerFlags[UNSUBSCRIBE])
	e.packetID(p.PacketID)
	if e.version == V5 {
		props := len(e.dst)
		e.userProperties(p.UserProperties)
		e.length(props, len(e.dst)-props)
	}
	if len(p.Filters) == 0 {
		e.fail("no topic filter")
	}
	for _, f := range p.Filters {
		e.text("topic filter", f)
	}
	e.finish(mark, nil)
}

func (e *encoder) unsuback(p *Unsuback) {
	mark := e.begin(UNSUBACK, 0)
	e.packetID(p.PacketID)
	e.reasonProperties(p.ReasonString, p.UserProperties)
	if e.version == V5 {
		if len(p.Codes) == 0 {
			e.fail("no reason code")
		}
		for _, c := range p.Codes {
			e.byte(byte(c))
		}
	}
	e.finish(mark, nil)
}

func (e *encoder) disconnect(p *Disconnect) {
	mark := e.begin(DISCONNECT, 0)
	if !p.HasSessionExpiry && p.ServerReference == "" {
		e.outcome(p.Code, p.ReasonString, p.UserProperties)
	} else if e.version == V5 {
		e.byte(byte(p.Code))
		props := len(e.dst)
		e.optional(sessionExpiry, p.SessionExpiry, p.HasSessionExpiry)
		e.property(reasonString, p.ReasonString)
		e.property(serverReference, p.ServerReference)
		e.userProperties(p.UserProperties)
		e.length(props, len(e.dst)-props)
	}
	e.finish(mark, nil)
}

func (e *encoder) auth(p *Auth) {
	mark := e.begin(AUTH, 0)
	empty := p.Method == "" && p.Data == nil && p.ReasonString == "" && len(p.UserProperties) == 0
	switch {
	case e.version != V5:
		e.fail("3.1.1 has no AUTH")
	case p.Method == "" && !(empty && p.Code == Success):
		e.fail("no authentication method")
	case !empty:
		e.byte(byte(p.Code))
		props := len(e.dst)
		e.authentication(p.Method, p.Data)
		e.property(reasonString, p.ReasonString)
		e.userProperties(p.UserProperties)
		e.length(props, len(e.dst)-props)
	}
	e.finish(mark, nil)
}
