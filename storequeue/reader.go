package storequeue

import (
	"context"
	"errors"
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

	reading sync.Mutex // covers held; held over reading what is given out, and over skipping
	held    bool       // Remove is counting: nothing is given out or skipped

	mu      sync.Mutex // covers the fields below; held for moments only
	start   uint64     // where it was made, if it has acknowledged nothing since; else nowhere
	acked   uint64     // done up to here
	skipped stretches  // behind acked; changed by who holds looking, or shortened by acked
	stored  standing   // acked and skipped, as state.db has them
	high    uint64     // newest that Next returned
	tail    tail       // of the log, as it was last given out
	newest  uint64     // newest committed message marked for it
	stirred bool       // newest rose since the last wakeUp
	waiting uint64     // marked, not acked and not skipped
	bytes   uint64     // of those records
	handed  []handed   // returned by Next, not acked, rising
	ahead   ahead      // of the newest of those that wait
	gone    bool       // forgotten

	removed []removal // what stands in the log and is not for r any more; never changed in place

	limits  Limits
	in, out uint64
	lost    map[Reason]uint64
	oldest  headOf // of what waits, as of the last look
	next    headOf // of what waits and is not in flight
	left    []left // by its caller, not acked, rising
	tolls   tolls  // of what it lost
	changes int    // of skipped and tolls
	kept    int    // changes, as state.db has them
}

// A left message is one that Drop was told of.
type left struct {
	seq  uint64
	loss Loss
}

type handed struct {
	seq  uint64
	size int // of the record
}

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

// Flushed is the sequence up to which everything is done and will be after a
// crash: what Acked was when the cursors were last written.
func (r *Reader) Flushed() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stored.acked
}

// arrived notes a committed message and reports whether it is the first since
// the last wakeUp.
func (r *Reader) arrived(seq uint64, size int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.stirred
	r.stirred = true
	r.newest = seq
	r.ahead.add(seq)
	r.waiting++
	r.in++
	r.bytes += uint64(size)
	return first
}

