package storequeue

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
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
	leases  []lease    // what is the Live's
	fresh   uint64     // of waiting, those that are the Live's
	acked   uint64     // done up to here
	skipped stretches  // behind acked: lost, or done by the Live
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

// Settled reports whether everything from first to last is done, and will be
// after a crash.
func (r *Reader) Settled(first, last uint64) bool {
	p := r.place()
	return p.left(first, last) == 0
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
	if len(r.leases) > 0 {
		r.fresh++
	}
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
	at := r.skipped.beyond(max(after, r.acked))
	for _, s := range r.leases {
		if s.from <= at && at < s.to {
			at = r.skipped.beyond(s.to)
		}
	}
	return r.newest > at
}

// Wake tells whoever polls, instead of waiting in Next, that there may be more.
func (r *Reader) Wake() <-chan struct{} { return r.wake }

// Peek is Poll that gives nothing out: it may run beside Next, and reads again
// what Next has returned. Removed messages are not seen.
func (r *Reader) Peek(after uint64, limit int) ([]Message, error) {
	found, err := r.collect(context.Background(), after, limit, everything)
	return found.msgs, err
}

func (r *Reader) read(ctx context.Context, after uint64, limit int) ([]Message, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.held {
		return nil, nil
	}
	found, err := r.collect(ctx, after, limit, scope{own: true, upto: nowhere})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hand(after, &found)
	if len(found.msgs) > 0 {
		r.tail, r.high = tail{found.last(), found.prev}, max(r.high, found.last())
	} else if len(r.leases) > 0 && after <= max(r.high, r.acked) && !r.inFlightOwn() { // what was left of it is gone
		r.passOwn(r.leases[len(r.leases)-1].from)
	}
	return found.msgs, nil
}

// inFlightOwn reports whether something that is no Live's was given out and is
// not done. It wants mu held.
func (r *Reader) inFlightOwn() bool {
	lent := r.lent()
	return slices.ContainsFunc(r.handed, func(h handed) bool { return !lent.has(h.seq) })
}

// before is what the first message behind after follows, which may be at the end
// of what was given out. It wants mu held.
func (r *Reader) before(after uint64, ends ...tail) uint64 {
	if after == r.start {
		return 0
	}
	for _, t := range ends {
		if t.seq == after {
			return t.own
		}
	}
	return r.skipped.beyond(after)
}

// A tail is the last message that was given out, and the last one that was no
// other gateway's.
type tail struct{ seq, own uint64 }

// nowhere is a place that no reader starts from.
const nowhere = ^uint64(0)

// hand remembers what was given out, so that Ack can count it. What is given out
// again from further back takes the place of what was. It wants mu held.
func (r *Reader) hand(after uint64, h *haul) {
	if len(h.msgs) == 0 {
		return
	}
	var news []handed
	for i := range h.msgs {
		if seq := h.msgs[i].Seq; seq > r.acked && !r.skipped.has(seq) {
			news = append(news, handed{seq, h.sizes[i]})
		}
	}
	lent := r.lent()
	mine := lent.has(h.last())
	from, to := r.placeOf(after+1), r.placeOf(h.last()+1)
	for _, x := range r.handed[from:to] {
		if lent.has(x.seq) != mine { // of the other place
			news = append(news, x)
		}
	}
	if len(lent) > 0 {
		slices.SortFunc(news, func(x, y handed) int { return cmp.Compare(x.seq, y.seq) })
	}
	r.handed = slices.Replace(r.handed, from, to, news...)
}

// placeOf is where a sequence stands in handed, or would. It wants mu held.
func (r *Reader) placeOf(seq uint64) int {
	n, _ := slices.BinarySearchFunc(r.handed, seq, func(h handed, seq uint64) int { return cmp.Compare(h.seq, seq) })
	return n
}

// Ack says that r is done with every message up to and including seq. It takes
// effect at once and reaches the disk soon after; a crash in between shows
// those messages to r again. Ack never moves backwards, and not past the last
// committed message.
func (r *Reader) Ack(seq uint64) {
	seq = min(seq, r.q.committed.Load())
	r.mu.Lock()
	moved := r.passOwn(seq)
	r.mu.Unlock()
	if moved {
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
	r.count(0, seq)
	if seq >= r.newest {
		r.waiting, r.bytes = 0, 0
	}
	r.out += before - r.waiting
	r.settle(0, seq)
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
