package storequeue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math"
	"time"
)

// A record is a message at rest, version 1, or 2 if it has a note, or 3 if it
// has an origin:
//
//	version  1 byte
//	flags    1 byte: 0-1 QoS, 2 retain, 3 text, 4 expires, 5 correlation data, 6 note in version 3
//	marks    uvarint n, then n times: uvarint reader, byte QoS, byte flags
//	note     uvarint length, bytes; in version 2, and in 3 if flagged
//	origin   uvarint length, bytes; version 3 only
//	time     8 bytes, Unix milliseconds
//	expires  8 bytes, if flagged
//	topic, from, content type, response topic: uvarint length, bytes
//	correlation data, if flagged: uvarint length, bytes
//	properties: uvarint n, then n times key and value
//	payload: uvarint length, bytes
//	CRC32C   4 bytes over all of the above, the epoch and the sequence
//
// Epoch and sequence are not stored again: they are the place where the record
// lies, so a record that was moved does not verify.
const (
	recordVersion  = 1
	recordNoted    = 2
	recordImported = 3
)

const (
	flagQoS         = 0b11
	flagRetain      = 1 << 2
	flagText        = 1 << 3
	flagExpires     = 1 << 4
	flagCorrelation = 1 << 5
	flagNote        = 1 << 6
)

const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errRecord = errors.New("record is damaged")

// maxLen bounds each variable part of a record.
const maxLen = math.MaxInt32

// appendBody encodes m behind dst, all but the checksum.
func appendBody(dst []byte, m *Message) []byte {
	flags := m.QoS & flagQoS
	if m.Retain {
		flags |= flagRetain
	}
	if m.Text {
		flags |= flagText
	}
	if !m.Expires.IsZero() {
		flags |= flagExpires
	}
	if m.CorrelationData != nil {
		flags |= flagCorrelation
	}
	version := byte(recordVersion)
	switch {
	case m.Origin != "":
		version = recordImported
		if m.Note != nil {
			flags |= flagNote
		}
	case m.Note != nil:
		version = recordNoted
	}
	dst = append(dst, version, flags)
	dst = binary.AppendUvarint(dst, uint64(len(m.For)))
	for _, k := range m.For {
		dst = binary.AppendUvarint(dst, uint64(k.Reader))
		dst = append(dst, k.QoS, k.Flags)
	}
	if m.Note != nil {
		dst = appendString(dst, m.Note)
	}
	if version == recordImported {
		dst = appendString(dst, m.Origin)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.Time.UnixMilli()))
	if flags&flagExpires != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.Expires.UnixMilli()))
	}
	dst = appendString(dst, m.Topic)
	dst = appendString(dst, m.From)
	dst = appendString(dst, m.ContentType)
	dst = appendString(dst, m.ResponseTopic)
	if flags&flagCorrelation != 0 {
		dst = appendString(dst, m.CorrelationData)
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Properties)))
	for _, p := range m.Properties {
		dst = appendString(dst, p.Key)
		dst = appendString(dst, p.Value)
	}
	return appendString(dst, m.Payload)
}

// AppendMessage puts m behind dst as it is written to disk and to files, without
// its sequence, its note and whom it is for.
func AppendMessage(dst []byte, m *Message) []byte {
	bare := *m
	bare.Note, bare.For = nil, nil
	return appendBody(dst, &bare)
}

// DecodeMessage reads what AppendMessage wrote. It takes any bytes, and shares
// none with the message.
func DecodeMessage(b []byte) (Message, error) {
	if err := knownVersion(b); err != nil {
		return Message{}, err
	}
	m, err := decodeBody(b, &Message{})
	m.Note = nil
	return m, err
}

// knownVersion is nil for a body that decodeBody can be asked about.
func knownVersion(body []byte) error {
	switch {
	case len(body) < 2:
		return fmt.Errorf("%w: %d bytes", errRecord, len(body))
	case body[0] < recordVersion || body[0] > recordImported:
		return fmt.Errorf("%w: version %d", errNewer, body[0])
	}
	return nil
}

// errNewer is no damage.
var errNewer = errors.New("a newer headgate wrote this: install that one again")

func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// sum finishes the checksum of a body for the place where it will lie: it goes
// on over the big-endian bytes of epoch and seq. (crc32.Update would want them
// on the heap.)
func sum(body uint32, epoch, seq uint64) uint32 {
	crc := ^body
	for _, n := range [2]uint64{epoch, seq} {
		for shift := 56; shift >= 0; shift -= 8 {
			crc = castagnoli[byte(crc)^byte(n>>shift)] ^ crc>>8
		}
	}
	return ^crc
}

