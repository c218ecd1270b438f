package mqtt

import "encoding/binary"

// number writes a numeric property that is absent when 0.
func (e *encoder) number(id property, n uint32) { e.optional(id, n, n != 0) }

// optional writes a numeric property if it is present.
func (e *encoder) optional(id property, n uint32, present bool) {
	if !present {
		return
	}
	e.byte(byte(id))
	switch properties[id].wire {
	case asFlag:
		e.byte(byte(n))
	case asNumber2:
		e.uint16(uint16(n))
	case asNumber4:
		e.dst = binary.BigEndian.AppendUint32(e.dst, n)
	case asVarint:
		if n > maxSize-5 {
			e.fail("%s %d is too large", properties[id].name, n)
		}
		e.dst = appendVarint(e.dst, n)
	}
}

// flag writes a property whose absence means the value absent.
func (e *encoder) flag(id property, set, absent bool) {
	e.optional(id, uint32(bit(set)), set != absent)
}

// property writes a string that is absent when empty.
func (e *encoder) property(id property, s string) {
	if s != "" {
		e.byte(byte(id))
		e.text(properties[id].name, s)
	}
}

// data writes binary data that is absent when nil.
func (e *encoder) data(id property, s []byte) {
	if s != nil {
		e.byte(byte(id))
		e.binary(properties[id].name, s)
	}
}

func (e *encoder) userProperties(users []UserProperty) {
	for i := range users {
		e.byte(byte(userProperty))
		e.text("user property", users[i].Key)
		e.text("user property", users[i].Value)
	}
}

func (e *encoder) messageProperties(p *Properties) {
	e.flag(payloadFormat, p.Text, false)
	e.optional(messageExpiry, p.MessageExpiry, p.HasMessageExpiry)
	e.property(contentType, p.ContentType)
	e.property(responseTopic, p.ResponseTopic)
	e.data(correlationData, p.CorrelationData)
	e.userProperties(p.UserProperties)
}

func (e *encoder) authentication(method string, data []byte) {
	e.property(authMethod, method)
	e.data(authData, data)
}
