package storequeue

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// Reader returns the durable reader of that name, made on first use and then
// placed at the end of the log. Its cursor survives restarts and holds the log
// until Forget. Changes to State are on disk when it returns; if it is made,
// they are in the same commit. One name is for one caller at a time.
func (q *Queue) Reader(name string, changes ...Change) (*Reader, error) {
	if name == "" {
		return nil, errors.New("a reader needs a name")
	}
	q.segMu.RLock()
	r := q.names[name]
	q.segMu.RUnlock()
	if r != nil {
		if len(changes) > 0 {
			return r, q.SetState(changes...)
		}
		return r, nil
	}
	var id ReaderID
	start := q.committed.Load()
	err := q.update(func(tx *bbolt.Tx) error {
		if err := q.state.apply(tx, changes); err != nil {
			return err
		}
		id = ReaderID(number(q.state.keys.vault.fact(tx, bucketMeta, keyLastReader))) + 1
		if id >= firstTemp {
			return errors.New("no reader ids are left")
		}
		if err := q.state.keys.vault.putFact(tx, bucketMeta, keyLastReader, key(uint64(id))); err != nil {
			return err
		}
		if err := q.state.keys.vault.put(tx, bucketReaders, name, key(uint64(id))); err != nil {
			return err
		}
		if _, err := tx.CreateBucketIfNotExists(bucketFresh); err != nil {
			return err
		}
		if err := q.state.keys.vault.putFact(tx, bucketFresh, key(uint64(id)), nil); err != nil {
			return err
		}
		return q.state.keys.vault.putFact(tx, bucketCursors, key(uint64(id)), key(start))
	})
	if err != nil {
		return nil, fmt.Errorf("add reader %s: %w", name, err)
	}
	r = newReader(q, id, name, start)
	r.durable, r.start = true, start
	q.segMu.Lock()
	q.names[name], q.readers[id] = r, r
	q.segMu.Unlock()
	q.state.worthCopying()
	return r, nil
}

// firstTemp is the first id of readers that end with the process. Ids of an
// earlier process may still stand in records, all of them before the place
// where a new reader starts.
const firstTemp ReaderID = 1 << 31

// TransientReader returns a reader that starts at the end of the log and is
// gone with Forget or with the process.
func (q *Queue) TransientReader(name string) (*Reader, error) {
	q.segMu.Lock()
	defer q.segMu.Unlock()
	if q.lastTemp == ^ReaderID(0) {
		return nil, errors.New("no reader ids are left until the next start")
	}
	q.lastTemp++
	r := newReader(q, q.lastTemp, name, q.committed.Load())
	q.readers[r.id] = r
	return r, nil
}

func newReader(q *Queue, id ReaderID, name string, at uint64) *Reader {
	return &Reader{q: q, id: id, name: name, wake: make(chan struct{}, 1), start: nowhere, acked: at, stored: standing{acked: at}, high: at, newest: at, ahead: ahead{after: at}}
}

// Forget removes a reader, in one commit with changes to State if it is
// durable: what only it needed leaves the disk.
func (q *Queue) Forget(r *Reader, changes ...Change) error {
	if r.durable {
		err := q.update(func(tx *bbolt.Tx) error {
			if err := q.state.apply(tx, changes); err != nil {
				return err
			}
			if err := q.state.keys.vault.delete(tx, bucketReaders, r.name); err != nil {
				return err
			}
			if err := forgetRemovals(tx, r.id, ^uint64(0)); err != nil {
				return err
			}
			for _, name := range [][]byte{bucketSkipped, bucketFresh} {
				if b := tx.Bucket(name); b != nil {
					if err := b.Delete(key(uint64(r.id))); err != nil {
						return err
					}
				}
			}
			return tx.Bucket(bucketCursors).Delete(key(uint64(r.id)))
		})
		if err != nil {
			return fmt.Errorf("forget reader %s: %w", r.name, err)
		}
		q.state.worthCopying()
	}
	q.segMu.Lock()
	if q.names[r.name] == r {
		delete(q.names, r.name)
	}
	delete(q.readers, r.id)
	q.bounded = slices.DeleteFunc(slices.Clone(q.bounded), func(x *Reader) bool { return x == r })
	q.segMu.Unlock()
	r.mu.Lock()
	r.gone = true
	lost := r.tolls.all
	r.mu.Unlock()
	q.inherit(lost)
	r.wakeUp()
	q.state.dirty()
	return nil
}
