package storequeue

import (
	"slices"
	"time"
)

// Limits bound what waits for a reader. Zero values bound nothing.
type Limits struct {
	MaxBytes int64         // of disk: its share of what its segments use
	MaxAge   time.Duration // older messages are skipped, and counted as lost
	WhenFull WhenFull
	Priority int // when the queue is full, the readers with the lowest give way first
}

// WhenFull says what becomes of a message for a reader that is at its limit.
type WhenFull byte

// The two policies.
const (
	Refuse     WhenFull = iota // Submit answers it with ErrFull
	DropOldest                 // the oldest are skipped for it, and counted as lost
)

// Limit sets r's limits, in place of those it had. They hold from now on: what
// waits already is judged by them within a second. A reader without any loses
// nothing, and is never the reason for ErrFull.
func (r *Reader) Limit(l Limits) {
	q := r.q
	q.segMu.Lock()
	if !slices.Contains(q.bounded, r) {
		q.bounded = append(slices.Clone(q.bounded), r)
	}
	q.segMu.Unlock()
	r.mu.Lock()
	r.limits = l
	r.mu.Unlock()
	if l.MaxAge > 0 {
		r.q.clock.use()
	}
	r.q.state.dirty()
}
