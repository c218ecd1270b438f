package broker

import "github.com/headgate-io/headgate/gateway/mqtt"

// aliases are the numbers under which one MQTT 5 client knows topics. The first
// topics that it is sent get one and keep it while the connection lasts; they go
// into frames on their way into the outbox, so that what many subscribers share
// stays as it is.
type aliases struct {
	most    int               // that the client takes
	packet  int               // bytes of a packet that it takes; 0: any number
	numbers map[string]uint16 // by topic
}

// minAliased is the shortest topic in whose place an alias never makes a packet
// longer: the property takes three bytes, the length of the properties may take
// one more.
const minAliased = 4

// newAliases returns nil for a client that takes none.
func newAliases(most, packet int) *aliases {
	if most == 0 {
		return nil
	}
	return &aliases{most: most, packet: packet, numbers: map[string]uint16{}}
}

// append puts the encoded PUBLISH f behind dst, with an alias if there is one or
// can be. A receiver of nil has none.
func (a *aliases) append(dst, f []byte) []byte {
	if a == nil {
		return append(dst, f...)
	}
	topic := mqtt.PublishTopic(f)
	number, known := a.numbers[string(topic)]
	switch {
	case known:
		return mqtt.AppendAliased(dst, f, number, true)
	case len(topic) < minAliased, len(a.numbers) == a.most, a.packet > 0 && len(f)+mqtt.AliasSize > a.packet: // [MQTT-3.1.2-24]
		return append(dst, f...)
	}
	number = uint16(len(a.numbers) + 1)
	a.numbers[string(topic)] = number // [MQTT-3.1.2-26]
	return mqtt.AppendAliased(dst, f, number, false)
}
