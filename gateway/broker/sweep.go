package broker

import (
	"context"
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
	var changes []storequeue.Change
	b.mu.Lock()
	next := now.Add(maxSweep)
	for _, s := range b.sessions {
		if s.free != nil {
			if !s.saved.IsZero() {
				changes = append(changes, s.saveEnd(time.Time{}))
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
			changes = append(changes, s.saveEnd(s.ends))
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
	b.settleSweep(ended, wills, changes)
}

func (b *Broker) settleSweep(ended []*session, wills []*will, changes []storequeue.Change) {
	for _, w := range wills {
		b.publishWill(w)
	}
	for _, s := range ended {
		if err := b.wipe(s); err != nil {
			b.log.Error("end session: trying again", "client", s.clientID, "error", err)
			b.mu.Lock()
			s.ends = time.Now().Add(maxSweep)
			b.mu.Unlock()
			b.letGo(s)
			continue
		}
		b.drop(s)
	}
	if len(changes) > 0 {
		if err := b.queue.SetState(changes...); err != nil {
			b.log.Error("save when sessions end", "error", err)
		}
	}
}

// saveEnd is the change that remembers when the session ends; zero: it is
// connected. Broker.mu is held.
func (s *session) saveEnd(ends time.Time) storequeue.Change {
	s.saved = ends
	c := storequeue.Change{Bucket: bucketEnds, Key: s.key()}
	if !ends.IsZero() {
		c.Value = strconv.AppendInt(nil, ends.Unix(), 10)
	}
	return c
}
