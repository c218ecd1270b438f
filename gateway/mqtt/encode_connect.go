package mqtt

import "math"

func (e *encoder) connect(p *Connect) {
	if p.Version != 0 {
		e.version = p.Version
	}
	if e.version != V311 && e.version != V5 {
		e.fail("protocol level %d", e.version)
	}
	if e.version == V311 && p.PasswordFlag && !p.UsernameFlag {
		e.fail("password without a user name")
	}
	mark := e.begin(CONNECT, 0)
	e.text("protocol name", "MQTT")
	e.byte(byte(e.version))
	e.byte(connectFlags(p))
	e.uint16(p.KeepAlive)
	if e.version == V5 {
		e.connectProperties(p)
	}
	e.text("client identifier", p.ClientID)
	if p.Will != nil {
		e.will(p.Will)
	}
	if p.UsernameFlag {
		e.text("user name", p.Username)
	}
	if p.PasswordFlag {
		e.binary("password", p.Password)
	}
	e.finish(mark, nil)
}

func connectFlags(p *Connect) byte {
	flags := bit(p.CleanStart)*connectCleanStart |
		bit(p.UsernameFlag)*connectUsername |
		bit(p.PasswordFlag)*connectPassword
	if w := p.Will; w != nil {
		flags |= connectWill | w.QoS<<3&connectWillQoS | bit(w.Retain)*connectWillRetain
	}
	return flags
}

func (e *encoder) connectProperties(p *Connect) {
	props := len(e.dst)
	e.number(sessionExpiry, p.SessionExpiry)
	e.receiveMaximum(p.ReceiveMaximum)
	e.number(maximumPacket, p.MaximumPacket)
	e.number(topicAliasMax, uint32(p.TopicAliasMax))
	e.flag(requestResponse, p.RequestResponse, false)
	e.flag(requestProblem, p.RequestProblem, true)
	e.authentication(p.AuthMethod, p.AuthData)
	e.userProperties(p.UserProperties)
	e.length(props, len(e.dst)-props)
}

// receiveMaximum takes 0, which the protocol does not know, for absent.
func (e *encoder) receiveMaximum(n uint16) {
	if n != math.MaxUint16 {
		e.number(receiveMaximum, uint32(n))
	}
}

func (e *encoder) will(w *Will) {
	if w.QoS > 2 {
		e.fail("will QoS %d", w.QoS)
	}
	if e.version == V5 {
		props := len(e.dst)
		e.number(willDelay, w.Delay)
		e.messageProperties(&w.Properties)
		e.length(props, len(e.dst)-props)
	}
	e.text("will topic", w.Topic)
	e.binary("will payload", w.Payload)
}

func (e *encoder) connack(p *Connack) {
	if p.Version != 0 {
		e.version = p.Version
	}
	mark := e.begin(CONNACK, 0)
	e.byte(bit(p.SessionPresent && p.Code == Success)) // [MQTT-3.2.2-6]
	if e.version >= V5 {
		e.byte(byte(p.Code))
		e.connackProperties(p)
	} else {
		code, ok := p.Code.returnCode()
		if !ok {
			e.fail("3.1.1 has no return code for %q", p.Code)
		}
		e.byte(code)
	}
	e.finish(mark, nil)
}

func (e *encoder) connackProperties(p *Connack) {
	props := len(e.dst)
	if p.Code == Success {
		e.limits(p)
	}
	e.property(reasonString, p.ReasonString)
	e.userProperties(p.UserProperties)
	e.property(serverReference, p.ServerReference)
	e.authentication(p.AuthMethod, p.AuthData)
	e.length(props, len(e.dst)-props)
}

// limits are what a server says about a session it has opened.
func (e *encoder) limits(p *Connack) {
	e.optional(sessionExpiry, p.SessionExpiry, p.HasSessionExpiry)
	e.receiveMaximum(p.ReceiveMaximum)
	e.optional(maximumQoS, uint32(p.MaximumQoS), p.MaximumQoS < 2)
	e.flag(retainAvailable, p.RetainAvailable, true)
	e.number(maximumPacket, p.MaximumPacket)
	e.property(assignedClientID, p.AssignedClientID)
	e.number(topicAliasMax, uint32(p.TopicAliasMax))
	e.flag(wildcardAvailable, p.WildcardAvailable, true)
	e.flag(subscriptionIDs, p.SubscriptionIDs, true)
	e.flag(sharedAvailable, p.SharedAvailable, true)
	e.optional(serverKeepAlive, uint32(p.ServerKeepAlive), p.HasServerKeepAlive)
	e.property(responseInformation, p.ResponseInformation)
}
