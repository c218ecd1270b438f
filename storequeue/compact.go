package storequeue

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// A sealed segment of which less than half is needed is rewritten with that
// half only, so that a reader that stays away holds what it needs and not what
// lay around it.
const (
	compactAfter = 10 * time.Second // of being mostly dead: most segments go soon, whole
	compactShare = 5                // of the time, at most one part in so many is spent on it
	compactWorth = 256 << 10        // bytes to win, at least
)

// compact rewrites the segment from which most comes back, if one is worth it,
// and reports whether it did. now does not wait until it has been so for a
// while. It wants keeping held.
func (q *Queue) compact(now bool) (shrunk bool, err error) {
	began := time.Now()
	if !now && began.Before(q.compactNext) {
		return false, nil
	}
	s, needed := q.worthCompacting(now, began)
	if s == nil {
		return false, nil
	}
	sound := func(*bbolt.Tx) error { return nil }
	if err := q.viewSound(s, sound, func() bool { return true }); err != nil {
		return false, err
	}
	before := s.bytes.Load()
	s.tried = needed + 1
	places := q.places(s)
	err = q.rewrite(s, func(put func(uint64, []byte) error) error {
		return s.view(func(tx *bbolt.Tx) error {
			return eachRecord(tx.Bucket(bucketRecords), s.first, func(seq uint64, rec []byte) error {
				body, err := s.seal.open(rec, seq)
				if err != nil {
					return fmt.Errorf("record %d: %w", seq, err)
				}
				needed, err := anyOf(places, seq, body)
				if needed {
					err = put(seq, rec)
				}
				return err
			})
		})
	})
	took := time.Since(began)
	q.compactNext = time.Now().Add((compactShare - 1) * took)
	if err != nil {
		return false, fmt.Errorf("compact segment %s: %w", s.path, err)
	}
	q.compacted.Add(1)
	q.compactedBytes.Add(uint64(s.bytes.Load()))
	q.log.Debug("a segment is compacted", "segment", s.path, "before", before, "after", s.bytes.Load(), "took", took)
	return s.bytes.Load() < before, nil
}

// worthCompacting picks a segment. What is needed of one is an estimate: by
// whom, and how far they have come in it.
func (q *Queue) worthCompacting(now bool, t time.Time) (best *segment, needed uint64) {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	win := int64(min(compactWorth, q.cfg.SegmentSize/8))
	for _, s := range q.segments[:len(q.segments)-1] {
		if !s.sealed {
			continue
		}
		n := q.needed(s)
		size := s.bytes.Load()
		if int64(float64(n)*overhead) > size/2 || s.tried > 0 && n >= s.tried/2 {
			s.dead = time.Time{}
			continue
		}
		if s.dead.IsZero() {
			s.dead = t
		}
		if w := size - int64(float64(n)*overhead); w >= win && (now || t.Sub(s.dead) >= compactAfter) {
			best, needed, win = s, n, w
		}
	}
	return best, needed
}

// needed estimates the bytes of records that somebody needs. It wants the
// segments lock held.
func (q *Queue) needed(s *segment) (n uint64) {
	for id, k := range s.marks {
		r := q.readers[id]
		if r == nil || k.last < s.first {
			continue
		}
		p := wants{r.place(), r, r.removals()}
		left := k.bytes
		for _, x := range p.removed {
			if of := x.Segments[s.first]; of.Marked == k.n {
				left -= min(of.Bytes, left)
			}
		}
		n += uint64(float64(left) * float64(p.left(s.first, k.last)) / float64(k.last-s.first+1))
	}
	return n
}

// wants is what a reader needs of what is marked for it. What has expired
// stays until its turn: only then is it counted as lost.
type wants struct {
	standing
	r       *Reader
	removed []removal
}

// anyOf reports whether one of them needs a record.
func anyOf(all map[ReaderID]wants, seq uint64, body []byte) (bool, error) {
	for m := range marks(body) {
		p, ok := all[m.Reader]
		if !ok || !p.needs(seq) {
			continue
		}
		if len(p.removed) == 0 {
			return true, nil
		}
		h, topic, err := readHead(body)
		if err != nil || !p.r.isRemoved(p.removed, seq, &Message{Topic: topic, Time: h.at}) {
			return err == nil, err
		}
	}
	return false, nil
}

// places are where the readers stand that have something in s.
func (q *Queue) places(s *segment) map[ReaderID]wants {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	all := map[ReaderID]wants{}
	for id := range s.marks {
		if r := q.readers[id]; r != nil {
			all[id] = wants{r.place(), r, r.removals()}
		}
	}
	return all
}