// wakeUp tells whoever waits in Next to look again.
func (r *Reader) wakeUp() {
	r.mu.Lock()
	r.stirred = false
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Next returns, in order, up to limit messages marked for r with Seq > after
// that are not acknowledged, waiting for the first. It removes nothing: start
// with Acked and go on from the last Seq returned. The caller owns the messages.
// It ends with ctx's error, or with ErrClosed after Close or Forget.
func (r *Reader) Next(ctx context.Context, after uint64, limit int) ([]Message, error) {
	for {
		msgs, err := r.read(ctx, after, limit)
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

// Poll is Next that does not wait: no messages means that there is none now.
func (r *Reader) Poll(after uint64, limit int) ([]Message, error) {
	if r.q.isClosed() {
		return nil, ErrClosed
	}
	return r.read(context.Background(), after, limit)
}

// More reports whether something for r may lie behind a place.
func (r *Reader) More(after uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest > r.from(after)
}

// from is where r goes on that has come to after: not in what it is done with,
// which may be skipped messages that nobody was shown. It wants mu held.
func (r *Reader) from(after uint64) uint64 { return r.skipped.beyond(max(after, r.acked)) }

// Wake tells whoever polls, instead of waiting in Next, that there may be more.
func (r *Reader) Wake() <-chan struct{} { return r.wake }

// Peek is Poll that gives nothing out: it may run beside Next, and reads again
// what Next has returned. Removed messages are not seen.
func (r *Reader) Peek(after uint64, limit int) ([]Message, error) {
	found, err := r.collect(context.Background(), after, limit)
	return found.msgs, err
}

func (r *Reader) read(ctx context.Context, after uint64, limit int) ([]Message, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.held {
		return nil, nil
	}
	found, err := r.collect(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	r.hand(after, &found)
	return found.msgs, nil
}

func (r *Reader) collect(ctx context.Context, after uint64, limit int) (haul, error) {
	r.mu.Lock()
	prev := r.before(after)
	after = r.from(after)
	newest, gone, waiting, skipped := r.newest, r.gone, int(r.waiting), r.skipped
	seqs, known := r.ahead.next(after, limit)
	removed := r.removed
	r.mu.Unlock()
	if gone {
		return haul{}, ErrClosed
	}
	if newest <= after {
		return haul{}, nil
	}
	n := min(limit, waiting)
	found := haul{r: r, newest: newest, prev: prev, skipped: skipped, removed: removed, limit: limit, msgs: make([]Message, 0, n), sizes: make([]int, 0, n), marks: make([]Mark, 0, n)}
	known = known && len(removed) == 0 // of what was removed, there may be more than limit
	for _, s := range r.q.segmentsWith(r.id, standing{after, skipped}) {
		err := r.q.viewSound(s, func(tx *bbolt.Tx) error {
			if known {
				return s.pick(tx.Bucket(bucketRecords), seqs, found.take, found.skip)
			}
			return s.scanOver(tx.Bucket(bucketRecords), max(after+1, s.first), found.take, found.skip)
		}, func() bool { return len(found.msgs) == 0 })
		s.touched.Add(int64(found.bytes))
		if err == nil && !found.full() {
			s.rest() // it goes on in the next one
		}
		switch {
		case errors.Is(err, berrors.ErrDatabaseNotOpen) && !r.q.isClosed():
			continue // unlinked meanwhile: acknowledged by everybody, this reader too
		case errors.Is(err, berrors.ErrDatabaseNotOpen):
			return haul{}, ErrClosed
		case err != nil && len(found.msgs) == 0:
			return haul{}, err
		case err != nil || found.full() || ctx.Err() != nil:
			return found, nil
		}
	}
	return found, nil
}

// before is what the first message behind after follows. It wants mu held.
func (r *Reader) before(after uint64) uint64 {
	switch after {
	case r.start:
		return 0
	case r.tail.seq:
		return r.tail.own
	}
	return r.skipped.beyond(after)
}

// A tail is the last message that was given out, and the last one that was no
// other gateway's.
type tail struct{ seq, own uint64 }

// nowhere is a place that no reader starts from.
const nowhere = ^uint64(0)

// A haul is what one read brings.
type haul struct {
	r       *Reader
	newest  uint64
	prev    uint64 // what the next message follows
	skipped stretches
	removed []removal // of r
	limit   int
	msgs    []Message
	marks   []Mark  // of msgs
	sizes   []int   // of their records
	bytes   int     // together
	last    Message // what the last one had in common with the next
}

func (h *haul) full() bool { return len(h.msgs) >= h.limit || h.bytes >= maxNextBytes }

func (h *haul) take(seq uint64, body []byte) (more bool, err error) {
	if seq > h.newest {
		return false, nil
	}
	mark, ok := markFor(body, h.r.id)
	if !ok || h.skipped.has(seq) {
		return true, nil
	}
	m, err := decodeBody(body, &h.last)
	if err != nil {
		return false, err
	}
	h.last.Topic, h.last.From = m.Topic, m.From
	if h.r.isRemoved(h.removed, seq, &m) {
		return true, nil
	}
	h.marks = append(h.marks, mark)
	if m.Prev = h.prev; m.Origin == "" {
		h.prev = seq
	}
	m.Seq, m.For = seq, h.marks[len(h.marks)-1:len(h.marks):len(h.marks)]
	if m.Note != nil && !leads(body, h.r.id) {
		m.Note = nil
	}
	h.msgs = append(h.msgs, m)
	h.sizes = append(h.sizes, len(body))
	h.bytes += len(body)
	return !h.full(), nil
}

// skip goes on behind a record that is not what was written: one bad sector
// must not hold up what lies behind it.
func (h *haul) skip(seq uint64, err error) error {
	q := h.r.q
	q.damaged.Add(1)
	q.log.Error("a message on disk is damaged and left out; check the disk", "sequence", seq, "reader", h.r.name, "error", err)
	if q.cfg.Damaged != nil {
		q.cfg.Damaged(seq)
	}
	return nil
}

// hand remembers what was given out, so that Ack can count it.
func (r *Reader) hand(after uint64, h *haul) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.handed) > 0 && r.handed[len(r.handed)-1].seq > after {
		r.handed = r.handed[:len(r.handed)-1] // reading again from further back
	}
	if n := len(h.msgs); n > 0 {
		r.tail = tail{h.msgs[n-1].Seq, h.prev}
	}
	for i := range h.msgs {
		r.high = max(r.high, h.msgs[i].Seq)
		if seq := h.msgs[i].Seq; seq > r.acked {
			r.handed = append(r.handed, handed{seq, h.sizes[i]})
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
	if seq = r.skipped.beyond(seq); seq <= r.acked {
		return false
	}
	r.move(seq)
	return true
}

// move lets r be done with everything up to seq. It wants mu held.
func (r *Reader) move(seq uint64) {
	before := r.waiting
	r.acked = seq
	r.skipped = r.skipped.behind(seq)
	r.ahead.pass(seq)
	n := 0
	for n < len(r.handed) && r.handed[n].seq <= seq {
		r.bytes -= min(uint64(r.handed[n].size), r.bytes)
		n++
	}
	r.handed = append(r.handed[:0], r.handed[n:]...)
	r.waiting -= min(uint64(n), r.waiting)
	if seq >= r.newest {
		r.waiting, r.bytes = 0, 0
	}
	r.out += before - r.waiting
	r.settle(seq)
}

// Checkpoint is Ack together with changes to State, in one commit, on disk
// when it returns. It is for durable readers.
func (r *Reader) Checkpoint(seq uint64, changes ...Change) error {
	seq = max(min(seq, r.q.committed.Load()), r.Acked())
	return r.checkpoint(seq, func(tx *bbolt.Tx) error { return r.q.state.apply(tx, changes) })
}

func (r *Reader) checkpoint(seq uint64, also func(*bbolt.Tx) error) error {
	var w written
	err := r.q.update(func(tx *bbolt.Tx) (err error) {
		if err := also(tx); err != nil {
			return err
		}
		w, err = r.put(tx, seq)
		return err
	})
	if err != nil {
		return err
	}
	r.advance(seq)
	r.wrote(w)
	r.q.state.dirty() // a segment may go
	return nil
}

// Waiting is how many messages are marked for r and not acknowledged. It is
// exact while they are acknowledged in the order in which Next gave them.
func (r *Reader) Waiting() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// WaitingBytes is how much log Waiting is: the size of those records.
func (r *Reader) WaitingBytes() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// needs reports whether a segment still holds something for r. What counts is
// the cursor on disk: a segment that goes must not be missed after a crash.
func (r *Reader) needs(s *segment) bool {
	k, ok := s.marks[r.id]
	if !ok {
		return false
	}
	p := r.place()
	return p.left(s.first, k.last) > 0
}
