package northbound

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// The properties of a PUBLISH that we send [MQTT-3.3.2.3].
const (
	propPayloadFormat   = 0x01
	propMessageExpiry   = 0x02
	propContentType     = 0x03
	propResponseTopic   = 0x08
	propCorrelationData = 0x09
	propTopicAlias      = 0x23
	propUser            = 0x26

	propID     = "hg-id"
	propPrev   = "hg-prev"
	propReplay = "hg-replay"
	maxString  = math.MaxUint16 // bytes [MQTT-1.5.4]
	aliasSize  = 3              // of the property
)

// A publication is one message as the cloud shall see it. Its encoding is ours
// because it is done for every message: the client library's takes a dozen
// allocations for each.
type publication struct {
	topic  string
	qos    byte
	dup    bool // it may have come before, under the same packet id
	retain bool
	old    bool   // for MQTT 3.1.1, which has no properties
	props  []byte // encoded, without their length
	body   []byte
}

var errName = errors.New("a name is empty or too long for MQTT")

// publication prepares m for a route. props is room to use.
func (l *Link) publication(m *storequeue.Message, r *Route, now time.Time, props []byte) (publication, error) {
	p := publication{topic: r.rename(m.Topic), qos: r.sendQoS(), retain: m.Retain && r.Retain != RetainClear, props: props[:0], body: m.Payload, old: l.cfg.Old}
	reply := l.replyTopic(l.routes.Load().receive, m.ResponseTopic)
	if p.topic == "" || len(p.topic) > maxString || len(reply) > maxString {
		return p, errName
	}
	if m.Text {
		p.props = append(p.props, propPayloadFormat, 1)
	}
	if !m.Expires.IsZero() { // [MQTT-3.3.2-6]
		left := min((m.Expires.Sub(now)+time.Second-1)/time.Second, math.MaxUint32)
		p.props = binary.BigEndian.AppendUint32(append(p.props, propMessageExpiry), uint32(left))
	}
	if m.ContentType != "" {
		p.props = appendText(append(p.props, propContentType), m.ContentType)
	}
	if reply != "" {
		p.props = appendText(append(p.props, propResponseTopic), reply)
	}
	if m.CorrelationData != nil {
		p.props = appendText(append(p.props, propCorrelationData), m.CorrelationData)
	}
	p.props = appendText(append(p.props, propUser), propID)
	prev := m.Prev
	if m.Origin != "" { // it was taken elsewhere, under that id
		p.props = appendText(p.props, m.Origin)
		prev = 0
	} else {
		p.props = binary.BigEndian.AppendUint16(p.props, uint16(len(l.idPrefix)+digits(m.Seq)))
		p.props = strconv.AppendUint(append(p.props, l.idPrefix...), m.Seq, 10)
	}
	p.props = appendText(append(p.props, propUser), propPrev)
	p.props = binary.BigEndian.AppendUint16(p.props, uint16(digits(prev)))
	p.props = strconv.AppendUint(p.props, prev, 10)
	for _, u := range m.Properties {
		if u.Key == propID && strings.HasPrefix(u.Value, l.ownPrefix) {
			continue // nobody else gives ids in our name
		}
		p.props = appendText(appendText(append(p.props, propUser), u.Key), u.Value)
	}
	return p, nil
}

// rest is the packet's length behind the fixed header.
func (p *publication) rest() int {
	n := 2 + len(p.topic) + len(p.body)
	if !p.old {
		n += varintSize(len(p.props)) + len(p.props)
	}
	if p.qos > 0 {
		n += 2
	}
	return n
}

// size is the packet's length on the wire.
func (p *publication) size() int { return 1 + varintSize(p.rest()) + p.rest() }

// appendHead encodes everything before the payload.
func (p *publication) appendHead(dst []byte, id uint16) []byte {
	first := byte(0x30) | p.qos<<1
	if p.retain {
		first |= 1
	}
	if p.dup {
		first |= 8
	}
	dst = binary.AppendUvarint(append(dst, first), uint64(p.rest()))
	dst = appendText(dst, p.topic)
	if p.qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	if p.old {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.props)))
	return append(dst, p.props...)
}

// appendText encodes a string of at most maxString bytes: topics are checked,
// everything else came in as an MQTT string of that bound.
func appendText[S string | []byte](dst []byte, s S) []byte {
	s = s[:min(len(s), maxString)]
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// varintSize is the length of a variable byte integer [MQTT-1.5.5-1].
func varintSize(n int) int {
	size := 1
	for ; n >= 128; n /= 128 {
		size++
	}
	return size
}

func digits(n uint64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}
