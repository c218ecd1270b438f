package mqtt

// property is the identifier of an MQTT 5 property (table 2-4).
type property byte

const (
	payloadFormat       property = 0x01
	messageExpiry       property = 0x02
	contentType         property = 0x03
	responseTopic       property = 0x08
	correlationData     property = 0x09
	subscriptionID      property = 0x0B
	sessionExpiry       property = 0x11
	assignedClientID    property = 0x12
	serverKeepAlive     property = 0x13
	authMethod          property = 0x15
	authData            property = 0x16
	requestProblem      property = 0x17
	willDelay           property = 0x18
	requestResponse     property = 0x19
	responseInformation property = 0x1A
	serverReference     property = 0x1C
	reasonString        property = 0x1F
	receiveMaximum      property = 0x21
	topicAliasMax       property = 0x22
	topicAlias          property = 0x23
	maximumQoS          property = 0x24
	retainAvailable     property = 0x25
	userProperty        property = 0x26
	maximumPacket       property = 0x27
	wildcardAvailable   property = 0x28
	subscriptionIDs     property = 0x29
	sharedAvailable     property = 0x2A
	propertyCount                = 0x2B
	will                Type     = 0 // the will's own properties in a CONNECT
	maxUserProperties            = 256
	maxUserBytes                 = 64 << 10 // of all their names and values
)

// wireType is how a property's value is written (section 1.5).
type wireType byte

const (
	asFlag    wireType = iota // a byte that is 0 or 1
	asNumber2                 // two byte integer
	asNumber4                 // four byte integer
	asVarint                  // variable byte integer
	asText                    // UTF-8 string
	asBinary                  // binary data
	asPair                    // UTF-8 string pair
)

// carriers is a set of packet types, a bit each.
type carriers uint16

func in(types ...Type) (set carriers) {
	for _, t := range types {
		set |= 1 << t
	}
	return set
}

func (c carriers) has(t Type) bool { return c>>t&1 == 1 }

const everywhere = ^carriers(0)

// properties is table 2-4: which property stands in which packet, and as what.
var properties = [propertyCount]struct {
	name    string
	wire    wireType
	in      carriers
	nonzero bool // zero is a protocol error
}{
	payloadFormat:       {"payload format indicator", asFlag, in(PUBLISH, will), false},
	messageExpiry:       {"message expiry interval", asNumber4, in(PUBLISH, will), false},
	contentType:         {"content type", asText, in(PUBLISH, will), false},
	responseTopic:       {"response topic", asText, in(PUBLISH, will), false},
	correlationData:     {"correlation data", asBinary, in(PUBLISH, will), false},
	subscriptionID:      {"subscription identifier", asVarint, in(PUBLISH, SUBSCRIBE), true},
	sessionExpiry:       {"session expiry interval", asNumber4, in(CONNECT, CONNACK, DISCONNECT), false},
	assignedClientID:    {"assigned client identifier", asText, in(CONNACK), false},
	serverKeepAlive:     {"server keep alive", asNumber2, in(CONNACK), false},
	authMethod:          {"authentication method", asText, in(CONNECT, CONNACK, AUTH), false},
	authData:            {"authentication data", asBinary, in(CONNECT, CONNACK, AUTH), false},
	requestProblem:      {"request problem information", asFlag, in(CONNECT), false},
	willDelay:           {"will delay interval", asNumber4, in(will), false},
	requestResponse:     {"request response information", asFlag, in(CONNECT), false},
	responseInformation: {"response information", asText, in(CONNACK), false},
	serverReference:     {"server reference", asText, in(CONNACK, DISCONNECT), false},
	reasonString: {"reason string", asText,
		in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH), false},
	receiveMaximum:    {"receive maximum", asNumber2, in(CONNECT, CONNACK), true},
	topicAliasMax:     {"topic alias maximum", asNumber2, in(CONNECT, CONNACK), false},
	topicAlias:        {"topic alias", asNumber2, in(PUBLISH), false}, // zero has a code of its own
	maximumQoS:        {"maximum QoS", asFlag, in(CONNACK), false},
	retainAvailable:   {"retain available", asFlag, in(CONNACK), false},
	userProperty:      {"user property", asPair, everywhere, false},
	maximumPacket:     {"maximum packet size", asNumber4, in(CONNECT, CONNACK), true},
	wildcardAvailable: {"wildcard subscription available", asFlag, in(CONNACK), false},
	subscriptionIDs:   {"subscription identifiers available", asFlag, in(CONNACK), false},
	sharedAvailable:   {"shared subscription available", asFlag, in(CONNACK), false},
}

