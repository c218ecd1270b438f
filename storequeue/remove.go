package storequeue

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// A Selection picks among the messages that wait for a reader. The zero one
// picks all of them.
type Selection struct {
	Filter   string    // of topics
	From, To time.Time // accepted at From or later, and before To; zero: open
}

func (s *Selection) picks(match func(filter, topic string) bool, m *Message) bool {
	return (s.Filter == "" || match(s.Filter, m.Topic)) &&
		(s.From.IsZero() || !m.Time.Before(s.From)) && (s.To.IsZero() || m.Time.Before(s.To))
}

// Picks reports whether m is one of those selected.
func (q *Queue) Picks(s *Selection, m *Message) bool { return s.picks(q.cfg.Match, m) }

// A removal takes messages from a reader that stay in the log until its cursor
// has passed them: their order, their sequence numbers and the other readers do
// not change. It says which by what they are, so it is small whatever their
// number; as stretches it would be as many as there are messages.
type removal struct {
	Filter   string `json:",omitempty"`
	From, To int64  `json:",omitempty"` // Unix milliseconds; 0: open
	Upto     uint64 // the last sequence it is about

	// Segments has what it took of each, so that opening need not count.
	Segments map[uint64]removedOf // by first sequence
}

// removedOf is what a removal took of a segment that held Marked records for the reader.
type removedOf struct{ Marked, Count, Bytes uint64 }

var bucketRemoved = []byte("removed") // reader id, last sequence, random → removal

// maxRemovals bounds what each message is held against when it is read.
const maxRemovals = 100

func (x *removal) selection() Selection {
	s := Selection{Filter: x.Filter}
	if x.From != 0 {
		s.From = time.UnixMilli(x.From)
	}
	if x.To != 0 {
		s.To = time.UnixMilli(x.To)
	}
	return s
}

// removals are those that are on disk. They are not to be changed.
func (r *Reader) removals() []removal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed
}

func (r *Reader) isRemoved(all []removal, seq uint64, m *Message) bool {
	for i := range all {
		if s := all[i].selection(); seq <= all[i].Upto && s.picks(r.q.cfg.Match, m) {
			return true
		}
	}
	return false
}

// Remove takes from r the messages up to and including upto that are selected,
// in one commit with what changes makes of them. On disk when it returns. They
// will not be given out again; what Next has given out already may still be on
// its way, and counts as removed unless it was acknowledged meanwhile. The
// removed are returned as a Loss: whether they are one is for the caller to say.
func (r *Reader) Remove(sel Selection, upto uint64, changes func(Loss) []Change) (Loss, error) {
	if !r.durable || sel.Filter != "" && r.q.cfg.Match == nil {
		return Loss{}, errors.New("nothing can be removed selectively here")
	}
	r.reading.Lock()
	if r.held {
		r.reading.Unlock()
		return Loss{}, fmt.Errorf("messages are being removed from %s by somebody else: try again when that is done", r.name)
	}
	r.held = true
	r.reading.Unlock()
	defer func() {
		r.reading.Lock()
		r.held = false
		r.reading.Unlock()
		r.wakeUp()
	}()
	t, err := r.tally(sel, min(upto, r.q.committed.Load()))
	if err != nil || t.loss.Count == 0 {
		return t.loss, err
	}
	if err := r.storeRemoval(t, changes); err != nil {
		return Loss{}, fmt.Errorf("remove messages of %s: %w", r.name, err)
	}
	r.apply(t)
	r.q.state.dirty()
	return t.loss, nil
}

// Lose counts what r will not get, until it is announced. On disk when it
// returns. Called by changes of Remove, a crash announces too much rather than
// nothing.
func (r *Reader) Lose(l Loss) error {
	r.mu.Lock()
	r.lose(&l)
	r.mu.Unlock()
	return r.q.putAll([]*Reader{r})
}

// A tally is what a removal would take.
type tally struct {
	removal removal
	loss    Loss
	bytes   uint64
	handed  []handed // of what was given out
	next    uint64   // the first message that stays, or 0
}

