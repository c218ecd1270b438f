package mqtt

import "bytes"

// decode reads the packet behind a fixed header of head bytes.
func (d *Decoder) decode(first byte, head int, data []byte) (Packet, error) {
	b := &d.in
	b.version, b.data, b.at, b.err = d.version, data, 0, nil
	p := d.fields(first, b)
	b.finish()
	// 3.1.1 lets the remaining length be padded, MQTT 5 does not. The version of
	// a CONNECT is known only now.
	if head > 2 && len(data)>>(7*(head-2)) == 0 && b.version == V5 {
		b.fail(MalformedPacket, "MQTT-1.5.5-1", "remaining length is longer than needed")
	}
	if b.err != nil {
		d.err = b.err
		return nil, b.err
	}
	return p, nil
}

func (d *Decoder) fields(first byte, b *body) Packet {
	switch t := Type(first >> 4); t {
	case CONNECT:
		return d.readConnect(b)
	case CONNACK:
		return readConnack(b)
	case PUBLISH:
		return d.readPublish(first, b)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return d.readAck(t, b)
	case SUBSCRIBE:
		return readSubscribe(b)
	case SUBACK:
		return readSuback(b)
	case UNSUBSCRIBE:
		return readUnsubscribe(b)
	case UNSUBACK:
		return readUnsuback(b)
	case PINGREQ:
		return &Pingreq{}
	case PINGRESP:
		return &Pingresp{}
	case DISCONNECT:
		return readDisconnect(b)
	default:
		return readAuth(b)
	}
}

func (d *Decoder) readPublish(first byte, b *body) *Publish {
	p := &d.publish
	*p = Publish{Dup: first&8 != 0, QoS: first >> 1 & 3, Retain: first&1 != 0}
	switch {
	case p.QoS == 3:
		b.fail(MalformedPacket, "MQTT-3.3.1-4", "QoS 3 in PUBLISH")
	case p.Dup && p.QoS == 0:
		b.fail(MalformedPacket, "MQTT-3.3.1-2", "DUP in a PUBLISH of QoS 0")
	}
	p.Topic = b.text()
	if p.QoS > 0 {
		p.PacketID = b.packetID()
	}
	b.readProperties(PUBLISH)
	if b.err == nil && b.set.seen != 0 {
		p.TopicAlias = uint16(b.set.number(topicAlias, 0))
		p.SubscriptionIDs = b.set.ids
		p.Properties = b.messageProperties()
	}
	p.Payload = b.rest()
	if b.err != nil {
		return nil
	}
	if b.set.has(topicAlias) && p.TopicAlias == 0 {
		b.fail(TopicAliasInvalid, "MQTT-3.3.2-8", "topic alias is 0")
	}
	if len(p.Topic) > 0 {
		if err := checkTopic(p.Topic); err != nil {
			b.fail(err.Code, "MQTT-3.3.2-2", "%s", err.Text)
		}
	} else if p.TopicAlias == 0 {
		b.fail(ProtocolError, "section 3.3.2.1", "PUBLISH with neither topic name nor topic alias")
	}
	return p
}

// messageProperties are the properties that a PUBLISH and a will share.
// CorrelationData is not copied.
func (b *body) messageProperties() Properties {
	p := Properties{
		Text:             b.set.flag(payloadFormat, false),
		MessageExpiry:    b.set.number(messageExpiry, 0),
		HasMessageExpiry: b.set.has(messageExpiry),
		ContentType:      b.propertyText(contentType),
		ResponseTopic:    b.propertyText(responseTopic),
		CorrelationData:  b.propertyBytes(correlationData),
		UserProperties:   b.set.users,
	}
	if b.err == nil && b.set.has(responseTopic) {
		if err := checkTopic(p.ResponseTopic); err != nil {
			b.fail(ProtocolError, "MQTT-3.3.2-14", "response topic: %s", err.Text)
		}
	}
	return p
}

func (d *Decoder) readAck(t Type, b *body) *Ack {
	p := &d.ack
	*p = Ack{Kind: t, PacketID: b.packetID()}
	if b.version != V5 || b.left() == 0 {
		return p
	}
	p.Code = b.reasonCode(t)
	p.ReasonString, p.UserProperties = b.reasonProperties(t)
	return p
}

// reasonProperties reads properties that may be left out with their length
// (sections 3.4.2.2.1 and 3.14.2.2.1).
func (b *body) reasonProperties(t Type) (reason string, users []UserProperty) {
	b.set.seen, b.set.users = 0, nil
	if b.left() > 0 {
		b.readProperties(t)
	}
	if b.err != nil {
		return "", nil
	}
	return b.propertyText(reasonString), b.set.users
}

func readSubscribe(b *body) *Subscribe {
	p := &Subscribe{PacketID: b.packetID()}
	b.readProperties(SUBSCRIBE)
	if b.err != nil {
		return nil
	}
	p.UserProperties = b.set.users
	p.ID = b.set.number(subscriptionID, 0)
	count := b.countStrings(1)
	if count == 0 {
		b.fail(ProtocolError, "MQTT-3.8.3-2", "SUBSCRIBE without a topic filter")
		return nil
	}
	p.Subscriptions = make([]Subscription, 0, count)
	for b.err == nil && b.left() > 0 {
		p.Subscriptions = append(p.Subscriptions, b.readSubscription())
	}
	return p
}

