package storequeue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// A Reader is a place in the log and a mark to look for. Next is for one
// goroutine at a time; the other methods are safe for concurrent use.
type Reader struct {
	q       *Queue
	id      ReaderID
	name    string
	durable bool
	wake    chan struct{} // room for one

	mu      sync.Mutex // covers the fields below; held for moments only
	acked   uint64     // done up to here
	flushed uint64     // acked, as state.db has it
	newest  uint64     // newest committed message marked for it
	told    uint64     // newest that a wake-up was sent for
	waiting uint64     // marked and not acked
	handed  []uint64   // returned by Next, not acked, rising
	gap     gap        // looked through, nothing found
	gone    bool       // forgotten
}

// gap says that no record in (after, to] is marked for the reader.
type gap struct{ after, to uint64 }

// maxNextBytes bounds the payload that one Next returns, save for its first message.
const maxNextBytes = 1 << 20

// ID is what a Message's marks name.
func (r *Reader) ID() ReaderID { return r.id }

// Name is the name it was opened with.
func (r *Reader) Name() string { return r.name }

// Acked is the sequence up to which everything is done.
func (r *Reader) Acked() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

// arrived notes a committed message and reports whether it is the first since
// the last wakeUp.
func (r *Reader) arrived(seq uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.newest <= r.told
	r.newest = seq
	r.waiting++
	return first
}

// wakeUp tells whoever waits in Next to look again.
func (r *Reader) wakeUp() {
	r.mu.Lock()
	r.told = r.newest
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Next returns, in order, up to limit messages marked for r with Seq > after,
// waiting for the first. It removes nothing: start with Acked and go on from
// the last Seq returned. The caller owns the messages. It ends with ctx's error,
// or with ErrClosed after Close or Forget.
func (r *Reader) Next(ctx context.Context, after uint64, limit int) ([]Message, error) {
	for {
		msgs, err := r.read(after, limit)
		if len(msgs) > 0 || err != nil {
			return msgs, err
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.q.stop:
			return nil, ErrClosed
		}
	}
}

func (r *Reader) read(after uint64, limit int) ([]Message, error) {
	r.mu.Lock()
	newest, gone, waiting := r.newest, r.gone, int(r.waiting)
	from := after
	if r.gap.after <= after && after < r.gap.to {
		from = r.gap.to
	}
	r.mu.Unlock()
	if gone {
		return nil, ErrClosed
	}
	if newest <= from {
		return nil, nil
	}
	msgs := make([]Message, 0, min(limit, waiting))
	size := 0
	for _, s := range r.q.segmentsWith(r.id, from) {
		err := s.view(func(tx *bbolt.Tx) error {
			return s.scan(tx.Bucket(bucketRecords), max(from+1, s.first), func(seq uint64, body []byte) (bool, error) {
				if seq > newest {
					return false, nil
				}
				from = seq
				if !markFor(body, r.id) {
					return true, nil
				}
				m, err := decodeBody(body)
				m.Seq = seq
				msgs = append(msgs, m)
				size += len(body)
				return len(msgs) < limit && size < maxNextBytes, err
			})
		})
		if errors.Is(err, berrors.ErrDatabaseNotOpen) {
			return nil, ErrClosed
		}
		if err != nil {
			return nil, err
		}
		if len(msgs) >= limit || size >= maxNextBytes {
			break
		}
	}
	r.hand(after, from, msgs)
	return msgs, nil
}

// hand remembers what was given out, so that Ack can count it.
func (r *Reader) hand(after, seen uint64, msgs []Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.handed) > 0 && r.handed[len(r.handed)-1] > after {
		r.handed = r.handed[:len(r.handed)-1] // reading again from further back
	}
	if len(msgs) == 0 {
		r.gap = gap{after, seen}
		return
	}
	for i := range msgs {
		if msgs[i].Seq > r.acked {
			r.handed = append(r.handed, msgs[i].Seq)
		}
	}
}