// tally counts. Nothing is given out meanwhile, so what is acknowledged
// meanwhile has been given out before.
func (r *Reader) tally(sel Selection, upto uint64) (*tally, error) {
	t := &tally{removal: removal{Filter: sel.Filter, Upto: upto, Segments: map[uint64]removedOf{}}, loss: Loss{Reader: r.name}}
	if !sel.From.IsZero() {
		t.removal.From = sel.From.UnixMilli()
	}
	if !sel.To.IsZero() {
		t.removal.To = sel.To.UnixMilli()
	}
	r.mu.Lock()
	after, given := r.acked, slices.Clone(r.handed)
	r.mu.Unlock()
	for {
		found, err := r.collect(context.Background(), after, 1024, everything)
		if err != nil || len(found.msgs) == 0 {
			return t, err
		}
		for i := range found.msgs {
			m := &found.msgs[i]
			switch {
			case m.Seq > upto:
				if t.next == 0 {
					t.next = m.Seq
				}
				return t, nil
			case !r.q.Picks(&sel, m):
				if t.next == 0 {
					t.next = m.Seq
				}
			default:
				t.add(r.q, m, found.sizes[i], given)
			}
			after = m.Seq
		}
	}
}

func (t *tally) add(q *Queue, m *Message, size int, given []handed) {
	t.loss.add(m)
	t.bytes += uint64(size)
	if i, ok := slices.BinarySearchFunc(given, m.Seq, func(h handed, seq uint64) int { return int(h.seq) - int(seq) }); ok {
		t.handed = append(t.handed, given[i])
	}
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	for i := len(q.segments) - 1; i >= 0; i-- {
		if s := q.segments[i]; s.first <= m.Seq {
			of := t.removal.Segments[s.first]
			id := m.For[0].Reader
			t.removal.Segments[s.first] = removedOf{Marked: s.marks[id].n, Count: of.Count + 1, Bytes: of.Bytes + uint64(size)}
			return
		}
	}
}

// lossTopics is how many topics a loss names.
const lossTopics = 10

func (l *Loss) add(m *Message) {
	if l.Count == 0 || m.Time.Before(l.From) {
		l.From = m.Time
	}
	if l.Count == 0 || m.Time.After(l.To) {
		l.To = m.Time
	}
	l.Count++
	if len(l.Topics) < lossTopics && !slices.Contains(l.Topics, m.Topic) {
		l.Topics = append(l.Topics, m.Topic)
	}
}

func (r *Reader) storeRemoval(t *tally, changes func(Loss) []Change) error {
	r.mu.Lock()
	n := len(r.removed)
	r.mu.Unlock()
	if n >= maxRemovals {
		return fmt.Errorf("%d removals stand before it: wait until the reader has passed them, or remove without a filter", n)
	}
	value, err := json.Marshal(t.removal)
	if err == nil {
		err = r.q.Err()
	}
	if err != nil {
		return err
	}
	var more []Change
	if changes != nil {
		more = changes(t.loss)
	}
	return r.q.update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketRemoved)
		if err == nil {
			err = r.q.state.apply(tx, more)
		}
		if err != nil {
			return err
		}
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		return r.q.state.keys.vault.putAt(tx, bucketRemoved, removalKey(r.id, t.removal.Upto, n), "", value)
	})
}

func removalKey(id ReaderID, upto, n uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key(uint64(id)), upto), n)
}

// apply makes a removal that is on disk count.
func (r *Reader) apply(t *tally) {
	r.mu.Lock()
	count, size := t.loss.Count, t.bytes
	for _, h := range t.handed {
		if h.seq <= r.acked { // it arrived meanwhile
			count--
			size -= uint64(h.size)
		}
	}
	t.loss.Count = count
	r.out += count
	r.handed = slices.DeleteFunc(r.handed, func(h handed) bool {
		return slices.ContainsFunc(t.handed, func(o handed) bool { return o.seq == h.seq })
	})
	r.waiting -= min(count, r.waiting)
	r.bytes -= min(size, r.bytes)
	r.removed = append(r.removed[:len(r.removed):len(r.removed)], t.removal)
	upto := r.newest
	if t.next > 0 {
		upto = t.next - 1
	}
	r.mu.Unlock()
	r.advance(upto) // over the removed that no other stands before
}