// propertySet is what one packet's properties said. Values that were not seen
// are leftovers of earlier packets.
type propertySet struct {
	seen  uint64                // a bit per identifier
	value [propertyCount]uint32 // the number, or where in the body the string starts
	users []UserProperty
	bytes int      // of users
	ids   []uint32 // subscription identifiers
}

// readProperties reads the properties of a packet of type t. 3.1.1 has none.
func (b *body) readProperties(t Type) {
	b.set.seen, b.set.users, b.set.bytes, b.set.ids = 0, nil, 0, nil
	if b.version != V5 {
		return
	}
	n := int(b.varint())
	if n > b.left() {
		b.fail(MalformedPacket, "section 2.2.2.1", "property length reaches past the packet")
		return
	}
	whole := b.data
	b.data = b.data[:b.at+n] // no property reaches past the property length
	for b.err == nil && b.left() > 0 {
		b.readProperty(t)
	}
	b.data = whole
}

func (b *body) readProperty(t Type) {
	id := b.varint()
	if b.err != nil {
		return
	}
	if id >= propertyCount || !properties[id].in.has(t) || properties[id].name == "" {
		b.fail(MalformedPacket, "section 2.2.2.2", "property 0x%02X does not belong in this packet", id)
		return
	}
	rule := &properties[id]
	repeats := property(id) == userProperty || property(id) == subscriptionID && t == PUBLISH
	if b.set.has(property(id)) && !repeats {
		b.fail(ProtocolError, "section 2.2.2.2", "%s given twice", rule.name)
		return
	}
	b.set.seen |= 1 << id
	b.set.value[id] = b.readValue(rule.wire)
	switch {
	case b.err != nil:
	case rule.wire == asFlag && b.set.value[id] > 1:
		b.fail(ProtocolError, "section 2.2.2.2", "%s is neither 0 nor 1", rule.name)
	case rule.nonzero && b.set.value[id] == 0:
		b.fail(ProtocolError, "section 2.2.2.2", "%s is 0", rule.name)
	case property(id) == subscriptionID:
		b.set.ids = append(b.set.ids, b.set.value[id])
	}
}

// readValue returns a number, or the position of a string.
func (b *body) readValue(w wireType) uint32 {
	start := uint32(b.at)
	switch w {
	case asFlag:
		return uint32(b.byte())
	case asNumber2:
		return uint32(b.uint16())
	case asNumber4:
		return b.uint32()
	case asVarint:
		return b.varint()
	case asText:
		b.text()
	case asBinary:
		b.binary()
	case asPair:
		b.readUserProperty()
	}
	return start
}

func (b *body) readUserProperty() {
	// The standard sets no limit; without one, five bytes on the wire cost
	// ten times as much in memory.
	if len(b.set.users) == maxUserProperties {
		b.fail(QuotaExceeded, "", "more than %d user properties", maxUserProperties)
		return
	}
	key, value := b.text(), b.text() // [MQTT-1.5.7-1]
	if b.set.bytes += len(key) + len(value); b.set.bytes > maxUserBytes {
		b.fail(QuotaExceeded, "", "user properties of more than %d bytes", maxUserBytes)
		return
	}
	b.set.users = append(b.set.users, UserProperty{string(key), string(value)})
}

func (s *propertySet) has(id property) bool { return s.seen>>id&1 == 1 }

// number is the value of a numeric property, or absent.
func (s *propertySet) number(id property, absent uint32) uint32 {
	if s.has(id) {
		return s.value[id]
	}
	return absent
}

func (s *propertySet) flag(id property, absent bool) bool {
	if s.has(id) {
		return s.value[id] == 1
	}
	return absent
}

// propertyBytes is the value of a string or binary property inside the body,
// nil when absent.
func (b *body) propertyBytes(id property) []byte {
	if !b.set.has(id) {
		return nil
	}
	at := int(b.set.value[id])
	end := at + 2 + int(b.data[at])<<8 + int(b.data[at+1])
	return b.data[at+2 : end : end]
}

func (b *body) propertyText(id property) string { return string(b.propertyBytes(id)) }
