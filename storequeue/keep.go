package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// flushEvery bounds how often cursors are written: they follow at most this
// far behind, and a flash disk is spared.
const flushEvery = 100 * time.Millisecond

// keepLoop writes cursors and unlinks what nobody needs, until Close.
func (q *Queue) keepLoop() {
	pause, later := time.NewTimer(0), time.NewTimer(copyEvery)
	defer pause.Stop()
	defer later.Stop()
	<-pause.C
	for {
		select {
		case <-q.state.nudge:
		case <-later.C:
		case <-q.stop:
			q.keep()
			return
		}
		q.keep()
		later.Reset(q.keepCopy())
		pause.Reset(flushEvery)
		select {
		case <-pause.C:
		case <-q.stop:
			q.keep()
			return
		}
	}
}

func (q *Queue) keep() {
	err := q.flushCursors()
	if err == nil {
		err = q.unlinkSegments()
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

// flushCursors writes the cursors that moved, all in one commit.
func (q *Queue) flushCursors() error {
	type moved struct {
		r  *Reader
		to uint64
	}
	var all []moved
	q.segMu.RLock()
	for _, r := range q.readers {
		r.mu.Lock()
		if r.durable && r.acked > r.flushed {
			all = append(all, moved{r, r.acked})
		}
		r.mu.Unlock()
	}
	q.segMu.RUnlock()
	if len(all) == 0 {
		return nil
	}
	committed := q.committed.Load()
	err := q.update(func(tx *bbolt.Tx) error {
		for _, m := range all {
			k := key(uint64(m.r.id))
			id, err := q.state.keys.vault.get(tx, bucketReaders, m.r.name)
			if err != nil {
				return err
			}
			if !bytes.Equal(id, k) {
				continue // forgotten meanwhile
			}
			if number(fact(tx, bucketCursors, k)) >= m.to {
				continue // a Checkpoint was faster
			}
			if err := putFact(tx, bucketCursors, k, key(m.to)); err != nil {
				return err
			}
			if err := forgetRemovals(tx, m.r.id, m.to); err != nil {
				return err
			}
		}
		return putFact(tx, bucketMeta, keyCommitted, key(committed))
	})
	if err != nil {
		return err
	}
	for _, m := range all {
		m.r.mu.Lock()
		m.r.flushed = max(m.r.flushed, m.to)
		m.r.trimRemoved()
		m.r.mu.Unlock()
	}
	return nil
}

// unlinkSegments removes sealed segments in which no reader has anything left.
func (q *Queue) unlinkSegments() error {
	q.segMu.Lock()
	var gone []*segment
	active := q.segments[len(q.segments)-1]
	q.segments = slices.DeleteFunc(q.segments, func(s *segment) bool {
		if !s.sealed || s == active || q.anyNeeds(s) {
			return false
		}
		gone = append(gone, s)
		return true
	})
	q.segMu.Unlock()
	var errs []error
	for _, s := range gone {
		if err := s.close(); err != nil {
			errs = append(errs, fmt.Errorf("close segment %s: %w", s.path, err))
		}
		if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return errors.Join(append(errs, syncPath(q.dir), q.dropKeys())...)
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
// after a place.
func (q *Queue) segmentsWith(id ReaderID, after uint64) []*segment {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	var with []*segment
	for _, s := range q.segments {
		if s.marks[id].last > after {
			with = append(with, s)
		}
	}
	return with
}
