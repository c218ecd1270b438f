package admin

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of a Histogram's buckets; there is one more for
// everything longer.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 10 * time.Second,
}

// A Histogram counts how long something took. The zero value is empty. Safe
// for concurrent use: Observe takes no lock and makes no garbage.
type Histogram struct {
	counts [len(bounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Latency is how long messages take.
type Latency struct {
	Commit       Histogram // one commit of the queue
	Acknowledged Histogram // from a client's PUBLISH to its acknowledgement
	Delivered    Histogram // from PUBLISH to a subscriber
	Polled       Histogram // from when a poll was due until the device was asked
}
