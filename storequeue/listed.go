package storequeue

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"go.etcd.io/bbolt"
)

// state.db lists the segments, so that one whose file is gone is missed: each by
// its first sequence, from the commit that makes it the newest to one before it
// is unlinked. What readers have in it is noted when the next one begins.
var bucketSegments = []byte("segments") // first sequence → what readers have in it; nothing: unknown

// listedMost bounds what is noted of one segment: on a gateway with very many
// sessions, what was lost with a file is told in one sum.
const listedMost = 4 << 10

// listing is what is noted of a sealed segment.
func (q *Queue) listing(s *segment) []byte {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	b := appendString(appendString(nil, s.encodeMarks()), s.encodeSizes())
	if len(b) > listedMost {
		return nil
	}
	return b
}

func (v *vault) putListed(tx *bbolt.Tx, first uint64, listing []byte) error {
	if _, err := tx.CreateBucketIfNotExists(bucketSegments); err != nil {
		return err
	}
	return v.putFact(tx, bucketSegments, key(first), listing)
}

func strikeListed(tx *bbolt.Tx, gone []*segment) error {
	b := tx.Bucket(bucketSegments)
	for _, s := range gone {
		if b == nil {
			break
		}
		if err := b.Delete(key(s.first)); err != nil {
			return err
		}
	}
	return nil
}

// readListed returns nil where nothing is listed: by an earlier program, or
// because state.db is a copy, which knows nothing of what was unlinked since.
func (v *vault) readListed(tx *bbolt.Tx) (listed map[uint64][]byte, err error) {
	err = v.eachFact(tx, bucketSegments, func(k, listing []byte) error {
		if listed == nil {
			listed = map[uint64][]byte{}
		}
		listed[number(k)] = slices.Clone(listing)
		return nil
	})
	return listed, err
}

var errGone = errors.New("its file is gone")

// missing is a segment that should be there.
func (q *Queue) missing(with seal, last uint64) *patient {
	s := &segment{path: segmentPath(q.dir, with.first), first: with.first, last: last, seal: with, sealed: true, marks: map[ReaderID]markCount{}}
	c := cursor{b: q.state.listed[with.first]}
	err := s.decodeMarks(c.bytes(), c.bytes())
	return &patient{s: s, cause: errGone, sealed: err == nil && c.err == nil, ends: true}
}

// listAll lists what is there and was not listed.
func (q *Queue) listAll(there []uint64) error {
	there = slices.DeleteFunc(there, func(first uint64) bool {
		_, ok := q.state.listed[first]
		return ok
	})
	q.state.listed = nil
	if len(there) == 0 {
		return nil
	}
	err := q.update(func(tx *bbolt.Tx) error {
		for _, first := range there {
			if err := q.state.keys.vault.putListed(tx, first, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrFull) { // the next start does it
		return nil
	}
	return err
}

// withListed adds what is missing to what is there.
func (q *Queue) withListed(there []uint64) (all []uint64, isThere map[uint64]bool) {
	isThere = map[uint64]bool{}
	for _, first := range there {
		isThere[first] = true
	}
	all = slices.AppendSeq(slices.Clone(there), maps.Keys(q.state.listed))
	slices.Sort(all)
	return slices.Compact(all), isThere
}

// forgetListed takes the list out of a copy of state.db.
func forgetListed(path string) error {
	db, err := bbolt.Open(path, 0o600, boltOptions(0, false))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketSegments) == nil {
			return nil
		}
		return tx.DeleteBucket(bucketSegments)
	})
	return errors.Join(err, db.Close())
}

// unlinkSegments removes sealed segments in which no reader has anything left.
func (q *Queue) unlinkSegments() error {
	var gone []*segment
	q.segMu.RLock()
	for _, s := range q.segments[:len(q.segments)-1] {
		if s.sealed && !q.anyNeeds(s) {
			gone = append(gone, s)
		}
	}
	q.segMu.RUnlock()
	if len(gone) == 0 {
		return nil
	}
	err := q.update(func(tx *bbolt.Tx) error { return strikeListed(tx, gone) })
	if err != nil && !errors.Is(err, ErrFull) { // there, they are missed and nobody needs them
		return err
	}
	q.segMu.Lock()
	q.segments = slices.DeleteFunc(q.segments, func(s *segment) bool { return slices.Contains(gone, s) })
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
	return errors.Join(append(errs, syncPath(q.dir), q.dropKeys())...)
}