// Ack says that r is done with every message up to and including seq. It takes
// effect at once and reaches the disk soon after; a crash in between shows
// those messages to r again. Ack never moves backwards, and not past the last
// committed message.
func (r *Reader) Ack(seq uint64) {
	if r.advance(seq) {
		r.q.state.dirty()
	}
}

func (r *Reader) advance(seq uint64) bool {
	seq = min(seq, r.q.committed.Load())
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq <= r.acked {
		return false
	}
	r.acked = seq
	n := 0
	for n < len(r.handed) && r.handed[n] <= seq {
		n++
	}
	r.handed = append(r.handed[:0], r.handed[n:]...)
	r.waiting -= min(uint64(n), r.waiting)
	if seq >= r.newest {
		r.waiting = 0
	}
	return true
}

// Checkpoint is Ack together with changes to State, in one commit, on disk
// when it returns. It is for durable readers.
func (r *Reader) Checkpoint(seq uint64, changes ...Change) error {
	seq = max(min(seq, r.q.committed.Load()), r.Acked())
	err := r.q.update(func(tx *bbolt.Tx) error {
		if err := apply(tx, changes); err != nil {
			return err
		}
		return tx.Bucket(bucketCursors).Put(key(uint64(r.id)), key(seq))
	})
	if err != nil {
		return err
	}
	r.advance(seq)
	r.q.state.dirty()
	return nil
}

// needs reports whether a segment still holds something for r. What counts is
// the cursor on disk: a segment that goes must not be missed after a crash.
func (r *Reader) needs(s *segment) bool {
	k, ok := s.marks[r.id]
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.durable {
		return k.last > r.flushed
	}
	return k.last > r.acked
}

// Reader returns the durable reader of that name, made on first use and then
// placed at the end of the log. Its cursor survives restarts and holds the log
// until Forget.
func (q *Queue) Reader(name string) (*Reader, error) {
	if name == "" {
		return nil, errors.New("a reader needs a name")
	}
	q.nameMu.Lock()
	defer q.nameMu.Unlock()
	if r := q.names[name]; r != nil {
		return r, nil
	}
	var id ReaderID
	start := q.committed.Load()
	err := q.update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		id = ReaderID(number(meta.Get(keyLastReader))) + 1
		if id >= firstTemp {
			return errors.New("no reader ids are left")
		}
		if err := meta.Put(keyLastReader, key(uint64(id))); err != nil {
			return err
		}
		if err := tx.Bucket(bucketReaders).Put([]byte(name), key(uint64(id))); err != nil {
			return err
		}
		return tx.Bucket(bucketCursors).Put(key(uint64(id)), key(start))
	})
	if err != nil {
		return nil, fmt.Errorf("add reader %s: %w", name, err)
	}
	r := newReader(q, id, name, start)
	r.durable = true
	q.names[name] = r
	q.segMu.Lock()
	q.readers[id] = r
	q.segMu.Unlock()
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
	return &Reader{q: q, id: id, name: name, wake: make(chan struct{}, 1), acked: at, flushed: at, newest: at, told: at}
}

// Forget removes a reader: what only it needed leaves the disk.
func (q *Queue) Forget(r *Reader) error {
	if r.durable {
		q.nameMu.Lock()
		defer q.nameMu.Unlock()
		err := q.update(func(tx *bbolt.Tx) error {
			if err := tx.Bucket(bucketReaders).Delete([]byte(r.name)); err != nil {
				return err
			}
			return tx.Bucket(bucketCursors).Delete(key(uint64(r.id)))
		})
		if err != nil {
			return fmt.Errorf("forget reader %s: %w", r.name, err)
		}
	}
	if r.durable && q.names[r.name] == r {
		delete(q.names, r.name)
	}
	q.segMu.Lock()
	delete(q.readers, r.id)
	q.segMu.Unlock()
	r.mu.Lock()
	r.gone = true
	r.mu.Unlock()
	r.wakeUp()
	q.state.dirty()
	return nil
}
