package storequeue

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// rewriteBytes is how much of a segment is in memory while it is rewritten.
const rewriteBytes = 1 << 20

// A rewriter makes a sealed, sparse segment of records that are there already.
type rewriter struct {
	db   *bbolt.DB
	made *segment
	with seal
	next uint64 // the lowest sequence that may come
	b    batch
	runs []run // of consecutive records, in b
}

type run struct {
	first        uint64
	start, entry int // where in b it begins
}

// buildSegment makes, at tmp, the file of a segment that stands for the
// sequences from first to last: of the records that each hands to put, as they
// are, in rising order. Its marks are counted anew. The file is on disk when it
// returns; what it returns is not opened, and has the path tmp.
func buildSegment(tmp string, with seal, first, last uint64, each func(put func(seq uint64, rec []byte) error) error) (*segment, error) {
	s := &segment{path: tmp, first: first, last: last, seal: with, sealed: true, marks: map[ReaderID]markCount{}}
	s.sparse.Store(true)
	err := buildBolt(tmp, func(db *bbolt.DB) error {
		w := &rewriter{db: db, made: s, with: with.again(), next: first}
		err := db.Update(s.begin)
		if err == nil {
			err = each(w.put)
		}
		if err == nil {
			err = w.flush()
		}
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			if err := tx.Bucket(bucketInfo).Put(keySparse, key(last)); err != nil {
				return err
			}
			if err := s.putSealed(tx); err != nil {
				return err
			}
			return stamp(tx)
		})
		if err != nil {
			return err
		}
		return db.View(func(tx *bbolt.Tx) error {
			s.bytes.Store(tx.Size())
			return nil
		})
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build %s: %w", tmp, err), ignoreMissing(os.Remove(tmp)))
	}
	return s, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// put takes one record, which must verify at its sequence. It keeps none of
// rec's bytes.
func (w *rewriter) put(seq uint64, rec []byte) error {
	if seq < w.next || seq > w.made.last {
		return fmt.Errorf("record %d is not between %d and %d", seq, w.next, w.made.last)
	}
	body, err := w.with.open(rec, seq)
	if err != nil {
		return fmt.Errorf("record %d: %w", seq, err)
	}
	w.made.body += uint64(len(body))
	for m := range marks(body) {
		w.made.mark(m.Reader, seq, len(body))
	}
	if len(w.runs) == 0 || seq != w.next {
		w.runs = append(w.runs, run{first: seq, start: len(w.b.buf), entry: len(w.b.entries)})
	}
	w.b.buf = append(w.b.buf, rec...)
	w.b.entries = append(w.b.entries, entry{stored: len(w.b.buf)})
	w.next = seq + 1
	if len(w.b.buf) < rewriteBytes {
		return nil
	}
	return w.flush()
}

// flush puts what has gathered into the file.
func (w *rewriter) flush() error {
	err := w.db.Update(func(tx *bbolt.Tx) error {
		records := tx.Bucket(bucketRecords)
		records.FillPercent = 1.0 // keys only grow
		for i, r := range w.runs {
			end := len(w.b.entries)
			if i+1 < len(w.runs) {
				end = w.runs[i+1].entry
			}
			if err := w.b.put(records, w.b.buf, r.first, r.start, w.b.entries[r.entry:end]); err != nil {
				return err
			}
		}
		return stamp(tx)
	})
	w.b.reset()
	w.runs = w.runs[:0]
	return err
}

// rewrite puts in place of a sealed segment's file one with the records that
// each hands to put, while others read it. What the readers have in it is
// counted anew; it still stands for all its sequences.
func (q *Queue) rewrite(s *segment, each func(put func(seq uint64, rec []byte) error) error) error {
	q.rewriting.Lock()
	defer q.rewriting.Unlock()
	made, err := buildSegment(s.path+tmpSuffix, s.seal, s.first, s.last, each)
	if err != nil {
		return err
	}
	q.segMu.Lock()
	s.body = made.body
	s.marks = made.marks // before the file: whoever finds less than it says looks further
	q.segMu.Unlock()
	s.sparse.Store(true)
	if err := s.replace(made.path); err != nil {
		return errors.Join(fmt.Errorf("rewrite segment %s: %w", s.path, err), ignoreMissing(os.Remove(made.path)))
	}
	s.bytes.Store(made.bytes.Load())
	q.wear.written.Add(uint64(made.bytes.Load()))
	return nil
}

// eachRecord calls fn with every record from a sequence on as it lies there,
// which is verified by nobody.
func eachRecord(records *bbolt.Bucket, from uint64, fn func(seq uint64, rec []byte) error) error {
	c := records.Cursor()
	for k, data := c.Seek(key(from)); k != nil; k, data = c.Next() {
		v, err := openValue(number(k), data)
		if err != nil {
			continue
		}
		for seq, rec, ok := v.next(); ok; seq, rec, ok = v.next() {
			if seq < from {
				continue
			}
			if err := fn(seq, rec); err != nil {
				return err
			}
		}
	}
	return nil
}
