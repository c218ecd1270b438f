package mqtt

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// decoded is the only packet in wire, in bytes of its own.
func decoded(t *testing.T, wire []byte) Publish {
	t.Helper()
	d := NewDecoder(bytes.NewReader(wire), 0)
	d.SetVersion(V5)
	p, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	if d.Buffered() != 0 {
		t.Fatalf("%d bytes behind the packet", d.Buffered())
	}
	return *p.(*Publish)
}

// Whatever the lengths, a frame with an alias says what the frame said.
func TestAppendAliased(t *testing.T) {
	topics := []string{"a", "four", strings.Repeat("t", 120), strings.Repeat("t", 130), strings.Repeat("t", 20_000)}
	contents := []string{"", strings.Repeat("c", 118), strings.Repeat("c", 119), strings.Repeat("c", 121), strings.Repeat("c", 16_380)}
	payloads := []int{0, 100, 130, 16_300, 16_380}
	for _, topic := range topics {
		for _, content := range contents {
			for _, size := range payloads {
				for qos := range byte(3) {
					p := Publish{Topic: []byte(topic), QoS: qos, Retain: true, Payload: make([]byte, size), SubscriptionIDs: []uint32{3}}
					p.ContentType = content
					if qos > 0 {
						p.PacketID, p.Dup = 9, true
					}
					checkAliased(t, &p)
				}
			}
		}
	}
}

// The remaining length grows by a byte at 2,097,152.
func TestAppendAliasedToLargePacket(t *testing.T) {
	for size := range 12 {
		checkAliased(t, &Publish{Topic: []byte("four"), Payload: make([]byte, 2_097_152-12+size)})
	}
}

func checkAliased(t *testing.T, p *Publish) {
	t.Helper()
	frame := mustAppend(t, V5, p)
	if got := PublishTopic(frame); !bytes.Equal(got, p.Topic) {
		t.Fatalf("topic %q, want %q", got, p.Topic)
	}
	before := bytes.Clone(frame)
	for _, known := range []bool{false, true} {
		got := AppendAliased([]byte("before"), frame, 300, known)
		if !bytes.HasPrefix(got, []byte("before")) || !bytes.Equal(frame, before) {
			t.Fatal("what was there has changed")
		}
		got = got[len("before"):]
		want := *p
		if want.TopicAlias = 300; known {
			want.Topic = []byte{}
		}
		if d := decoded(t, got); !reflect.DeepEqual(d, want) {
			t.Fatalf("known %v: got %.200v, want %.200v", known, d, want)
		}
		if grown := len(got) - len(frame); grown > AliasSize || known && len(p.Topic) >= 4 && grown > 0 {
			t.Fatalf("known %v: %d bytes longer, topic of %d", known, grown, len(p.Topic))
		}
	}
}
