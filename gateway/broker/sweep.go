package broker

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// The sweep is the one timer for all sessions that wait for their client.
const (
	minSweep = 100 * time.Millisecond
	maxSweep = 10 * time.Second
)

// sweepLoop ends sessions whose time has come and sends delayed wills, until
// ctx ends.
func (b *Broker) sweepLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			b.sweep(time.Now())
		case <-b.sooner:
		}
		b.mu.Lock()
		next := b.nextSweep
		b.mu.Unlock()
		timer.Reset(max(time.Until(next), minSweep))
	}
}

// sweep does what is due, and says in nextSweep when to look again.
func (b *Broker) sweep(now time.Time) {
	var ended []*session
	var wills []*will
	var unsaved []unsavedEnd
	b.mu.Lock()
	next := now.Add(maxSweep)
	for _, s := range b.sessions {
		if s.free != nil {
			if !s.saved.IsZero() {
				unsaved = append(unsaved, unsavedEnd{s, time.Time{}})
			}
			continue
		}
		if s.will != nil && !now.Before(s.willAt) {
			wills = append(wills, s.will)
			s.will = nil
		}
		switch {
		case s.over(now):
			s.free = make(chan struct{})
			ended = append(ended, s)
			continue
		case s.kept && !s.saved.Equal(s.ends):
			unsaved = append(unsaved, unsavedEnd{s, s.ends})
		}
		if s.will != nil && s.willAt.Before(next) {
			next = s.willAt
		}
		if s.ends.Before(next) {
			next = s.ends
		}
	}
	b.nextSweep = next
	b.mu.Unlock()
	b.settleSweep(ended, wills)
	if err := b.saveEnds(unsaved); err != nil {
		b.log.Error("save when sessions end: trying again", "error", err)
	}
}

// shorten lets no session that is away outlive the longest from now.
func (b *Broker) shorten(now time.Time, longest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	latest := now.Add(longest)
	for _, s := range b.sessions {
		if s.free != nil { // held: detach asks for the limit
			continue
		}
		s.expiry = min(s.expiry, longest)
		if s.ends.After(latest) {
			s.ends = latest
			b.sweepBy(latest)
		}
		if s.willAt.After(s.ends) { // section 3.1.3.2.2: not later than the session ends
			s.willAt = s.ends
		}
	}
}

func (b *Broker) settleSweep(ended []*session, wills []*will) {
	for _, w := range wills {
		b.publishWill(w)
	}
	for _, s := range ended {
		var waited uint64
		if s.reader != nil {
			waited = s.reader.Waiting()
		}
		if err := b.wipe(s); err != nil {
			b.log.Error("end session: trying again", "client", s.clientID, "error", err)
			b.mu.Lock()
			s.ends = time.Now().Add(maxSweep)
			b.mu.Unlock()
			b.letGo(s)
			continue
		}
		b.tell(slog.LevelInfo, eventExpired, "session expired", "client", s.clientID, "identity", s.owner, "waiting", waited)
		b.drop(s)
	}
}

// An unsavedEnd is when a session ends; zero: it is connected.
type unsavedEnd struct {
	s    *session
	ends time.Time
}

// saveEnds writes down what the queue's state has otherwise.
func (b *Broker) saveEnds(all []unsavedEnd) error {
	if len(all) == 0 {
		return nil
	}
	changes := make([]storequeue.Change, len(all))
	for i, u := range all {
		changes[i] = storequeue.Change{Bucket: bucketEnds, Key: u.s.key()}
		if !u.ends.IsZero() {
			changes[i].Value = strconv.AppendInt(nil, u.ends.Unix(), 10)
		}
	}
	if err := b.queue.SetState(changes...); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range all {
		u.s.saved = u.ends
		if connected := u.s.free != nil; connected != u.ends.IsZero() {
			b.nextSweep = time.Now() // it came or went meanwhile
		}
	}
	return nil
}