func (b *body) readSubscription() Subscription {
	filter, options := b.readFilter(), b.byte()
	s := Subscription{
		Filter:            filter,
		QoS:               options & 3,
		NoLocal:           options&4 != 0,
		RetainAsPublished: options&8 != 0,
		RetainHandling:    options >> 4 & 3,
	}
	_, _, shared := SplitShared(filter)
	switch {
	case b.version == V311 && options > 2:
		b.fail(MalformedPacket, "MQTT-3.8.3-4 of 3.1.1", "QoS 3 or reserved bits in SUBSCRIBE")
	case options&0xC0 != 0:
		b.fail(MalformedPacket, "MQTT-3.8.3-5", "reserved bits in the subscription options")
	case s.QoS == 3:
		b.fail(ProtocolError, "section 3.8.3.1", "QoS 3 in SUBSCRIBE")
	case s.RetainHandling == 3:
		b.fail(ProtocolError, "section 3.8.3.1", "retain handling 3 in SUBSCRIBE")
	case s.NoLocal && shared:
		b.fail(ProtocolError, "MQTT-3.8.3-4", "no local on a shared subscription")
	}
	return s
}

func (b *body) readFilter() string {
	filter := string(b.text())
	if b.err == nil {
		if err := checkFilter(filter); err != nil {
			b.fail(err.Code, err.Clause, "%s", err.Text)
		}
	}
	return filter
}

// countStrings counts the strings up to the end of the packet, each followed by
// tail bytes, so that a list is allocated once and only for what is there.
func (b *body) countStrings(tail int) (count int) {
	for at := b.at; at+2 <= len(b.data); count++ {
		at += 2 + int(b.data[at])<<8 + int(b.data[at+1]) + tail
	}
	return count
}

func readSuback(b *body) *Suback {
	p := &Suback{PacketID: b.packetID()}
	if b.version == V5 {
		p.ReasonString, p.UserProperties = b.reasonProperties(SUBACK)
	}
	if p.Codes = b.reasonCodes(SUBACK); len(p.Codes) == 0 {
		b.fail(ProtocolError, "MQTT-3.8.4-6", "SUBACK without a reason code")
	}
	for _, c := range p.Codes {
		if b.version == V311 && c > GrantedQoS2 && c != UnspecifiedError {
			b.fail(ProtocolError, "MQTT-3.9.3-2 of 3.1.1", "return code 0x%02X in SUBACK", byte(c))
		}
	}
	return p
}

// reasonCodes reads reason codes up to the end of the packet.
func (b *body) reasonCodes(t Type) []ReasonCode {
	if b.err != nil {
		return nil
	}
	codes := make([]ReasonCode, 0, b.left())
	for b.err == nil && b.left() > 0 {
		codes = append(codes, b.reasonCode(t))
	}
	return codes
}

func readUnsubscribe(b *body) *Unsubscribe {
	p := &Unsubscribe{PacketID: b.packetID()}
	b.readProperties(UNSUBSCRIBE)
	if b.err != nil {
		return nil
	}
	p.UserProperties = b.set.users
	count := b.countStrings(0)
	if count == 0 {
		b.fail(ProtocolError, "MQTT-3.10.3-2", "UNSUBSCRIBE without a topic filter")
		return nil
	}
	p.Filters = make([]string, 0, count)
	for b.err == nil && b.left() > 0 {
		p.Filters = append(p.Filters, b.readFilter())
	}
	return p
}

func readUnsuback(b *body) *Unsuback {
	p := &Unsuback{PacketID: b.packetID()}
	if b.version != V5 {
		return p
	}
	p.ReasonString, p.UserProperties = b.reasonProperties(UNSUBACK)
	if p.Codes = b.reasonCodes(UNSUBACK); len(p.Codes) == 0 {
		b.fail(ProtocolError, "section 3.11.3", "UNSUBACK without a reason code")
	}
	return p
}

func readDisconnect(b *body) *Disconnect {
	p := &Disconnect{}
	if b.version != V5 || b.left() == 0 {
		return p
	}
	p.Code = b.reasonCode(DISCONNECT)
	p.ReasonString, p.UserProperties = b.reasonProperties(DISCONNECT)
	if b.err != nil {
		return nil
	}
	p.SessionExpiry = b.set.number(sessionExpiry, 0)
	p.HasSessionExpiry = b.set.has(sessionExpiry)
	p.ServerReference = b.propertyText(serverReference)
	return p
}

func readAuth(b *body) *Auth {
	p := &Auth{}
	if b.left() == 0 { // section 3.15.2.1
		return p
	}
	p.Code = b.reasonCode(AUTH)
	p.ReasonString, p.UserProperties = b.reasonProperties(AUTH)
	p.Method, p.Data = b.readAuthentication()
	if b.err == nil && p.Method == "" {
		b.fail(ProtocolError, "section 3.15.2.2.2", "AUTH without an authentication method")
	}
	return p
}

// readAuthentication returns the authentication properties, copied.
func (b *body) readAuthentication() (method string, data Secret) {
	if b.err != nil {
		return "", nil
	}
	method = b.propertyText(authMethod)
	data = bytes.Clone(b.propertyBytes(authData))
	switch {
	case method == "" && b.set.has(authMethod):
		b.fail(ProtocolError, "section 3.1.2.11.9", "authentication method is empty")
	case method == "" && data != nil:
		b.fail(ProtocolError, "section 3.1.2.11.10", "authentication data without a method")
	}
	return method, data
}
