package storequeue

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// flushEvery bounds how often cursors are written: they follow at most this
// far behind, and a flash disk is spared.
const flushEvery = 100 * time.Millisecond

// keepLoop writes cursors and unlinks what nobody needs, until Close.
func (q *Queue) keepLoop() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for {
		select {
		case <-q.state.nudge:
		case <-q.stop:
			q.keep()
			return
		}
		q.keep()
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
	if err != nil && q.Err() == nil {
		q.log.Error("queue upkeep", "error", err)
	}
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
	err := q.update(func(tx *bbolt.Tx) error {
		cursors, readers := tx.Bucket(bucketCursors), tx.Bucket(bucketReaders)
		for _, m := range all {
			if readers.Get([]byte(m.r.name)) == nil {
				continue // forgotten meanwhile
			}
			k := key(uint64(m.r.id))
			if number(cursors.Get(k)) >= m.to {
				continue // a Checkpoint was faster
			}
			if err := cursors.Put(k, key(m.to)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range all {
		m.r.mu.Lock()
		m.r.flushed = max(m.r.flushed, m.to)
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
	for _, s := range gone {
		if err := s.close(); err != nil {
			return fmt.Errorf("close segment %s: %w", s.path, err)
		}
		if err := os.Remove(s.path); err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return syncPath(q.dir)
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

// openSegments lists the folder and opens what it finds, oldest first.
func (q *Queue) openSegments() error {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(q.dir, e.Name())
		if strings.HasSuffix(e.Name(), ".tmp") { // never got its name: holds nothing
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		first, ok := parseSegment(e.Name())
		if !ok {
			continue
		}
		s, err := openSegment(path, q.state.epoch)
		if err != nil {
			return fmt.Errorf("%w; move that file away to go on without the messages in it", err)
		}
		if s.first != first {
			return fmt.Errorf("segment %s starts at %d inside: files were renamed; give them their names back", path, s.first)
		}
		q.segments = append(q.segments, s)
	}
	if len(q.segments) == 0 {
		return fmt.Errorf("%w: %s is there, but no segment", ErrMissing, stateFile)
	}
	slices.SortFunc(q.segments, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	active := q.segments[len(q.segments)-1]
	q.committed.Store(active.last)
	if active.sealed {
		return nil
	}
	return active.openForWriting(q.mmapSize())
}

// openReaders restores the durable readers and counts what waits for them.
func (q *Queue) openReaders() error {
	err := q.state.db.View(func(tx *bbolt.Tx) error {
		cursors := tx.Bucket(bucketCursors)
		return tx.Bucket(bucketReaders).ForEach(func(name, id []byte) error {
			at := number(cursors.Get(id))
			if at > q.committed.Load() {
				return fmt.Errorf("reader %s is at %d, but the log ends at %d: the newest segment is missing; put it back", name, at, q.committed.Load())
			}
			r := newReader(q, ReaderID(number(id)), string(name), at)
			r.durable = true
			q.readers[r.id], q.names[r.name] = r, r
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, s := range q.segments {
		if err := q.countWaiting(s); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) countWaiting(s *segment) error {
	partial := false
	for id, k := range s.marks {
		r := q.readers[id]
		if r == nil || k.last <= r.acked {
			continue
		}
		r.newest = k.last
		if r.acked < s.first {
			r.waiting += k.n
		} else {
			partial = true
		}
	}
	if !partial {
		return nil
	}
	return s.countMarks(s.first, func(id ReaderID, seq uint64) {
		if r := q.readers[id]; r != nil && r.acked >= s.first && seq > r.acked {
			r.waiting++
		}
	})
}
