package northbound

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	firstPause  = time.Second
	maxPause    = time.Minute
	steadyAfter = 30 * time.Second // a link that held so long starts over with short pauses
)

// A backoff is a pause with full jitter whose bound doubles from one second to
// most, a minute if that is zero. Its zero value is ready.
type backoff struct{ bound, most time.Duration }

func (b *backoff) reset() { b.bound = 0 }

func (b *backoff) next() time.Duration {
	most := b.most
	if most <= 0 {
		most = maxPause
	}
	b.bound = min(max(2*b.bound, firstPause), most)
	return rand.N(b.bound)
}

// wait pauses, or returns false when ctx ends first.
func (b *backoff) wait(ctx context.Context) bool {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A throttle lets one log line through in a while and counts the others. Its
// zero value is ready and safe for concurrent use.
type throttle struct {
	mu    sync.Mutex // covers the fields below
	last  time.Time
	muted int
}

const logEvery = 10 * time.Second

// allow says whether to log now, and how many lines were left out before.
func (t *throttle) allow() (muted int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.last) < logEvery {
		t.muted++
		return 0, false
	}
	muted, t.muted, t.last = t.muted, 0, now
	return muted, true
}
