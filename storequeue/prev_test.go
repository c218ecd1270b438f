package storequeue

import (
	"slices"
	"testing"
)

// Each message names the one before it that was for the same reader, also over
// a restart, and none before the first.
func TestPrev(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	other := mustReader(t, q, "other")
	mustAppend(t, q, note(1, other), note(2, other))
	r := mustReader(t, q, "link") // behind 2, which was never for it
	reopen := func() {
		t.Helper()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = openTest(t, dir, Config{})
		r, other = mustReader(t, q, "link"), mustReader(t, q, "other")
	}
	prevs := func(after uint64, limit int) (all []uint64) {
		t.Helper()
		for _, m := range take(t, r, after, limit) {
			all = append(all, m.Seq, m.Prev)
		}
		return all
	}
	check := func(what string, got []uint64, want ...uint64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: sequences and what they follow: %v, want %v", what, got, want)
		}
	}
	reopen() // it has acknowledged nothing yet
	imported := note(5, r)
	imported.Origin = "elsewhere/1/9"
	mustAppend(t, q, note(3, r), note(4, other), imported, note(6, r), note(7, r))
	check("all", prevs(2, 9), 3, 0, 5, 3, 6, 3, 7, 6)
	check("in parts", prevs(2, 2), 3, 0, 5, 3)
	check("the rest", prevs(5, 9), 6, 3, 7, 6)
	r.Ack(6)
	check("acknowledged", prevs(6, 9), 7, 6)
	reopen()
	check("after a restart", prevs(r.Acked(), 9), 7, 6)
}
