package storequeue

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// scan calls fn with each verified body from seq on until fn says stop.
func (s *segment) scan(records *bbolt.Bucket, from uint64, fn func(seq uint64, body []byte) (bool, error)) error {
	return s.scanOver(records, from, fn, func(seq uint64, err error) error { return fmt.Errorf("record %d: %w", seq, err) })
}

// scanOver is scan that asks bad about a record that is not what was written:
// nil goes on behind it.
func (s *segment) scanOver(records *bbolt.Bucket, from uint64, fn func(uint64, []byte) (bool, error), bad func(uint64, error) error) error {
	c, with := records.Cursor(), s.seal.again()
	behind := from // what lay under the last key
	for k, data := c.Seek(key(from)); k != nil; k, data = c.Next() {
		last := number(k)
		v, err := openValue(last, data)
		for seq := max(behind, s.begins(last, data)); err != nil && seq <= last; seq++ {
			if err := bad(seq, err); err != nil {
				return err
			}
		}
		behind = last + 1
		more, err := with.scanValue(&v, from, fn, bad)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// begins guesses where a bundle begins whose head is damaged: no later than it
// did, unless sequences may be missing before it. Then its count is believed.
func (s *segment) begins(last uint64, bundle []byte) uint64 {
	n := uint64(bundleMost)
	if s.sparse.Load() && len(bundle) > 1 {
		n = min(n, max(uint64(bundle[1]), 1))
	}
	return last - min(last, n) + 1
}

func (s seal) scanValue(v *value, from uint64, fn func(uint64, []byte) (bool, error), bad func(uint64, error) error) (more bool, err error) {
	for seq, rec, ok := v.next(); ok; seq, rec, ok = v.next() {
		if seq < from {
			continue
		}
		if more, err := s.show(seq, rec, fn, bad); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// show verifies one record.
func (s seal) show(seq uint64, rec []byte, fn func(uint64, []byte) (bool, error), bad func(uint64, error) error) (more bool, err error) {
	more = true
	body, err := s.open(rec, seq)
	if err == nil {
		more, err = fn(seq, body)
	}
	if err != nil {
		return true, bad(seq, err)
	}
	return more, nil
}

// pick is scanOver for the records with these sequences, which rise. Those that
// are not here are left out.
func (s *segment) pick(records *bbolt.Bucket, seqs []uint64, fn func(uint64, []byte) (bool, error), bad func(uint64, error) error) error {
	c, with := records.Cursor(), s.seal.again()
	var v value
	var damaged error // of what lies under the key last
	first, _ := slices.BinarySearch(seqs, s.first)
	place := make([]byte, 8)
	last := uint64(0)
	for _, seq := range seqs[first:] {
		if seq > last {
			var k, data []byte
			if last > 0 && seq == last+1 {
				k, data = c.Next()
			} else {
				binary.BigEndian.PutUint64(place, seq)
				k, data = c.Seek(place)
			}
			if k == nil {
				return nil
			}
			last = number(k)
			v, damaged = openValue(last, data)
		}
		more, err := true, error(nil)
		if damaged != nil {
			err = bad(seq, damaged)
		} else if rec, ok := v.skipTo(seq); ok {
			more, err = with.show(seq, rec, fn, bad)
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}
