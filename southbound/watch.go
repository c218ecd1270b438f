package southbound

import (
	"context"
	"time"
)

// A watch knows when each group brought something last.
type watch struct {
	limits map[string]time.Duration // see Device.StaleAfter
	last   map[string]time.Time     // of groups that are not marked
}

func newWatch(limits map[string]time.Duration) watch {
	return watch{limits, make(map[string]time.Time)}
}

// saw notes that a group was read.
func (w *watch) saw(group string) {
	if w.limits[group] > 0 {
		w.last[group] = time.Now()
	}
}

// next returns the group that will be old first, and when.
func (w *watch) next() (group string, at time.Time) {
	for g, seen := range w.last {
		if t := seen.Add(w.limits[g]); at.IsZero() || t.Before(at) {
			group, at = g, t
		}
	}
	return group, at
}

// await is read that marks the values of groups that bring nothing for too long.
func (l *loop) await(ctx context.Context, s Session) (b Batch, err error) {
	if len(l.watch.last) == 0 {
		return l.read(ctx, s)
	}
	done := make(chan struct{})
	go func() { // ends with Read
		defer close(done)
		b, err = l.read(ctx, s)
	}()
	for {
		group, at := l.watch.next()
		if at.IsZero() {
			<-done
			return b, err
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-done:
			timer.Stop()
			return b, err
		case <-timer.C:
			delete(l.watch.last, group)
			if err := l.markStale(ctx, group); err != nil {
				<-done
				return Batch{}, err
			}
		}
	}
}

// markStale publishes what a group brought last, and that it is old.
func (l *loop) markStale(ctx context.Context, group string) error {
	b := Batch{Group: group, Time: time.Now(), Readings: l.reports.stale(l.tags, group)}
	if len(b.Readings) == 0 {
		return nil
	}
	l.log.Warn("nothing read for too long, values are marked as old", "group", group, "limit", l.watch.limits[group])
	return l.send(ctx, &b)
}
