package modbus

import (
	"context"
	"math"
	"time"
)

// A beat is when a group is polled: at the first opportunity, and then at
// start + phase + n*interval on a clock that nobody sets, or at whole intervals
// of the clock on the wall.
type beat struct {
	interval time.Duration
	phase    time.Duration
	wall     bool
	start    time.Time
	due      time.Time
}

// spread returns a place between the beats, far from those that were given out
// before: the golden ratio leaves the largest gaps however many there are.
func spread(n uint32, interval time.Duration) time.Duration {
	_, part := math.Modf(float64(n) * (math.Sqrt(5) - 1) / 2)
	return time.Duration(part * float64(interval))
}

// advance moves on to the next beat, and returns how late it is for this one and
// how many it skips because they have passed altogether: after a stall a group
// is polled once, and then on its old beat.
func (b *beat) advance(now time.Time) (late time.Duration, missed int) {
	late = max(0, now.Sub(b.due))
	next := b.after(b.due)
	if b.wall {
		now = now.Round(0)
	}
	if behind := now.Sub(next); behind >= 0 {
		missed = int(behind/b.interval) + 1
		next = next.Add(time.Duration(missed) * b.interval)
	}
	b.due = next
	return late, missed
}

// after returns the beat after t. The first is at least half an interval away.
func (b *beat) after(t time.Time) time.Time {
	if b.wall {
		t = t.Round(0).Add(-b.phase)
		return t.Truncate(b.interval).Add(b.interval + b.phase)
	}
	first := b.start.Add(b.phase)
	least := t.Add(b.interval / 2).Sub(first)
	n := (least + b.interval - 1) / b.interval
	return first.Add(n * b.interval)
}

// wait returns when the beat is due. A clock on the wall may be set meanwhile.
func (b *beat) wait(ctx context.Context) error {
	for {
		left := time.Until(b.due)
		if b.wall && left > b.interval {
			b.due = b.after(time.Now())
			continue
		}
		if left <= 0 {
			return ctx.Err()
		}
		if b.wall {
			left = min(left, time.Minute)
		}
		if err := wait(ctx, left); err != nil {
			return err
		}
	}
}
