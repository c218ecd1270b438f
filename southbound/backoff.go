package southbound

import (
	"context"
	"math/rand/v2"
	"time"
)

// A backoff gives growing pauses with full jitter, so that many devices that
// failed together do not come back together.
type backoff struct {
	min, max time.Duration
	ceiling  time.Duration // of the next pause; zero after a reset
}

// next returns a pause between zero and a ceiling that doubles from min to max.
func (b *backoff) next() time.Duration {
	b.ceiling = min(max(2*b.ceiling, b.min), b.max)
	return rand.N(b.ceiling)
}

func (b *backoff) reset() { b.ceiling = 0 }

// pause waits for d, or for ctx to end.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
