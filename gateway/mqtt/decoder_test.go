package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// loop repeats the same packets for ever, and allocates nothing.
type loop struct {
	data []byte
	at   int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.data[l.at:])
	l.at = (l.at + n) % len(l.data)
	return n, nil
}

var versions = []Version{V311, V5}

func mustAppend(t testing.TB, v Version, packets ...Packet) (wire []byte) {
	t.Helper()
	for _, p := range packets {
		var err error
		if wire, err = Append(wire, v, p); err != nil {
			t.Fatal(err)
		}
	}
	return wire
}

func TestDecodePublishAllocatesNothing(t *testing.T) {
	for _, v := range versions {
		for qos := range byte(3) {
			for _, alias := range []uint16{0, 7} {
				wire := mustAppend(t, v, &Publish{
					QoS: qos, PacketID: 9, Topic: []byte("hg/press/boiler/fast"), TopicAlias: alias,
					Payload: bytes.Repeat([]byte("x"), 256),
				})
				if v == V5 && alias > 0 {
					wire = append(wire, mustAppend(t, v, &Publish{TopicAlias: alias, QoS: qos, PacketID: 9})...)
				}
				wire = append(wire, mustAppend(t, v, &Ack{Kind: PUBACK, PacketID: 9}, &Pingreq{})...)
				d := NewDecoder(&loop{data: wire}, 1<<20)
				d.SetVersion(v)
				allocs := testing.AllocsPerRun(1000, func() {
					if _, err := d.Read(); err != nil {
						t.Fatal(err)
					}
				})
				if allocs != 0 {
					t.Errorf("version %v, QoS %d, alias %d: %v allocations", v, qos, alias, allocs)
				}
			}
		}
	}
}

func TestBufferFollowsWhatArrived(t *testing.T) {
	announced := []byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, 'a'} // 256 MB to come
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		d := NewDecoder(bytes.NewReader(announced), 0)
		d.SetVersion(V5)
		if _, err := d.Read(); err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 100; each > 8<<10 {
		t.Errorf("a packet announced and not sent costs %d bytes", each)
	}
}

func TestBufferGrowsAndShrinks(t *testing.T) {
	small := mustAppend(t, V5, &Publish{Topic: []byte("a")})
	large := mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: make([]byte, 300<<10)})
	r, w := io.Pipe()
	defer r.Close()
	go func() { // ends when r is closed or everything was read
		w.Write(large)
		for range 3 * quietReads {
			w.Write(small)
		}
		w.Close()
	}()
	d := NewDecoder(r, 1<<20)
	d.SetVersion(V5)
	if _, err := d.Read(); err != nil || len(d.buf) < len(large) {
		t.Fatal(err, len(d.buf))
	}
	for range 3 * quietReads {
		if _, err := d.Read(); err != nil {
			t.Fatal(err)
		}
		if len(d.buf) > keptBuffer {
			t.Fatalf("%d bytes kept after a large packet", len(d.buf))
		}
	}
	if _, err := d.Read(); err != io.EOF {
		t.Fatal(err)
	}
}

func TestBusyBufferIsKeptAndGivenBack(t *testing.T) {
	small := mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: make([]byte, 100)})
	busy := bytes.Repeat(small, 1000)
	quiet := iotest.OneByteReader(bytes.NewReader(bytes.Repeat(small, 2)))
	d := NewDecoder(io.MultiReader(bytes.NewReader(busy), quiet), 1<<20)
	d.SetVersion(V5)
	for range 990 {
		if _, err := d.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.buf) != keptBuffer {
		t.Errorf("a busy connection reads into %d bytes", len(d.buf))
	}
	for range 12 {
		if _, err := d.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Read(); err != io.EOF || len(d.buf) > idleBuffer {
		t.Errorf("a quiet connection keeps %d bytes, %v", len(d.buf), err)
	}
}

// Small packets, now and then, need no buffer in between. One that does not fit
// is waited for with a buffer that it fits into.
func TestBufferOfNowAndThen(t *testing.T) {
	for _, tt := range []struct{ first, next, want int }{
		{0, 0, idleBuffer},
		{2 * idleBuffer, 0, idleBuffer},
		{2 * idleBuffer, 2 * idleBuffer, minBuffer},
	} {
		r := &dripping{packets: [][]byte{mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: make([]byte, tt.first)})}}
		for range 3 {
			r.packets = append(r.packets, mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: make([]byte, tt.next)}))
		}
		d := NewDecoder(r, 0)
		d.SetVersion(V5)
		for range 4 {
			if _, err := d.Read(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Read(); err != io.EOF || len(d.buf) != tt.want {
			t.Errorf("%+v: waits with a buffer of %d bytes, %v", tt, len(d.buf), err)
		}
	}
}

// A dripping reader has the next packet when the last one was read.
type dripping struct{ packets [][]byte }

