package mqtt

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestAppendAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 1024)
	topic, payload := []byte("hg/press/boiler/fast"), make([]byte, 300)
	for _, v := range versions {
		if n := testing.AllocsPerRun(1000, func() {
			buf, _ = Append(buf[:0], v, &Publish{QoS: 1, PacketID: 7, Topic: topic, Payload: payload, TopicAlias: 3})
			buf, _ = Append(buf, v, &Publish{Topic: topic, Payload: payload})
			buf, _ = Append(buf, v, &Ack{Kind: PUBACK, PacketID: 7})
			buf, _ = Append(buf, v, &Pingresp{})
		}); n != 0 {
			t.Errorf("version %v: %v allocations", v, n)
		}
	}
}

func TestLengthsOnTheWire(t *testing.T) {
	for _, size := range []int{0, 123, 124, 16_379, 16_380, 2_097_147, 2_097_148} {
		p := &Publish{Topic: []byte("a"), Payload: bytes.Repeat([]byte{7}, size)}
		got, err := decodeOne(V5, mustAppend(t, V5, p))
		if err != nil || !bytes.Equal(got.(*Publish).Payload, p.Payload) {
			t.Errorf("payload of %d: %v", size, err)
		}
	}
}

// A string over 65,535 bytes is refused, and does not spill into what follows [N-44].
func TestStringLimit(t *testing.T) {
	packets := map[string]func(string) Packet{
		"topic":     func(s string) Packet { return &Publish{Topic: []byte(s)} },
		"client id": func(s string) Packet { return &Connect{Version: V5, ClientID: s} },
		"user name": func(s string) Packet { return &Connect{Version: V311, UsernameFlag: true, Username: s} },
		"password":  func(s string) Packet { return &Connect{Version: V5, PasswordFlag: true, Password: Secret(s)} },
		"will":      func(s string) Packet { return &Connect{Version: V5, Will: &Will{Topic: "a", Payload: []byte(s)}} },
		"filter":    func(s string) Packet { return &Unsubscribe{PacketID: 1, Filters: []string{s}} },
		"reason":    func(s string) Packet { return &Ack{Kind: PUBACK, PacketID: 1, ReasonString: s} },
		"user property": func(s string) Packet {
			return &Ack{Kind: PUBACK, PacketID: 1, UserProperties: []UserProperty{{"k", s}}}
		},
		"correlation data": func(s string) Packet {
			return &Publish{Topic: []byte("a"), Properties: Properties{CorrelationData: []byte(s)}}
		},
	}
	for name, packet := range packets {
		if _, err := Append(nil, V5, packet(strings.Repeat("a", maxString))); err != nil {
			t.Errorf("%s of %d bytes: %v", name, maxString, err)
		}
		if wire, err := Append([]byte("x"), V5, packet(strings.Repeat("a", maxString+1))); err == nil || string(wire) != "x" {
			t.Errorf("%s of %d bytes is written", name, maxString+1)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for name, p := range map[string]Packet{
		"QoS 3":                 &Publish{QoS: 3, PacketID: 1, Topic: []byte("a")},
		"DUP with QoS 0":        &Publish{Dup: true, Topic: []byte("a")},
		"packet id 0":           &Publish{QoS: 1, Topic: []byte("a")},
		"no topic":              &Publish{TopicAlias: 1},
		"topic not UTF-8":       &Publish{Topic: []byte("\xff")},
		"ack of a PUBLISH":      &Ack{Kind: PUBLISH, PacketID: 1},
		"ack of packet 0":       &Ack{Kind: PUBACK},
		"SUBSCRIBE of nothing":  &Subscribe{PacketID: 1},
		"SUBACK of nothing":     &Suback{PacketID: 1},
		"UNSUBSCRIBE nothing":   &Unsubscribe{PacketID: 1},
		"AUTH":                  &Auth{Method: "m"},
		"code without word":     &Connack{Code: MalformedPacket},
		"protocol level 3":      &Connect{Version: 3},
		"password without name": &Connect{Version: V311, PasswordFlag: true},
		"nothing":               nil,
	} {
		if wire, err := Append(nil, V311, p); err == nil {
			t.Errorf("%s is written as %.20x", name, wire)
		}
	}
}

func TestPacketLimit(t *testing.T) {
	for _, size := range []int{maxSize - 5, maxSize - 4} {
		var e encoder
		if e.length(0, size); (e.err == nil) != (size == maxSize-5) {
			t.Errorf("remaining length %d: %v", size, e.err)
		}
	}
}

func TestReturnCodesOf311(t *testing.T) {
	for code, want := range map[ReasonCode]byte{
		Success: 0, UnsupportedProtocolVersion: 1, ClientIdentifierNotValid: 2, ServerUnavailable: 3,
		ServerBusy: 3, QuotaExceeded: 3, BadUserNameOrPassword: 4, NotAuthorized: 5, Banned: 5,
	} {
		if wire := mustAppend(t, V311, &Connack{Code: code}); wire[3] != want {
			t.Errorf("%v is return code %d, want %d", code, wire[3], want)
		}
	}
	// What asked for level 3 is answered in the form of 3.1.1.
	if wire := mustAppend(t, 3, &Connack{Code: UnsupportedProtocolVersion}); !bytes.Equal(wire, []byte{0x20, 2, 0, 1}) {
		t.Errorf("%x", wire)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range vectors {
		f.Add(byte(v.version), unhex(f, v.hex))
	}
	for _, v := range violations {
		f.Add(byte(v.version), unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, level byte, wire []byte) {
		d := NewDecoder(bytes.NewReader(wire), 0)
		d.SetVersion([]Version{0, V311, V5}[level%3])
		for {
			d.Buffered()
			p, err := d.Read()
			if len(d.buf) > max(minBuffer, 2*len(wire)) {
				t.Fatalf("%d bytes of buffer for %d of input", len(d.buf), len(wire))
			}
			if err != nil {
				return
			}
			again(t, d.Version(), p)
		}
	})
}

// again demands that what was decoded is written, read back as the same packet,
// and written as the same bytes.
func again(t *testing.T, v Version, p Packet) {
	wire := mustAppend(t, v, p)
	q, err := decodeOne(v, wire)
	if err != nil {
		t.Fatalf("%+v\nis written as %x: %v", p, wire, err)
	}
	if c, ok := p.(*Connack); ok && c.Code != Success {
		p = q // the limits of a refusal are dropped
	}
	if d, ok := p.(*Publish); ok && d.UserProperties == nil {
		q.(*Publish).UserProperties = nil
	}
	if !reflect.DeepEqual(p, q) {
		t.Fatalf("%+v\nis read back as %+v", p, q)
	}
	if twice := mustAppend(t, v, q); !bytes.Equal(wire, twice) {
		t.Fatalf("%x\nis written as %x", wire, twice)
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	p := &Publish{QoS: 1, PacketID: 9, Topic: []byte("hg/press/boiler/fast"), Payload: make([]byte, 256)}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = Append(buf[:0], V5, p)
	}
	b.SetBytes(int64(len(buf)))
}
