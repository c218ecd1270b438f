package storequeue

import (
	"sync/atomic"
	"testing"
	"time"
)

// Commits are told with what they held and how long they took; the committer is
// busy for as long as a batch is not done with, callbacks included.
func TestCommitsAreTold(t *testing.T) {
	var messages, commits atomic.Int64
	q, err := Open(t.TempDir(), Config{Committed: func(n int, took time.Duration) {
		messages.Add(int64(n))
		if took > 0 {
			commits.Add(1)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	busy := make(chan time.Duration, 1)
	for i := range 3 {
		q.Submit(&Message{Topic: "a"}, func(_ uint64, err error) {
			if err != nil {
				t.Error(err)
			}
			if i == 2 {
				busy <- q.Busy()
			}
		})
	}
	if d := <-busy; d <= 0 {
		t.Errorf("busy for %v in the middle of a batch", d)
	}
	if err := q.Close(); err != nil { // the committer has ended
		t.Fatal(err)
	}
	if messages.Load() != 3 || commits.Load() == 0 || commits.Load() > 3 {
		t.Errorf("%d messages in %d commits, want 3 in 1 to 3", messages.Load(), commits.Load())
	}
	if d := q.Busy(); d != 0 {
		t.Errorf("busy for %v without work", d)
	}
}
