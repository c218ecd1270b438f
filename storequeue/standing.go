package storequeue

import (
	"bytes"

	"go.etcd.io/bbolt"
)

var (
	bucketSkipped = []byte("skipped") // id → stretches
	bucketLosses  = []byte("losses")  // reader and number → Loss
	bucketFresh   = []byte("fresh")   // id of who has acknowledged nothing yet → nothing
	keyClock      = []byte("clock")
)

// written is what one commit says of a reader.
type written struct {
	place   standing
	changes int
	tolls   map[*toll]int // their changes
}

// put writes where r stands, at seq if that is further, and what it lost on the
// way there: both are on disk, or neither.
func (r *Reader) put(tx *bbolt.Tx, seq uint64) (written, error) {
	r.mu.Lock()
	r.settle(0, seq)
	w := written{place: standing{max(seq, r.acked), r.skipped}, changes: r.changes, tolls: map[*toll]int{}}
	losses := map[string][]byte{}
	for _, t := range r.tolls.all {
		if t.changes > t.stored {
			w.tolls[t] = t.changes
			losses[t.key] = t.loss.encode()
		}
	}
	r.mu.Unlock()
	if r != r.q.house {
		if err := w.place.put(tx, &r.q.state.keys.vault, key(uint64(r.id))); err != nil {
			return w, err
		}
		if err := forgetRemovals(tx, r.id, w.place.acked); err != nil {
			return w, err
		}
	}
	for k, v := range losses {
		_, err := tx.CreateBucketIfNotExists(bucketLosses)
		if err == nil {
			err = r.q.state.keys.vault.put(tx, bucketLosses, k, v)
		}
		if err != nil {
			return w, err
		}
	}
	return w, nil
}

func (p *standing) put(tx *bbolt.Tx, v *vault, k []byte) error {
	p.acked = p.skipped.beyond(p.acked)
	p.skipped = p.skipped.behind(p.acked)
	if at := number(v.fact(tx, bucketCursors, k)); at < p.acked {
		if err := v.putFact(tx, bucketCursors, k, key(p.acked)); err != nil {
			return err
		}
		if b := tx.Bucket(bucketFresh); b != nil {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	if len(p.skipped) > 0 {
		if _, err := tx.CreateBucketIfNotExists(bucketSkipped); err != nil {
			return err
		}
		return v.putFact(tx, bucketSkipped, k, p.skipped.encode())
	}
	if b := tx.Bucket(bucketSkipped); b != nil && b.Get(k) != nil {
		return b.Delete(k)
	}
	return nil
}

// wrote notes that the commit is on disk.
func (r *Reader) wrote(w written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.place.acked > r.stored.acked || w.changes > r.kept {
		r.stored = w.place
		r.trimRemoved()
	}
	r.kept = max(r.kept, w.changes)
	for t, n := range w.tolls {
		t.stored = max(t.stored, n)
	}
}

// place is what counts for whether r still needs something: where it stands on
// disk, if it stands there at all. A segment that goes must not be missed after
// a crash.
func (r *Reader) place() standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.durable {
		return standing{r.acked, r.skipped}
	}
	return r.stored
}

// unsaved reports whether state.db has something else.
func (r *Reader) unsaved() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.durable && (r.acked > r.stored.acked || r.changes > r.kept)
}

// putAll writes where readers stand, all in one commit. Those that are
// forgotten meanwhile are left out.
func (q *Queue) putAll(all []*Reader) error {
	wrote := map[*Reader]written{}
	committed := q.committed.Load()
	err := q.update(func(tx *bbolt.Tx) error {
		clear(wrote)
		for _, r := range all {
			if there, err := r.isThere(tx); err != nil {
				return err
			} else if !there {
				continue
			}
			w, err := r.put(tx, 0)
			if err != nil {
				return err
			}
			wrote[r] = w
		}
		if err := q.putClock(tx); err != nil {
			return err
		}
		return q.state.keys.vault.putFact(tx, bucketMeta, keyCommitted, key(committed))
	})
	if err != nil {
		return err
	}
	for r, w := range wrote {
		r.wrote(w)
	}
	return nil
}

func (r *Reader) isThere(tx *bbolt.Tx) (bool, error) {
	if r == r.q.house {
		return true, nil
	}
	id, err := r.q.state.keys.vault.get(tx, bucketReaders, r.name)
	return bytes.Equal(id, key(uint64(r.id))), err
}

// restore puts back what put wrote. Nobody else knows r yet.
func (r *Reader) restore(tx *bbolt.Tx, at uint64) error {
	if data := r.q.state.keys.vault.fact(tx, bucketSkipped, key(uint64(r.id))); data != nil {
		var err error
		if r.skipped, err = decodeStretches(data); err != nil {
			return err
		}
	}
	if r.q.state.keys.vault.fact(tx, bucketFresh, key(uint64(r.id))) != nil {
		r.start = at
	}
	at = r.skipped.beyond(at)
	r.skipped = r.skipped.behind(at)
	r.acked, r.high, r.newest, r.ahead.after = at, at, at, at
	r.stored = standing{at, r.skipped}
	return nil
}

// restoreLosses gives each reader what it lost before this start and nobody
// heard of; the house has what readers lost that are forgotten.
func (q *Queue) restoreLosses(tx *bbolt.Tx) error {
	return q.state.keys.vault.each(tx, bucketLosses, func(k string, v []byte) error {
		l, err := decodeLoss(v)
		if err != nil || len(k) != 16 {
			return err
		}
		id, n := ReaderID(number([]byte(k[:8]))), number([]byte(k[8:]))
		r := q.readers[id]
		if r == nil {
			r = q.house
		}
		if id == r.id {
			r.tolls.last = max(r.tolls.last, n)
		}
		r.tolls.all = append(r.tolls.all, &toll{key: k, loss: l, shut: true})
		return nil
	})
}
