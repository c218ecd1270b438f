package storequeue

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
)

// Whoever waits for state.db shares the next commit, and who cannot be applied
// fails alone.
func TestStateCommitsAreShared(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	const n = 50
	commits := func() (id int) {
		q.state.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil })
		return id
	}
	before := commits()
	errs := make([]error, n)
	var all sync.WaitGroup
	q.state.turn.Lock() // a commit is on its way
	for i := range n {
		all.Go(func() {
			if i == n/2 {
				errs[i] = q.SetState(Change{Bucket: "b", Key: "", Value: []byte("bbolt wants a key")})
				return
			}
			_, errs[i] = q.Reader(fmt.Sprint("r", i), Change{Bucket: "b", Key: fmt.Sprint(i), Value: []byte("v")})
		})
	}
	for waiting := 0; waiting < n; {
		runtime.Gosched()
		q.state.mu.Lock()
		waiting = len(q.state.next)
		q.state.mu.Unlock()
	}
	q.state.turn.Unlock()
	all.Wait()
	for i, err := range errs {
		if (err != nil) != (i == n/2) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if got := commits() - before; got > 2 {
		t.Errorf("%d commits for %d at once", got, n)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openTest(t, dir, Config{})
	ids := map[ReaderID]bool{}
	for i := range n {
		ids[mustReader(t, q, fmt.Sprint("r", i)).ID()] = true
	}
	facts := 0
	if err := q.State("b", func(string, []byte) error { facts++; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(ids) != n || facts != n-1 {
		t.Errorf("%d readers, %d facts; want %d and %d", len(ids), facts, n, n-1)
	}
}

// A note is for the reader that a message names first, before and after a
// reopening, and for nobody else.
func TestNote(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	own, link := mustReader(t, q, "own"), mustReader(t, q, "link")
	both := Message{Topic: "t", Note: []byte("private"), For: []Mark{{Reader: own.ID()}, {Reader: link.ID()}}}
	mustAppend(t, q, both, Message{Topic: "t", For: []Mark{{Reader: link.ID()}, {Reader: own.ID()}}})
	for range 2 {
		for _, r := range []*Reader{own, link} {
			msgs := take(t, r, 0, 10)
			want := ""
			if r.Name() == "own" {
				want = "private"
			}
			if len(msgs) != 2 || string(msgs[0].Note) != want || msgs[1].Note != nil {
				t.Errorf("%s got %+v", r.Name(), msgs)
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = openTest(t, dir, Config{})
		own, link = mustReader(t, q, "own"), mustReader(t, q, "link")
	}
}

func TestFlushedFollowsAcked(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	r := mustReader(t, q, "r")
	for range 3 {
		mustAppend(t, q, Message{Topic: "t", For: []Mark{{Reader: r.ID()}}})
	}
	if err := r.Checkpoint(1); err != nil || r.Flushed() != 1 {
		t.Fatalf("flushed %d, %v", r.Flushed(), err)
	}
	r.Ack(3)
	if err := q.flushCursors(); err != nil || r.Flushed() != 3 {
		t.Fatalf("flushed %d, %v", r.Flushed(), err)
	}
}

// What waits is known in bytes, after a reopening too.
func TestWaitingBytes(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{SegmentSize: 64 << 10}
	q := openTest(t, dir, cfg)
	r, other := mustReader(t, q, "r"), mustReader(t, q, "other")
	near := func(want uint64) {
		t.Helper()
		if got := r.WaitingBytes(); got < want || got > want+want/20 {
			t.Errorf("%d bytes wait, want about %d", got, want)
		}
	}
	for range 200 {
		m := Message{Topic: "t", Payload: make([]byte, 1000), For: []Mark{{Reader: r.ID()}, {Reader: other.ID()}}}
		mustAppend(t, q, m, m)
	}
	near(400_000)
	r.Ack(take(t, r, 0, 100)[99].Seq)
	near(300_000)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openTest(t, dir, cfg)
	r = mustReader(t, q, "r")
	near(300_000)
	r.Ack(400)
	if n := r.WaitingBytes(); n != 0 {
		t.Errorf("%d bytes wait for a reader at the end", n)
	}
}
