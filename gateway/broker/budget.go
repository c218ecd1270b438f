package broker

import (
	"sync/atomic"
	"time"
)

// A budget is the memory of all outboxes together. Each may have an eighth of
// what is left, so it gets tight for those who hold much, the slow, while there
// is still room for those who hold little.
type budget struct {
	limits *atomic.Pointer[Limits]
	hits   *hits
	used   atomic.Int64 // bytes that wait or are being written
}

const (
	minShare     = 4 << 10                // bytes that an outbox always has
	starvedRetry = 100 * time.Millisecond // until an empty outbox looks whether others left room
)

func (b *budget) left() int { return int(b.limits.Load().OutboxTotal - b.used.Load()) }

func (b *budget) share() int { return max(minShare, b.left()/8) }
