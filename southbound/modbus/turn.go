package modbus

import (
	"context"
	"slices"
	"time"
)

// A rank says who goes first when several wait for a line.
type rank byte

const (
	toWrite rank = iota
	toRead       // somebody waits for the answer
	toPoll
	toProbe // polls of units that do not answer, or were never heard
	toScan
)

// A turn is the wish to ask a unit. Within a rank the earliest deadline goes
// first, and of equals who came first.
type turn struct {
	rank     rank
	unit     int // or noUnit
	deadline time.Time
	granted  time.Time // first; zero: not yet
}

const noUnit = -1

// A waiter is a turn that has not come.
type waiter struct {
	turn
	line chan *line // has room for one
}

// take waits for the turn of a line on which the unit may be asked. The line goes
// back with release.
func (b *Bus) take(ctx context.Context, t *turn) (*line, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &waiter{*t, make(chan *line, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, w)
	b.dispatch()
	b.mu.Unlock()
	select {
	case l := <-w.line:
		if t.granted.IsZero() {
			t.granted = time.Now()
		}
		return l, nil
	case <-ctx.Done():
		b.abandon(w)
		return nil, ctx.Err()
	}
}

// longestWait is for how long after its deadline a unit that does not answer lets
// others go first: on a bus with too much to do nobody waits for ever.
const longestWait = 10 * time.Second

func (w *waiter) before(other *waiter, now time.Time) bool {
	mine, theirs := w.rankAt(now), other.rankAt(now)
	return mine < theirs || mine == theirs && w.deadline.Before(other.deadline)
}

func (w *waiter) rankAt(now time.Time) rank {
	if w.rank == toProbe && now.Sub(w.deadline) > longestWait {
		return toPoll
	}
	return w.rank
}

// acquire is take for who goes before all polls.
func (b *Bus) acquire(ctx context.Context, unit byte) (*line, error) {
	return b.take(ctx, &turn{rank: toWrite, unit: int(unit)})
}

func (b *Bus) release(l *line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, l)
	b.dispatch()
}

// abandon takes back a wish, or the line that it was granted meanwhile.
func (b *Bus) abandon(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, w); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
		return
	}
	b.idle = append(b.idle, <-w.line)
	b.dispatch()
}

// dispatch hands idle lines to those who wait, with b.mu held. Who wants a unit
// that may still answer an earlier request stays where it is, and others need not
// wait for that.
func (b *Bus) dispatch() {
	now, soonest := time.Now(), time.Duration(0)
	for len(b.idle) > 0 {
		first, at := -1, 0
		for i, w := range b.waiting {
			free, owing := b.lineFor(w.unit)
			switch {
			case owing > 0 && (soonest == 0 || owing < soonest):
				soonest = owing
			case owing == 0 && (first < 0 || w.before(b.waiting[first], now)):
				first, at = i, free
			}
		}
		if first < 0 {
			break
		}
		b.waiting[first].line <- b.idle[at]
		b.waiting = slices.Delete(b.waiting, first, first+1)
		b.idle = slices.Delete(b.idle, at, at+1)
	}
	if b.wake != nil {
		b.wake.Stop()
		b.wake = nil
	}
	if soonest > 0 {
		b.wake = time.AfterFunc(soonest, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.dispatch()
		})
	}
}

// lineFor returns the idle line on which a unit may be asked first, and how long
// that still takes.
func (b *Bus) lineFor(unit int) (at int, owing time.Duration) {
	if unit == noUnit {
		return 0, 0
	}
	for i, l := range b.idle {
		d := time.Until(l.owing[byte(unit)])
		if i == 0 || d < owing {
			at, owing = i, d
		}
	}
	return at, max(0, owing)
}