func (r *dripping) Read(b []byte) (int, error) {
	if len(r.packets) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.packets[0])
	if r.packets[0] = r.packets[0][n:]; len(r.packets[0]) == 0 {
		r.packets = r.packets[1:]
	}
	return n, nil
}

func TestBuffered(t *testing.T) {
	one := mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: []byte("x")})
	for cut := range one {
		d := NewDecoder(bytes.NewReader(append(bytes.Clone(one), one[:cut]...)), 0)
		d.SetVersion(V5)
		if _, err := d.Read(); err != nil {
			t.Fatal(err)
		}
		if n := d.Buffered(); n != 0 {
			t.Errorf("%d of %d bytes arrived: Buffered is %d", cut, len(one), n)
		}
	}
	d := NewDecoder(bytes.NewReader(bytes.Repeat(one, 2)), 0)
	d.SetVersion(V5)
	if _, err := d.Read(); err != nil || d.Buffered() != len(one) {
		t.Error(d.Buffered(), err)
	}
	d = NewDecoder(bytes.NewReader(append(bytes.Clone(one), 0)), 0) // next: reserved type
	d.SetVersion(V5)
	if _, err := d.Read(); err != nil || d.Buffered() != 1 {
		t.Error("an error that needs no more bytes has to count as buffered")
	}
}

func TestLimit(t *testing.T) {
	wire := mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: make([]byte, 100)})
	for _, test := range []struct {
		limit int
		ok    bool
	}{{len(wire), true}, {len(wire) - 1, false}} {
		// The header alone decides: the rest has not arrived.
		d := NewDecoder(io.MultiReader(bytes.NewReader(wire[:2]), bytes.NewReader(wire[2:])), test.limit)
		d.SetVersion(V5)
		_, err := d.Read()
		var e *Error
		if refused := errors.As(err, &e) && e.Code == PacketTooLarge; refused == test.ok {
			t.Errorf("limit %d: %v", test.limit, err)
		}
	}
}

func TestReadMayBeRepeatedAfterDeadline(t *testing.T) {
	wire := mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: []byte("x")})
	d := NewDecoder(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(wire))), 0)
	d.SetVersion(V5)
	if _, err := d.Read(); err != iotest.ErrTimeout {
		t.Fatal(err)
	}
	if p, err := d.Read(); err != nil || p.Type() != PUBLISH {
		t.Fatal(p, err)
	}
}

func TestViolationIsFinal(t *testing.T) {
	d := NewDecoder(bytes.NewReader([]byte{0xC1, 0, 0xC0, 0}), 0)
	d.SetVersion(V5)
	_, first := d.Read()
	_, second := d.Read()
	if first == nil || second != first {
		t.Error(first, second)
	}
}

func TestConnectVersionIsKnownWhenUnsupported(t *testing.T) {
	for _, test := range []struct {
		name  string
		level byte
		want  Version
	}{{"MQIsdp", 3, 3}, {"MQTT", 3, 3}, {"MQTT", 6, 6}, {"MQTT", 0x84, 0x84}, {"HTTP", 5, 0}} {
		body := append([]byte{0, byte(len(test.name))}, test.name...)
		body = append(body, test.level, 2, 0, 0, 0, 0)
		d := NewDecoder(bytes.NewReader(append([]byte{0x10, byte(len(body))}, body...)), 0)
		_, err := d.Read()
		var e *Error
		if !errors.As(err, &e) || e.Code != UnsupportedProtocolVersion || d.Version() != test.want {
			t.Errorf("%s level %d: version %d, %v", test.name, test.level, d.Version(), err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	p := &Connect{Username: "u", Password: Secret("hunter2"), AuthData: Secret("hunter2")}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if out := fmt.Sprintf(format, p); strings.Contains(out, "hunter2") || strings.Contains(out, "68756e") ||
			strings.Contains(out, "104 117") {
			t.Errorf("%s shows the password: %s", format, out)
		}
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	wire := mustAppend(b, V5, &Publish{
		QoS: 1, PacketID: 9, Topic: []byte("hg/press/boiler/fast"), Payload: bytes.Repeat([]byte("x"), 256),
	})
	d := NewDecoder(&loop{data: bytes.Repeat(wire, 64)}, 1<<20)
	d.SetVersion(V5)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

// Only a PUBLISH lies in the buffer; what else was read stays as it is.
func TestConnectSurvivesNextRead(t *testing.T) {
	want := &Connect{Version: V5, ClientID: "c", PasswordFlag: true, Password: Secret("p"), RequestProblem: true,
		ReceiveMaximum: 65535, AuthMethod: "m", AuthData: Secret("d"),
		Will: &Will{Topic: "w", Payload: []byte("x"), Properties: Properties{CorrelationData: []byte("y")}}}
	junk := mustAppend(t, V5, &Publish{Topic: []byte("a"), Payload: bytes.Repeat([]byte("!"), minBuffer-100)})
	d := NewDecoder(iotest.OneByteReader(bytes.NewReader(append(mustAppend(t, V5, want), junk...))), 0)
	got, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}
