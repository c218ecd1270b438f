package storequeue

import (
	"path/filepath"
	"slices"
	"testing"
)

// What was removed for its only reader gives its disk back; what it was taken
// from is as it was, after the next start too, and a message that somebody else
// needs stays.
func TestRemovedIsCompacted(t *testing.T) {
	dir, cfg := filepath.Join(t.TempDir(), "queue"), Config{SegmentSize: 512 << 10, Match: prefixMatch}
	q := openTest(t, dir, cfg)
	r, other := mustReader(t, q, "r"), mustReader(t, q, "other")
	const n = 2000
	var some []Message
	for i := range n {
		m := big(i, r)
		if i%10 == 0 {
			m = big(i, r, other)
		}
		if m.Topic = "plant/a"; i%3 == 0 {
			m.Topic = "alarm/a"
		}
		if some = append(some, m); len(some) == 50 {
			mustAppend(t, q, some...)
			some = nil
		}
	}
	last := q.segments[len(q.segments)-1].first - 1
	before := q.diskBytes()
	loss, err := r.Remove(Selection{Filter: "plant/"}, last, nil)
	if err != nil || loss.Count < n/2 {
		t.Fatalf("%+v, %v", loss, err)
	}
	want, wantOther := waits(t, r), waits(t, other)
	for shrunk := true; shrunk; {
		q.keeping.Lock()
		shrunk, err = q.compact(true)
		q.keeping.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	if after := q.diskBytes(); after > before*3/5 {
		t.Errorf("%d bytes are used, %d before", after, before)
	}
	for round := range 2 {
		if !slices.Equal(waits(t, r), want) || !slices.Equal(waits(t, other), wantOther) {
			t.Errorf("round %d: others wait than before", round)
		}
		if n := r.Waiting(); n != uint64(len(want)) {
			t.Errorf("round %d: %d wait, want %d", round, n, len(want))
		}
		if lost := lostBy(t, q); len(lost) > 0 {
			t.Errorf("lost %v", lost)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = openTest(t, dir, cfg)
		r, other = mustReader(t, q, "r"), mustReader(t, q, "other")
	}
}
