package storequeue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STOREQUEUE_CHILD"); dir != "" {
		child(dir)
	}
	for role, run := range map[string]func(dir string) error{"STOREQUEUE_BACKLOG": backlogChild, "STOREQUEUE_CUT": runCutChild} {
		if dir := os.Getenv(role); dir != "" {
			if err := run(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	goleak.VerifyTestMain(m)
}

// openTest opens a queue that is checked and closed at the end of the test.
func openTest(t *testing.T, dir string, cfg Config) *Queue {
	t.Helper()
	q, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if q.Err() != nil { // the test made it fail
			q.Close()
			return
		}
		if !isClosed(q) {
			if err := q.Check(); err != nil {
				t.Errorf("check: %v", err)
			}
		}
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

func isClosed(q *Queue) bool {
	q.filling.mu.Lock()
	defer q.filling.mu.Unlock()
	return q.filling.closed
}

func mustReader(t *testing.T, q *Queue, name string) *Reader {
	t.Helper()
	r, err := q.Reader(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustAppend(t *testing.T, q *Queue, msgs ...Message) {
	t.Helper()
	if err := q.Append(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
}

// note is a message with n in its payload for the given readers.
func note(n int, readers ...*Reader) Message {
	m := Message{Topic: "plant/a", Payload: fmt.Appendf(nil, "%d", n), QoS: 1, From: "press-1"}
	for _, r := range readers {
		m.For = append(m.For, Mark{Reader: r.ID(), QoS: 1})
	}
	return m
}

// take reads what waits for r after a place, without blocking.
func take(t *testing.T, r *Reader, after uint64, limit int) []Message {
	t.Helper()
	msgs, err := r.read(t.Context(), after, limit)
	if err != nil {
		t.Fatal(err)
	}
	return msgs
}

func payloads(msgs []Message) []string {
	var out []string
	for _, m := range msgs {
		out = append(out, string(m.Payload))
	}
	return out
}

func TestAppendNextAck(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	cloud, other := mustReader(t, q, "link/cloud"), mustReader(t, q, "session/x")
	for i := range 10 {
		if i%2 == 0 {
			mustAppend(t, q, note(i, cloud))
		} else {
			mustAppend(t, q, note(i, cloud, other))
		}
	}
	msgs, err := other.Next(t.Context(), other.Acked(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(payloads(msgs)); got != "[1 3 5]" {
		t.Fatalf("got %s", got)
	}
	other.Ack(msgs[1].Seq)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}

	q = openTest(t, dir, Config{MustExist: true})
	other, cloud = mustReader(t, q, "session/x"), mustReader(t, q, "link/cloud")
	if got := fmt.Sprint(payloads(take(t, other, other.Acked(), 100))); got != "[5 7 9]" {
		t.Errorf("after reopening: %s", got)
	}
	if got := len(take(t, cloud, cloud.Acked(), 100)); got != 10 {
		t.Errorf("cloud has %d messages, want 10", got)
	}
	for _, r := range q.Stats().Readers {
		want := map[string]uint64{"link/cloud": 10, "session/x": 3}[r.Name]
		if r.Waiting != want {
			t.Errorf("%s: %d waiting, want %d", r.Name, r.Waiting, want)
		}
	}
	mustAppend(t, q, note(10, cloud))
	if got := q.Stats().Last; got != 11 {
		t.Errorf("sequence goes on at %d, want 11", got)
	}
}

func TestNextWaitsForTheFirst(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	r, err := q.TransientReader("live")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []Message)
	go func() {
		msgs, err := r.Next(context.Background(), r.Acked(), 10)
		if err != nil {
			t.Error(err)
		}
		got <- msgs
	}()
	mustAppend(t, q, note(1))    // not for r
	mustAppend(t, q, note(2, r)) // for r
	if msgs := <-got; len(msgs) != 1 || string(msgs[0].Payload) != "2" {
		t.Errorf("got %v", payloads(msgs))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx, 2, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := q.Forget(r); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(t.Context(), 2, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestSubmitKeepsOrderAndCopies(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	r := mustReader(t, q, "link/cloud")
	const n = 5000
	var order []uint64
	done := make(chan struct{})
	m := note(0, r)
	for i := range n {
		m.Payload = fmt.Appendf(m.Payload[:0], "%d", i)
		q.Submit(&m, func(seq uint64, err error) {
			if err != nil {
				t.Error(err)
			}
			if order = append(order, seq); len(order) == n {
				close(done)
			}
		})
		clear(m.Payload) // the queue must have its own copy
	}
	<-done
	after := r.Acked()
	for i := 0; i < n; {
		msgs := take(t, r, after, 777)
		if len(msgs) == 0 {
			t.Fatalf("nothing after %d", after)
		}
		for _, m := range msgs {
			if want := fmt.Sprint(i); string(m.Payload) != want || m.Seq != order[i] {
				t.Fatalf("message %d: payload %q seq %d, done said %d", i, m.Payload, m.Seq, order[i])
			}
			i++
		}
		after = msgs[len(msgs)-1].Seq
	}
}

func TestSegmentsComeAndGo(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{SegmentSize: 4 << 10})
	r, idle := mustReader(t, q, "link/cloud"), mustReader(t, q, "session/idle")
	mustAppend(t, q, note(0, idle))
	big := make([]byte, 1000)
	for range 40 {
		m := note(1, r)
		m.Payload = big
		mustAppend(t, q, m)
	}
	before := q.Stats()
	if before.Segments < 8 {
		t.Fatalf("%d segments, want more", before.Segments)
	}
	r.Ack(before.Last)
	if err := errors.Join(q.flushCursors(), q.unlinkSegments()); err != nil {
		t.Fatal(err)
	}
	if got := q.Stats().Segments; got != 2 { // the idle reader's and the active one
		t.Errorf("%d segments after the ack, want 2", got)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "seg-*"))
	if len(files) != 2 {
		t.Errorf("files left: %v", files)
	}
	if err := q.Check(); err != nil {
		t.Error(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openTest(t, dir, Config{SegmentSize: 4 << 10})
	idle = mustReader(t, q, "session/idle")
	if got := payloads(take(t, idle, idle.Acked(), 10)); len(got) != 1 || got[0] != "0" {
		t.Errorf("idle reader has %v", got)
	}
	if err := errors.Join(q.Forget(idle), q.unlinkSegments()); err != nil {
		t.Fatal(err)
	}
	if got := q.Stats().Segments; got != 1 {
		t.Errorf("%d segments after Forget, want 1", got)
	}
}

func TestFullRefusesAndRecovers(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{SegmentSize: 16 << 10, MaxSize: 256 << 10})
	r := mustReader(t, q, "link/cloud")
	m := note(1, r)
	m.Payload = make([]byte, 4<<10)
	var err error
	stored := 0
	for err == nil && stored < 1000 {
		if err = q.Append(t.Context(), m); err == nil {
			stored++
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d messages: %v, want ErrFull", stored, err)
	}
	if used := q.Stats().Bytes; used > 256<<10+16<<10 {
		t.Errorf("%d bytes used", used)
	}
	r.Ack(q.Stats().Last)
	if err := errors.Join(q.flushCursors(), q.unlinkSegments()); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, q, m)
	if got := q.Stats().Last; got != uint64(stored+1) {
		t.Errorf("last is %d, want %d: a refused message must not use up a number", got, stored+1)
	}
}

func TestFailedCommitStopsEverything(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "link/cloud")
	mustAppend(t, q, note(1, r))
	q.segments[0].db.Close() // the disk is gone from under the committer
	if err := q.Append(t.Context(), note(2, r)); !errors.Is(err, ErrFailed) {
		t.Fatalf("got %v, want ErrFailed", err)
	}
	select {
	case <-q.Failed():
	default:
		t.Error("Failed is not closed")
	}
	if err := q.Append(t.Context(), note(3, r)); !errors.Is(err, ErrFailed) {
		t.Errorf("after the failure: %v, want ErrFailed", err)
	}
	q.Close()
	q = openTest(t, dir, Config{})
	r = mustReader(t, q, "link/cloud")
	if got := fmt.Sprint(payloads(take(t, r, r.Acked(), 10))); got != "[1]" {
		t.Errorf("after reopening: %s", got)
	}
}

func TestManySubmittersShareCommits(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	r := mustReader(t, q, "link/cloud")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for i := range 40 {
				mustAppend(t, q, note(i, r))
			}
		})
	}
	wg.Wait()
	st := q.Stats()
	if st.Last != 2000 || st.Readers[0].Waiting != 2000 {
		t.Errorf("%+v", st)
	}
	if st.Commits > 1500 {
		t.Errorf("%d commits for 2000 messages of 50 submitters: nothing was shared", st.Commits)
	}
}

// While a commit is under way nothing is acknowledged.
func TestNothingIsDoneBeforeTheCommit(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	s := q.segments[0]
	hold, err := s.db.Begin(true) // bbolt has one writer: the commit waits for it
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	m := note(1)
	q.Submit(&m, func(_ uint64, err error) { done <- err })
	q.filling.mu.Lock()
	for len(q.filling.batch.entries) > 0 { // until the committer has taken it
		q.filling.mu.Unlock()
		runtime.Gosched()
		q.filling.mu.Lock()
	}
	q.filling.mu.Unlock()
	select {
	case <-done:
		t.Error("done before the commit")
	default:
	}
	if err := hold.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Cursors reach the disk by themselves within flushEvery.
func TestCursorsAreFlushed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q, err := Open(dir, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		r := mustReader(t, q, "link/cloud")
		for i := range 3 {
			mustAppend(t, q, note(i, r))
			r.Ack(uint64(i + 1))
			time.Sleep(2 * flushEvery) // of the bubble's clock
			synctest.Wait()
			r.mu.Lock()
			flushed := r.stored.acked
			r.mu.Unlock()
			if flushed != uint64(i+1) {
				t.Errorf("flushed %d, want %d", flushed, i+1)
			}
		}
	})
}