// marks yields the readers that a verified body is meant for.
func marks(body []byte) iter.Seq[Mark] {
	return func(yield func(Mark) bool) {
		c := cursor{b: body, at: 2}
		for n := c.uvarint(); n > 0 && c.err == nil; n-- {
			m := c.mark()
			if c.err != nil || !yield(m) {
				return
			}
		}
	}
}

// markFor finds a reader's mark in a body without decoding the rest.
func markFor(body []byte, id ReaderID) (Mark, bool) {
	for m := range marks(body) {
		if m.Reader == id {
			return m, true
		}
	}
	return Mark{}, false
}

// leads reports whether the first mark in a body is the reader's.
func leads(body []byte, id ReaderID) bool {
	for m := range marks(body) {
		return m.Reader == id
	}
	return false
}

// decodeBody returns the message of a verified body, without its marks. It
// shares nothing with it, but topic and author with like where they are equal:
// one message often follows another of the same kind.
func decodeBody(body []byte, like *Message) (Message, error) {
	flags := body[1]
	m := Message{QoS: flags & flagQoS, Retain: flags&flagRetain != 0, Text: flags&flagText != 0}
	c := cursor{b: body, at: 2}
	for n := c.uvarint(); n > 0 && c.err == nil; n-- {
		c.mark()
	}
	c.b, c.at = append([]byte(nil), c.b[c.at:]...), 0
	note, origin := c.noteAndOrigin(body)
	m.Note, m.Origin = note, string(origin)
	m.Time = c.time()
	if flags&flagExpires != 0 {
		m.Expires = c.time()
	}
	m.Topic = c.stringLike(like.Topic)
	m.From = c.stringLike(like.From)
	m.ContentType = c.string()
	m.ResponseTopic = c.string()
	if flags&flagCorrelation != 0 {
		m.CorrelationData = c.bytes()
	}
	if n := c.count(2); n > 0 {
		m.Properties = make([]Property, n)
		for i := range m.Properties {
			m.Properties[i] = Property{Key: c.string(), Value: c.string()}
		}
	}
	m.Payload = c.bytes()
	if c.err == nil && c.at != len(c.b) {
		c.err = fmt.Errorf("%w: %d bytes too many", errRecord, len(c.b)-c.at)
	}
	return m, c.err
}

// A cursor reads a body from left to right; after its first error it yields
// zeros.
type cursor struct {
	b   []byte
	at  int
	err error
}

// noteAndOrigin reads what stands between a body's marks and its time.
func (c *cursor) noteAndOrigin(body []byte) (note, origin []byte) {
	if body[0] == recordNoted || body[0] == recordImported && body[1]&flagNote != 0 {
		note = c.bytes()
	}
	if body[0] == recordImported {
		origin = c.bytes()
	}
	return note, origin
}

var zeros [8]byte

// take returns the next n bytes, and for n up to 8 that many zeros when they
// are not there.
func (c *cursor) take(n int) []byte {
	if c.err != nil || n > len(c.b)-c.at {
		c.fail()
		return zeros[:min(n, len(zeros))]
	}
	b := c.b[c.at : c.at+n : c.at+n]
	c.at += n
	return b
}

func (c *cursor) fail() {
	if c.err == nil {
		c.err = fmt.Errorf("%w: cut short", errRecord)
	}
}

func (c *cursor) uvarint() uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.b[c.at:])
	if n <= 0 {
		c.fail()
		return 0
	}
	c.at += n
	return v
}

func (c *cursor) varint() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads a number of parts of at least size bytes each, so that a wrong
// number cannot ask for more memory than the record itself takes.
func (c *cursor) count(size int) int {
	n := c.uvarint()
	if n > uint64((len(c.b)-c.at)/size) {
		c.fail()
		return 0
	}
	return int(n)
}

func (c *cursor) bytes() []byte {
	n := c.uvarint()
	if n > maxLen || int(n) > len(c.b)-c.at {
		c.fail()
		return nil
	}
	return c.take(int(n))
}

func (c *cursor) string() string { return string(c.bytes()) }

func (c *cursor) stringLike(known string) string {
	if b := c.bytes(); string(b) != known {
		return string(b)
	}
	return known
}

func (c *cursor) mark() Mark {
	id := c.uvarint()
	b := c.take(2)
	if id > math.MaxUint32 {
		c.fail()
	}
	return Mark{Reader: ReaderID(id), QoS: b[0], Flags: b[1]}
}

func (c *cursor) time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(c.take(8))))
}