// trimRemoved wants mu held: it forgets what the cursor on disk has passed.
func (r *Reader) trimRemoved() {
	if slices.ContainsFunc(r.removed, func(x removal) bool { return x.Upto <= r.stored.acked }) {
		r.removed = slices.DeleteFunc(slices.Clone(r.removed), func(x removal) bool { return x.Upto <= r.stored.acked })
	}
}

// forgetRemovals takes a reader's removals up to a sequence off the disk.
func forgetRemovals(tx *bbolt.Tx, id ReaderID, upto uint64) error {
	b := tx.Bucket(bucketRemoved)
	if b == nil {
		return nil
	}
	var done [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(key(uint64(id))); len(k) == 24 && bytes.HasPrefix(k, key(uint64(id))) && number(k[8:16]) <= upto; k, _ = c.Next() {
		done = append(done, bytes.Clone(k))
	}
	for _, k := range done {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// openRemovals restores what was removed and still stands in the log, and
// takes it out of the counts.
func (q *Queue) openRemovals() error {
	bad := 0
	err := q.state.db.View(func(tx *bbolt.Tx) error {
		return eachFact(tx, bucketRemoved, func(k, data []byte) error {
			_, v, err := q.state.keys.vault.open(bucketRemoved, k, data)
			if err != nil {
				bad++
				return nil
			}
			r := q.readers[ReaderID(number(k[:min(8, len(k))]))]
			var x removal
			if err := json.Unmarshal(v, &x); err != nil {
				return fmt.Errorf("what was removed: %w", err)
			}
			if r != nil && x.Upto > r.acked {
				r.removed = append(r.removed, x)
			}
			return nil
		})
	})
	q.badFacts(bad)
	if err != nil {
		return err
	}
	for _, r := range q.readers {
		for _, x := range r.removed {
			if x.Filter != "" && q.cfg.Match == nil {
				return errors.New("messages were removed by a topic filter, and nobody here knows filters")
			}
		}
		for _, s := range q.segments {
			if err := r.discount(s); err != nil {
				return err
			}
		}
		if len(r.removed) > 0 && r.waiting == 0 {
			r.acked = r.newest
		}
	}
	return nil
}

// discount takes what was removed out of what counts as waiting in a segment.
func (r *Reader) discount(s *segment) error {
	if len(r.removed) == 0 || s.marks[r.id].last <= r.acked {
		return nil
	}
	var count, size uint64
	known := r.acked < s.first && r.skipped.overlap(s.first-1, s.marks[r.id].last) == 0
	for _, x := range r.removed {
		of := x.Segments[s.first]
		known = known && (of.Count == 0 || of.Marked == s.marks[r.id].n)
		count, size = count+of.Count, size+of.Bytes
	}
	if !known {
		var err error
		if count, size, err = r.countRemoved(s); err != nil {
			return err
		}
	}
	r.waiting -= min(count, r.waiting)
	r.bytes -= min(size, r.bytes)
	return nil
}

func (r *Reader) countRemoved(s *segment) (count, size uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		return s.scanOver(tx.Bucket(bucketRecords), max(r.acked+1, s.first), func(seq uint64, body []byte) (bool, error) {
			if _, ok := markFor(body, r.id); !ok || r.skipped.has(seq) {
				return true, nil
			}
			m, err := decodeBody(body, &Message{})
			if err == nil && r.isRemoved(r.removed, seq, &m) {
				count++
				size += uint64(len(body))
			}
			return true, err
		}, func(uint64, error) error { return nil })
	})
	return count, size, err
}
