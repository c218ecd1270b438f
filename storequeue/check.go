package storequeue

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Stats is a snapshot for people and metrics.
type Stats struct {
	First, Last uint64 // sequence numbers on disk; Last is the newest committed
	Bytes       int64  // disk used by segments
	Segments    int
	Commits     uint64
	Refused     uint64   // messages answered with ErrFull
	Damaged     uint64   // messages lost to damage, and times a reader left one out
	Aside       []string // names of damaged files that were put aside
	AsideBytes  int64    // what they take on the disk, on top of Bytes
	Written     uint64   // bytes handed to the disk since Open; what the file system adds is not in it
	Payload     uint64   // bytes of payload among them
	Readers     []ReaderStats

	Lost map[Reason]uint64 // messages since Open that were lost apart from where a reader stands: to damage

	Compactions    uint64 // segments rewritten, because most of each was dead
	CompactedBytes uint64 // written for it
}

// ReaderStats is one reader's part of Stats.
type ReaderStats struct {
	Name    string
	Acked   uint64
	Waiting uint64 // messages marked for it, not acked and not lost
	Bytes   int64  // of disk that Waiting uses
	Durable bool

	Oldest  time.Time         // when the oldest of them was accepted, a second ago or less; of readers with Limits
	In, Out uint64            // messages since Open: that came, and that it is done with, the lost among them
	Lost    map[Reason]uint64 // messages since Open; nil: none
	Limits  Limits
}

// Stats returns the numbers of this moment. Readers come in no order.
func (q *Queue) Stats() Stats {
	st := Stats{Last: q.committed.Load(), Commits: q.commits.Load(), Refused: q.refused.Load(), Damaged: q.damaged.Load(), Bytes: q.diskBytes(),
		Compactions: q.compacted.Load(), CompactedBytes: q.compactedBytes.Load()}
	st.Aside, st.AsideBytes = aside(q.dir)
	q.house.mu.Lock()
	st.Lost = maps.Clone(q.house.lost)
	q.house.mu.Unlock()
	st.Written, st.Payload = q.wear.written.Load(), q.wear.payload.Load()
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	st.Segments = len(q.segments)
	st.First = q.segments[0].first
	for _, r := range q.readers {
		used, _ := r.usage()
		r.mu.Lock()
		x := ReaderStats{
			Name: r.name, Acked: r.acked, Waiting: r.waiting, Bytes: used, Durable: r.durable,
			In: r.in, Out: r.out, Lost: maps.Clone(r.lost), Limits: r.limits,
		}
		if r.waiting > 0 && r.oldest.seq > r.acked {
			x.Oldest = r.oldest.at
		}
		r.mu.Unlock()
		st.Readers = append(st.Readers, x)
	}
	return st
}

// diskBytes is how much of the segments' files is in use.
func (q *Queue) diskBytes() int64 {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	var n int64
	for _, s := range q.segments {
		n += s.bytes.Load()
	}
	return n
}

// Check reads everything on disk and reports the first broken invariant. It
// may run beside everything else; commits wait while it reads the active
// segment, because bbolt's own check is only right when nothing is written.
func (q *Queue) Check() error {
	q.segMu.RLock()
	segments := append([]*segment(nil), q.segments...)
	last := make([]uint64, len(segments))
	for i, s := range segments {
		last[i] = s.last
	}
	q.segMu.RUnlock()
	next := uint64(1)
	for i, s := range segments {
		if s.first < next {
			return fmt.Errorf("segment %s starts at %d, inside the one before it", s.path, s.first)
		}
		if _, err := s.check(last[i]); err != nil && !q.unlinked(s) {
			return err
		}
		next = last[i] + 1
	}
	return q.checkReaders()
}

// check verifies each record up to last, that none is missing between them
// unless the segment is sparse, and bbolt's own structure. It counts them.
func (s *segment) check(last uint64) (n uint64, err error) {
	err = s.use(func(db *bbolt.DB) error {
		tx, err := db.Begin(!db.IsReadOnly())
		if err != nil {
			return err
		}
		defer tx.Rollback()
		n, err = s.checkRecords(tx.Bucket(bucketRecords), last)
		for e := range tx.Check() { // to its end: it runs beside us
			if err == nil {
				err = e
			}
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("check segment %s: %w", s.path, err)
	}
	return n, nil
}

func (s *segment) checkRecords(records *bbolt.Bucket, last uint64) (n uint64, err error) {
	want := s.first
	err = s.scan(records, s.first, func(seq uint64, body []byte) (bool, error) {
		if seq > last {
			return false, nil // committed since last was read
		}
		if seq != want && (!s.sparse.Load() || seq < want) {
			return false, fmt.Errorf("is where %d was expected", want)
		}
		want = seq + 1
		n++
		_, err := decodeBody(body, &Message{})
		return true, err
	})
	if err == nil && want != last+1 && (!s.sparse.Load() || want > last) {
		err = fmt.Errorf("ends at %d, not at %d", want-1, last)
	}
	return n, err
}

// unlinked reports whether a segment went while it was looked at.
func (q *Queue) unlinked(s *segment) bool {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	return !slices.Contains(q.segments, s)
}

func (q *Queue) checkReaders() error {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	return q.state.db.View(func(tx *bbolt.Tx) error {
		for _, r := range q.readers {
			if !r.durable {
				continue
			}
			at := number(q.state.keys.vault.fact(tx, bucketCursors, key(uint64(r.id))))
			if last := q.committed.Load(); at > last {
				return fmt.Errorf("reader %s is at %d on disk, but the log ends at %d", r.name, at, last)
			}
		}
		return nil
	})
}
