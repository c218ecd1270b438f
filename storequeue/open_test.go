package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
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

// A folder that lost state.db is not taken for an empty one.
func TestMissingState(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	mustAppend(t, q, note(1, mustReader(t, q, "x")))
	q.Close()
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil {
		t.Fatal(err)
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
	if _, err := createSegment(dir, 7, 1); err != nil { // power went before state.db
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
