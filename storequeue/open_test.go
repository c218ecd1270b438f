package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

func TestMissingQueue(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Config{MustExist: true}); !errors.Is(err, ErrMissing) {
		t.Errorf("no folder: %v", err)
	}
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	mustAppend(t, q, note(1, mustReader(t, q, "x")))
	q.Close()
	if err := os.Remove(segmentPath(dir, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Config{}); !errors.Is(err, ErrMissing) {
		t.Errorf("no segment: %v", err)
	}
}

// A folder that lost state.db and its copy is not taken for an empty one.
func TestMissingState(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	mustAppend(t, q, note(1, mustReader(t, q, "x")))
	q.Close()
	for _, name := range []string{stateFile, stateCopy} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(segmentPath(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Config{}); err == nil {
		t.Error("a queue without its state was opened")
	}
	if after, err := os.ReadFile(segmentPath(dir, 1)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the segment was touched: %v", err)
	}
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, Config{})
	if _, err := Open(dir, Config{}); err == nil {
		t.Error("a second process could open the queue")
	}
}

func TestLeftoversOfACreation(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"seg-0000000000000001.db.tmp", "state.db.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := createSegment(dir, seal{epoch: 7}, 1); err != nil { // power went before state.db
		t.Fatal(err)
	}
	q := openTest(t, dir, Config{})
	mustAppend(t, q, note(1))
}

func TestStateAndCheckpoint(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "retained")
	mustAppend(t, q, note(1, r), note(2, r))
	if err := q.SetState(Change{"sessions", "a", []byte("1")}, Change{"sessions", "b", []byte("2")}); err != nil {
		t.Fatal(err)
	}
	if err := r.Checkpoint(1, Change{"sessions", "a", nil}, Change{"retained", "t", []byte{}}); err != nil {
		t.Fatal(err)
	}
	q.Close()
	q = openTest(t, dir, Config{})
	var got []string
	for _, bucket := range []string{"none", "retained", "sessions"} {
		if err := q.State(bucket, func(k string, v []byte) error {
			got = append(got, fmt.Sprintf("%s/%s=%s", bucket, k, v))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if want := "[retained/t= sessions/b=2]"; fmt.Sprint(got) != want {
		t.Errorf("state %v, want %s", got, want)
	}
	if got := mustReader(t, q, "retained").Acked(); got != 1 {
		t.Errorf("cursor at %d, want 1", got)
	}
}

// Check may run while messages are committed.
func TestCheckBesideCommits(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{SegmentSize: 64 << 10})
	r := mustReader(t, q, "link/cloud")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				mustAppend(t, q, note(i, r))
				r.Ack(uint64(i))
			}
		}
	})
	for range 100 {
		if err := q.Check(); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// What counts as used is what the files take, and a segment's file stays under
// its bound with the last commit in it.
func TestBytesAreWhatTheDiskHolds(t *testing.T) {
	dir := t.TempDir()
	const segment, quota = 1 << 20, 8 << 20
	q := openTest(t, dir, Config{SegmentSize: segment, MaxSize: quota})
	r := mustReader(t, q, "x")
	m := note(1, r)
	m.Payload = make([]byte, 2020) // two to a page leave much of it empty
	var err error
	for err == nil {
		err = q.Append(t.Context(), m, m, m, m, m, m, m, m)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	var used, largest int64
	files, _ := filepath.Glob(filepath.Join(dir, "seg-*"))
	for _, f := range files {
		var st syscall.Stat_t
		if err := syscall.Stat(f, &st); err != nil {
			t.Fatal(err)
		}
		used += st.Blocks * 512
		largest = max(largest, st.Blocks*512)
	}
	if got := q.Stats().Bytes; used > quota+quota/10 || got < used*9/10 || got > used*11/10 {
		t.Errorf("the disk holds %d bytes, Stats says %d, the quota is %d", used, got, quota)
	}
	if largest > segment+segment/4 {
		t.Errorf("a segment takes %d bytes, its bound is %d", largest, segment)
	}
}

// A reader that found a backlog at the start hears of what comes after it.
func TestNextAfterABacklog(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	mustAppend(t, q, note(1, mustReader(t, q, "x")))
	q.Close()
	q = openTest(t, dir, Config{})
	r := mustReader(t, q, "x")
	if got := fmt.Sprint(payloads(take(t, r, r.Acked(), 10))); got != "[1]" {
		t.Fatalf("backlog %s", got)
	}
	r.Ack(1)
	for i := 2; i < 5; i++ {
		got := make(chan []Message, 1)
		go func() {
			msgs, _ := r.Next(t.Context(), uint64(i-1), 10)
			got <- msgs
		}()
		mustAppend(t, q, note(i, r))
		if msgs := <-got; len(msgs) != 1 || msgs[0].Seq != uint64(i) {
			t.Fatalf("got %v, want %d", payloads(msgs), i)
		}
	}
}

// A record that is not what was written is left out and counted; what lies
// around it comes.
func TestDamagedRecordIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "x")
	for i := range 9 {
		mustAppend(t, q, note(i, r))
	}
	err := q.segments[0].commit(&wear{}, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRecords)
		rec := bytes.Clone(b.Get(key(5)))
		rec[len(rec)-sumSize-1] ^= 1
		return b.Put(key(5), rec)
	})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, q, note(9, r)) // or the damage would be in the last commit, which can be taken back
	if got := fmt.Sprint(payloads(take(t, r, 0, 100))); got != "[0 1 2 3 5 6 7 8 9]" {
		t.Errorf("got %s", got)
	}
	if got := q.Stats().Damaged; got != 1 {
		t.Errorf("%d damaged, want 1", got)
	}
	if err := q.Check(); err == nil {
		t.Error("Check found nothing")
	}
	q.Close()
	if q, err = Open(dir, Config{}); err != nil { // it lies in the active segment, which is counted at open
		t.Fatal(err)
	}
	defer q.Close()
	r = mustReader(t, q, "x")
	if got := fmt.Sprint(payloads(take(t, r, 0, 100))); got != "[0 1 2 3 5 6 7 8 9]" {
		t.Errorf("after reopening %s", got)
	}
}

// fillSegments appends what does not fit into one small segment.
func fillSegments(t *testing.T, q *Queue, r *Reader) {
	t.Helper()
	for i := range 50 {
		m := note(i, r)
		m.Payload = make([]byte, 1000)
		mustAppend(t, q, m)
	}
}

// Without its newest segment a queue would give sequence numbers twice.
func TestNewestSegmentMissing(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{SegmentSize: 4 << 10})
	r := mustReader(t, q, "x")
	fillSegments(t, q, r)
	newest := q.segments[len(q.segments)-1].path
	q.Close()
	if err := os.Remove(newest); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Config{}); !errors.Is(err, ErrMissing) {
		t.Errorf("opened without its newest segment: %v", err)
	}
}

// A file that cannot be removed does not keep the others.
func TestOneStubbornFile(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{SegmentSize: 4 << 10})
	r := mustReader(t, q, "x")
	fillSegments(t, q, r)
	first := segmentPath(dir, 1)
	if err := os.Rename(first, first+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(first, "x"), 0o700); err != nil { // a folder cannot be removed like a file
		t.Fatal(err)
	}
	r.Ack(q.Stats().Last)
	files := 0
	for files != 2 { // the stubborn one and the active one; the keeper works beside us
		runtime.Gosched()
		left, _ := filepath.Glob(filepath.Join(dir, "seg-*.db"))
		files = len(left)
	}
}
