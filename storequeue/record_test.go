package storequeue

import (
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"slices"
	"testing"
	"time"
)

func sealed(m *Message, epoch, seq uint64) []byte {
	body := appendBody(nil, m)
	return binary.BigEndian.AppendUint32(body, sum(crc32.Checksum(body, castagnoli), epoch, seq))
}

var recordTests = map[string]Message{
	"empty":   {Time: time.UnixMilli(0), Payload: []byte{}},
	"plain":   {Time: time.UnixMilli(1763776800123), Topic: "a/b", Payload: []byte("x"), QoS: 2, From: "press-1"},
	"ancient": {Time: time.UnixMilli(-5), Topic: "t", Payload: []byte{0}, Retain: true},
	"all": {
		Time: time.UnixMilli(1763776800123), Topic: "plant/ä", Payload: make([]byte, 300), QoS: 1, Retain: true,
		From: "link:cloud", Expires: time.UnixMilli(1763776900000), ContentType: "json", ResponseTopic: "r",
		CorrelationData: []byte{}, Text: true, Properties: []Property{{"k", "1"}, {"k", "2"}, {"", ""}},
		For: []Mark{{1, 2, 3}, {1 << 31, 0, 255}},
	},
	"noted":      {Time: time.UnixMilli(1), Topic: "t", Payload: []byte("x"), Note: []byte{1, 2}, For: []Mark{{7, 0, 0}, {8, 1, 0}}},
	"empty note": {Time: time.UnixMilli(1), Topic: "t", Payload: []byte("x"), Note: []byte{}},
	"imported":   {Time: time.UnixMilli(1), Topic: "t", Payload: []byte("x"), Origin: "gw/7/9", For: []Mark{{7, 0, 0}}},
	"all of it":  {Time: time.UnixMilli(1), Topic: "t", Payload: []byte("x"), Origin: "gw/7/9", Note: []byte{}, Retain: true},
}

func TestRecordRoundTrip(t *testing.T) {
	for name, m := range recordTests {
		rec := sealed(&m, 7, 9)
		body, err := (seal{epoch: 7}).open(rec, 9)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := decodeBody(body, &Message{})
		got.For = slices.Collect(marks(body))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, m)
		}
		head, topic, err := readHead(body)
		if err != nil || !head.at.Equal(m.Time) || !head.expires.Equal(m.Expires) || topic != m.Topic {
			t.Errorf("%s: its head is %+v %q, %v", name, head, topic, err)
		}
		clear(rec)
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%s: the message shares bytes with the record", name)
		}
	}
}

func TestRecordDamage(t *testing.T) {
	m := recordTests["all"]
	rec := sealed(&m, 7, 9)
	for bit := range len(rec) * 8 {
		rec[bit/8] ^= 1 << (bit % 8)
		if _, err := (seal{epoch: 7}).open(rec, 9); err == nil {
			t.Fatalf("bit %d flipped: not noticed", bit)
		}
		rec[bit/8] ^= 1 << (bit % 8)
	}
	for n := range rec {
		if _, err := (seal{epoch: 7}).open(rec[:n], 9); err == nil {
			t.Fatalf("cut to %d bytes: not noticed", n)
		}
	}
	if _, err := (seal{epoch: 7}).open(rec, 10); err == nil {
		t.Error("moved to another sequence: not noticed")
	}
	if _, err := (seal{epoch: 8}).open(rec, 9); err == nil {
		t.Error("moved to another log: not noticed")
	}
}

func FuzzDecodeBody(f *testing.F) {
	for _, m := range recordTests {
		f.Add(appendBody(nil, &m))
	}
	f.Add([]byte{1, 0, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) < 2 {
			return // verify sees to that
		}
		m, err := decodeBody(body, &Message{})
		if err != nil {
			return
		}
		m.For = slices.Collect(marks(body))
		encoded := appendBody(nil, &m)
		again, err := decodeBody(encoded, &m)
		again.For = slices.Collect(marks(encoded))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v\nagain %+v, %v", m, again, err)
		}
		for _, want := range m.For {
			if got, ok := markFor(body, want.Reader); !ok || got.Reader != want.Reader {
				t.Errorf("mark of reader %d: %+v", want.Reader, got)
			}
		}
	})
}

// A message that leaves the queue comes back without what was the queue's own.
func TestEncodeDecode(t *testing.T) {
	for name, m := range recordTests {
		b := AppendMessage(nil, &m)
		got, err := DecodeMessage(b)
		m.Note, m.For, m.Seq = nil, nil, 0
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		for n := range b {
			if _, err := DecodeMessage(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are a message", name, n, len(b))
			}
		}
	}
	newer := AppendMessage(nil, &Message{Topic: "t"})
	newer[0] = recordImported + 1
	if _, err := DecodeMessage(newer); err == nil {
		t.Error("a record of a version to come was decoded")
	}
}

// Checksums of records that are on disk already stay what they are.
func TestSum(t *testing.T) {
	const body, epoch, seq = 0x12345678, 0xA1B2C3D4E5F6, 77
	place := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, epoch), seq)
	if got, want := sum(body, epoch, seq), crc32.Update(body, castagnoli, place); got != want {
		t.Errorf("got %#x, want %#x", got, want)
	}
}
