package mqtt

import (
	"bytes"
	"math"
)

// The bits of the connect flags (section 3.1.2.3).
const (
	connectReserved   = 0x01
	connectCleanStart = 0x02
	connectWill       = 0x04
	connectWillQoS    = 0x18
	connectWillRetain = 0x20
	connectPassword   = 0x40
	connectUsername   = 0x80
)

func (d *Decoder) readConnect(b *body) *Connect {
	name, level := b.binary(), Version(b.byte())
	if b.err != nil {
		return nil
	}
	if string(name) != "MQTT" && string(name) != "MQIsdp" {
		b.fail(UnsupportedProtocolVersion, "MQTT-3.1.2-1", "protocol name is not MQTT")
		return nil
	}
	d.opened, d.version, b.version = true, level, level
	if string(name) == "MQIsdp" || level != V311 && level != V5 {
		b.fail(UnsupportedProtocolVersion, "MQTT-3.1.2-2", "protocol %s level %d", name, level)
		return nil
	}
	flags := b.byte()
	b.checkConnectFlags(flags)
	p := &Connect{
		Version:      level,
		CleanStart:   flags&connectCleanStart != 0,
		UsernameFlag: flags&connectUsername != 0,
		PasswordFlag: flags&connectPassword != 0,
		KeepAlive:    b.uint16(),
	}
	b.readProperties(CONNECT)
	if b.err != nil {
		return nil
	}
	b.connectProperties(p)
	p.ClientID = string(b.text()) // [MQTT-3.1.3-3]
	if p.ClientID == "" && !p.CleanStart && level == V311 {
		b.fail(ClientIdentifierNotValid, "MQTT-3.1.3-8 of 3.1.1", "no client identifier for a session that is kept")
	}
	if flags&connectWill != 0 {
		p.Will = b.readWill(flags)
	}
	if p.UsernameFlag {
		p.Username = string(b.text()) // [MQTT-3.1.3-12]
	}
	if p.PasswordFlag {
		p.Password = bytes.Clone(b.binary())
	}
	return p
}

func (b *body) checkConnectFlags(flags byte) {
	withWill := flags&connectWill != 0
	switch {
	case flags&connectReserved != 0:
		b.fail(MalformedPacket, "MQTT-3.1.2-3", "reserved connect flag is set")
	case !withWill && flags&connectWillQoS != 0:
		b.fail(MalformedPacket, "MQTT-3.1.2-11", "will QoS without a will")
	case flags&connectWillQoS == connectWillQoS:
		b.fail(MalformedPacket, "MQTT-3.1.2-12", "will QoS is 3")
	case !withWill && flags&connectWillRetain != 0:
		b.fail(MalformedPacket, "MQTT-3.1.2-13", "will retain without a will")
	case b.version == V311 && flags&connectPassword != 0 && flags&connectUsername == 0:
		b.fail(MalformedPacket, "MQTT-3.1.2-22 of 3.1.1", "password without a user name")
	}
}

func (b *body) connectProperties(p *Connect) {
	absentExpiry := uint32(0)
	if b.version == V311 && !p.CleanStart {
		absentExpiry = math.MaxUint32
	}
	s := &b.set
	p.SessionExpiry = s.number(sessionExpiry, absentExpiry)
	p.ReceiveMaximum = uint16(s.number(receiveMaximum, math.MaxUint16))
	p.MaximumPacket = s.number(maximumPacket, 0)
	p.TopicAliasMax = uint16(s.number(topicAliasMax, 0))
	p.RequestResponse = s.flag(requestResponse, false)
	p.RequestProblem = s.flag(requestProblem, true)
	p.AuthMethod, p.AuthData = b.readAuthentication()
	p.UserProperties = s.users
}

func (b *body) readWill(flags byte) *Will {
	b.readProperties(will)
	if b.err != nil {
		return nil
	}
	w := &Will{
		QoS:        flags & connectWillQoS >> 3,
		Retain:     flags&connectWillRetain != 0,
		Delay:      b.set.number(willDelay, 0),
		Properties: b.messageProperties(),
	}
	w.CorrelationData = bytes.Clone(w.CorrelationData)
	w.Topic = string(b.text()) // [MQTT-3.1.3-11]
	w.Payload = bytes.Clone(b.binary())
	if b.err == nil {
		if err := checkTopic(w.Topic); err != nil {
			b.fail(err.Code, err.Clause, "will: %s", err.Text)
		}
	}
	return w
}

func readConnack(b *body) *Connack {
	p := &Connack{Version: b.version}
	flags := b.byte()
	if flags&^1 != 0 {
		b.fail(MalformedPacket, "MQTT-3.2.2-1", "reserved connect acknowledge flags are set")
	}
	p.SessionPresent = flags&1 != 0
	if b.version == V311 {
		code := b.byte()
		if int(code) >= len(returnCodes) {
			b.fail(MalformedPacket, "section 3.2.2.3 of 3.1.1", "return code %d in CONNACK", code)
			return nil
		}
		p.Code = returnCodes[code]
	} else {
		p.Code = b.reasonCode(CONNACK)
	}
	if p.SessionPresent && p.Code != Success {
		b.fail(ProtocolError, "MQTT-3.2.2-6", "session present in a refusal")
	}
	b.readProperties(CONNACK)
	if b.err == nil {
		b.connackProperties(p)
	}
	return p
}

func (b *body) connackProperties(p *Connack) {
	s := &b.set
	p.SessionExpiry = s.number(sessionExpiry, 0)
	p.HasSessionExpiry = s.has(sessionExpiry)
	p.ReceiveMaximum = uint16(s.number(receiveMaximum, math.MaxUint16))
	p.MaximumQoS = byte(s.number(maximumQoS, 2))
	p.RetainAvailable = s.flag(retainAvailable, true)
	p.MaximumPacket = s.number(maximumPacket, 0)
	p.AssignedClientID = b.propertyText(assignedClientID)
	p.TopicAliasMax = uint16(s.number(topicAliasMax, 0))
	p.ReasonString = b.propertyText(reasonString)
	p.UserProperties = s.users
	p.WildcardAvailable = s.flag(wildcardAvailable, true)
	p.SubscriptionIDs = s.flag(subscriptionIDs, true)
	p.SharedAvailable = s.flag(sharedAvailable, true)
	p.ServerKeepAlive = uint16(s.number(serverKeepAlive, 0))
	p.HasServerKeepAlive = s.has(serverKeepAlive)
	p.ResponseInformation = b.propertyText(responseInformation)
	p.ServerReference = b.propertyText(serverReference)
	p.AuthMethod, p.AuthData = b.readAuthentication()
}
