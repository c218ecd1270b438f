package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/storequeue"
)

// What memory has is what the state gets, however often it changed before; the
// log is let go once all of it is there, and not sooner.
func TestFold(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	q, err := storequeue.Open(h.dir, storequeue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	h.config.Queue = q
	b, err := New(h.config) // never run: nothing folds but this test
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	say := func(topic, payload string) {
		t.Helper()
		m := storequeue.Message{Topic: topic, Payload: []byte(payload), Retain: true, QoS: 1}
		if err := b.Publish(t.Context(), access.Identity{Name: "device:x"}, m); err != nil {
			t.Fatal(err)
		}
		if want[topic] = payload; payload == "" {
			delete(want, topic)
		}
	}
	for i := range foldBatch + 100 {
		say(fmt.Sprint("t/", i), "first")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.fold(gone); !errors.Is(err, context.Canceled) || b.retained.reader.Acked() != 0 {
		t.Fatalf("broken off after one batch: %v, the log is let go up to %d", err, b.retained.reader.Acked())
	}
	for i := range 50 {
		say("t/1", fmt.Sprint(i))
	}
	say("t/2", "")
	say("t/never", "")
	if err := b.fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = q.State(bucketRetained, func(topic string, v []byte) error {
		var r retainedRecord
		err := json.Unmarshal(v, &r)
		got[topic] = string(r.Payload)
		return err
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v; the state has %d messages, want %d: %v", err, len(got), len(want), got)
	}
	if n := b.retained.reader.Waiting(); n != 0 {
		t.Errorf("the log keeps %d messages", n)
	}
}
