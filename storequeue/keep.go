package storequeue

import (
	"errors"
	"time"
)

// flushEvery bounds how often cursors are written: they follow at most this
// far behind, and a flash disk is spared.
const flushEvery = 100 * time.Millisecond

// lookEvery is how often is looked for what is too old, too much or mostly dead.
const lookEvery = time.Second

// keepLoop writes cursors, skips what is too old or too much, and takes from the
// disk what nobody needs, until Close.
func (q *Queue) keepLoop() {
	pause, later := time.NewTimer(0), time.NewTimer(copyEvery)
	defer pause.Stop()
	defer later.Stop()
	<-pause.C
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-q.state.nudge:
			q.keep(false)
		case <-look.C:
			q.keep(true)
		case <-later.C:
			q.keep(false)
		case <-q.stop:
			q.keep(false)
			return
		}
		later.Reset(q.keepCopy())
		pause.Reset(flushEvery)
		select {
		case <-pause.C:
		case <-q.stop:
			q.keep(false)
			return
		}
	}
}

// keep puts the folder in order; look says that it is time to look for more.
func (q *Queue) keep(look bool) {
	q.keeping.Lock()
	defer q.keeping.Unlock()
	err := q.shedAll(look)
	if err == nil {
		err = q.flushCursors()
	}
	if err == nil {
		err = q.unlinkSegments()
	}
	if err == nil && look {
		_, err = q.compact(false)
	}
	if err == nil || q.Err() != nil || q.isClosed() {
		q.upkeep = ""
		return
	}
	if text := err.Error(); text != q.upkeep { // once, not ten times a second
		q.upkeep = text
		q.log.Error("the queue's folder cannot be kept in order; trying again", "error", err)
	}
	q.state.dirty()
}

// shedAll skips what is too old, or more than a reader may have.
func (q *Queue) shedAll(look bool) error {
	var errs []error
	now := time.Now()
	if look {
		q.clock.look(now, q.committed.Load())
	}
	for _, r := range q.limited() {
		if look {
			errs = append(errs, r.look(now))
		}
		errs = append(errs, r.trim())
	}
	return errors.Join(errs...)
}

// flushCursors writes the cursors that moved, all in one commit.
func (q *Queue) flushCursors() error {
	var all []*Reader
	for _, r := range q.losers() {
		if r.unsaved() {
			all = append(all, r)
		}
	}
	if len(all) == 0 && !q.clock.overdue() {
		return nil
	}
	return q.putAll(all)
}

// anyNeeds wants segMu held.
func (q *Queue) anyNeeds(s *segment) bool {
	for id := range s.marks {
		if r := q.readers[id]; r != nil && r.needs(s) {
			return true
		}
	}
	return false
}

// segmentsWith lists, in order, the segments that hold something for a reader
// at a place.
func (q *Queue) segmentsWith(id ReaderID, at standing) []*segment {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	var with []*segment
	for _, s := range q.segments {
		if at.left(s.first, s.marks[id].last) > 0 {
			with = append(with, s)
		}
	}
	return with
}
