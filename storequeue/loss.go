package storequeue

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// A Loss is messages that were acknowledged and will not be delivered: what
// Headgate never does in silence.
type Loss struct {
	ID       string // to strike it out by; see Losses
	Reader   string // its name; empty: whom they were for cannot be read
	Reason   Reason
	Count    uint64    // with ReasonDamaged at most: what lay before a reader's place cannot always be told from the rest
	Topics   []string  // the first ten; empty where they cannot be read
	From, To time.Time // when the first and the last of them were accepted, or, with ReasonDamaged, found
}

// A Reason says why messages are lost. Its values are in what people and
// programs read.
type Reason string

// The reasons of the queue itself.
const (
	ReasonFull    Reason = "max_size" // the oldest made room for newer ones
	ReasonAge     Reason = "max_age"
	ReasonExpired Reason = "expired" // at its publisher's wish
	ReasonDamaged Reason = "damaged"
	ReasonDropped Reason = "dropped" // by a person
	ReasonState   Reason = "state"   // no message: readers, and what they keep, are as they were a minute earlier
)

// merge counts more of the same.
func (l *Loss) merge(more *Loss) {
	if l.Count == 0 || more.From.Before(l.From) {
		l.From = more.From
	}
	if l.Count == 0 || more.To.After(l.To) {
		l.To = more.To
	}
	l.Count += more.Count
	for _, topic := range more.Topics {
		if len(l.Topics) < lossTopics && !slices.Contains(l.Topics, topic) {
			l.Topics = append(l.Topics, topic)
		}
	}
}

func (l *Loss) encode() []byte {
	b := appendString([]byte{lossVersion}, l.Reader)
	b = appendString(b, string(l.Reason))
	b = binary.AppendUvarint(b, l.Count)
	b = binary.AppendVarint(b, l.From.UnixMilli())
	b = binary.AppendVarint(b, l.To.UnixMilli())
	b = binary.AppendUvarint(b, uint64(len(l.Topics)))
	for _, topic := range l.Topics {
		b = appendString(b, topic)
	}
	return b
}

const lossVersion = 1

func decodeLoss(b []byte) (l Loss, err error) {
	c := cursor{b: b}
	if c.take(1)[0] != lossVersion {
		c.fail()
	}
	l.Reader, l.Reason, l.Count = c.string(), Reason(c.string()), c.uvarint()
	l.From, l.To = time.UnixMilli(c.varint()), time.UnixMilli(c.varint())
	for n := c.count(1); n > 0; n-- {
		l.Topics = append(l.Topics, c.string())
	}
	return l, c.err
}

// A toll is a loss that counts, in state.db and here.
type toll struct {
	key     string // in bucketLosses: reader and number
	loss    Loss
	shut    bool // being announced: what is lost from now on goes to another
	changes int  // of loss
	stored  int  // changes, as state.db has them
}

// tolls are what one reader lost that was not struck out yet. The reader's
// mutex covers them.
type tolls struct {
	all  []*toll
	last uint64 // number
}

func (t *tolls) add(id ReaderID, more *Loss) {
	i := slices.IndexFunc(t.all, func(x *toll) bool { return !x.shut && x.loss.Reason == more.Reason && x.loss.Reader == more.Reader })
	if i < 0 {
		i = len(t.all)
		t.last++
		t.all = append(t.all, &toll{
			key:  string(binary.BigEndian.AppendUint64(key(uint64(id)), t.last)),
			loss: Loss{Reader: more.Reader, Reason: more.Reason},
		})
	}
	t.all[i].loss.merge(more)
	t.all[i].changes++
}

func (t *tolls) strike(id string) {
	t.all = slices.DeleteFunc(t.all, func(x *toll) bool { return x.key == id })
}

// lose counts what r will not get. It wants mu held.
func (r *Reader) lose(more *Loss) {
	if r.lost == nil {
		r.lost = map[Reason]uint64{}
	}
	r.lost[more.Reason] += more.Count
	if r != r.q.house {
		more.Reader = r.name
	}
	r.tolls.add(r.id, more)
	r.changes++
}

// Drop says of a message that Next returned, and that is not acknowledged yet,
// that it will not be delivered: once r is acknowledged up to it, it is lost for
// that reason. Telling it twice is harmless.
func (r *Reader) Drop(m *Message, why Reason) {
	l := left{m.Seq, Loss{Reason: why, Count: 1, Topics: []string{m.Topic}, From: m.Time, To: m.Time}}
	r.mu.Lock()
	defer r.mu.Unlock()
	i, told := slices.BinarySearchFunc(r.left, m.Seq, func(x left, seq uint64) int { return cmp.Compare(x.seq, seq) })
	if !told && m.Seq > r.acked {
		r.left = slices.Insert(r.left, i, l)
	}
}

// settle counts what Drop told of, behind from and up to to. It wants mu held.
func (r *Reader) settle(from, to uint64) {
	r.left = slices.DeleteFunc(r.left, func(x left) bool {
		if x.seq <= from || x.seq > to {
			return false
		}
		r.lose(&x.loss)
		return true
	})
}

// lose counts what was lost apart from where a reader stands.
func (q *Queue) lose(more Loss) {
	q.house.mu.Lock()
	q.house.lose(&more)
	q.house.mu.Unlock()
	q.state.dirty()
}

// Losses returns what was lost and not struck out yet, across restarts, of the
// readers with those names; nil: of all. What it returned is on disk and does not
// change any more: what is lost after that is another Loss.
func (q *Queue) Losses(of func(reader string) bool) ([]Loss, error) {
	all := q.losers()
	waits := false
	for _, r := range all {
		r.mu.Lock()
		for _, t := range r.tolls.all {
			t.shut = t.shut || of == nil || of(t.loss.Reader)
			waits = waits || t.shut
		}
		r.mu.Unlock()
	}
	if !waits {
		return nil, nil
	}
	if err := q.putAll(all); err != nil {
		return nil, err
	}
	var losses []Loss
	for _, r := range all {
		r.mu.Lock()
		for _, t := range r.tolls.all {
			if t.shut && (of == nil || of(t.loss.Reader)) {
				l := t.loss
				l.ID = t.key
				losses = append(losses, l)
			}
		}
		r.mu.Unlock()
	}
	return losses, nil
}

// StrikeOut removes losses by their IDs, in one commit with r.Checkpoint(seq): r
// has read in the log that they were announced.
func (r *Reader) StrikeOut(seq uint64, ids ...string) error {
	err := r.checkpoint(seq, func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if id == "" || tx.Bucket(bucketLosses) == nil {
				continue
			}
			if err := r.q.state.keys.vault.delete(tx, bucketLosses, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range r.q.losers() {
		l.mu.Lock()
		for _, id := range ids {
			l.tolls.strike(id)
		}
		l.mu.Unlock()
	}
	return nil
}

// inherit has the house tell what a reader lost that is forgotten.
func (q *Queue) inherit(lost []*toll) {
	h := q.house
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range lost {
		h.tolls.all = append(h.tolls.all, &toll{key: t.key, loss: t.loss, shut: true, changes: 1})
		h.changes++
	}
}

// losers are all who may have lost something, the house among them.
func (q *Queue) losers() []*Reader {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	all := []*Reader{q.house}
	for _, r := range q.readers {
		if r.durable {
			all = append(all, r)
		}
	}
	return all
}
