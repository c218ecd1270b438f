package mqtt

import "encoding/binary"

// AliasSize is how many bytes AppendAliased adds to a PUBLISH at most: the
// property, and a byte more for each of the two lengths that grow.
const AliasSize = 5

// publishAt is where the parts of an encoded PUBLISH of MQTT 5 are.
type publishAt struct {
	topic, topicEnd int // without its length
	props, propsEnd int // without their length
}

// locate expects a frame as Append writes it for V5.
func locate(frame []byte) (at publishAt) {
	_, head := readVarint(frame[1:])
	at.topic = 1 + head + 2
	at.topicEnd = at.topic + int(binary.BigEndian.Uint16(frame[at.topic-2:]))
	id := at.topicEnd
	if frame[0]>>1&3 > 0 { // QoS 1 and 2 have a packet identifier
		id += 2
	}
	n, size := readVarint(frame[id:])
	at.props = id + size
	at.propsEnd = at.props + n
	return at
}

func readVarint(b []byte) (n, size int) {
	for shift := 0; ; shift += 7 {
		c := b[size]
		n |= int(c&0x7F) << shift
		if size++; c < 0x80 {
			return n, size
		}
	}
}

// PublishTopic is the topic name inside frame, a PUBLISH that Append has written
// for V5 without an alias.
func PublishTopic(frame []byte) []byte {
	at := locate(frame)
	return frame[at.topic:at.topicEnd]
}

// AppendAliased is frame behind dst with a topic alias, which is not 0: beside
// the topic name or, if the receiver knows the alias, in its place. frame is a
// PUBLISH that Append has written for V5 without an alias; it is not changed.
func AppendAliased(dst, frame []byte, alias uint16, known bool) []byte {
	at := locate(frame)
	topic := frame[at.topic:at.topicEnd]
	if known {
		topic = nil
	}
	id := frame[at.topicEnd : at.topicEnd+2*int(bit(frame[0]>>1&3 > 0))]
	var room [4]byte
	props := appendVarint(room[:0], uint32(3+at.propsEnd-at.props))
	tail := frame[at.props:]
	dst = append(dst, frame[0])
	dst = appendVarint(dst, uint32(2+len(topic)+len(id)+len(props)+3+len(tail)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic)))
	dst = append(dst, topic...)
	dst = append(dst, id...)
	dst = append(dst, props...)
	dst = append(dst, byte(topicAlias))
	dst = binary.BigEndian.AppendUint16(dst, alias)
	return append(dst, tail...)
}
