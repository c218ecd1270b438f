package storequeue

import (
	"context"
	"errors"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// A scope is what of what waits is looked at.
type scope struct {
	own   bool   // what is no Live's
	lease *lease // or this part of what is
	upto  uint64
}

var everything = scope{upto: nowhere}

func (r *Reader) collect(ctx context.Context, after uint64, limit int, in scope) (haul, error) {
	r.mu.Lock()
	prev, skipped := r.before(after, r.tail), r.skipped
	if in.lease != nil {
		prev = r.before(after, in.lease.tail, in.lease.base)
	}
	if in.own {
		for _, x := range r.lent() {
			skipped = skipped.with(x)
		}
	}
	after = skipped.beyond(max(after, r.acked))
	newest, gone, waiting := min(r.newest, in.upto), r.gone, int(r.waiting)
	seqs, known := r.ahead.next(after, limit)
	known = known && !(in.own && len(r.leases) > 0)
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
	known = known && len(removed) == 0 // of what is hidden, there may be more than limit
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
	common  Message // what the last one had in common with the next
}

// last is the newest; there is one.
func (h *haul) last() uint64 { return h.msgs[len(h.msgs)-1].Seq }

func (h *haul) full() bool { return len(h.msgs) >= h.limit || h.bytes >= maxNextBytes }

func (h *haul) take(seq uint64, body []byte) (more bool, err error) {
	if seq > h.newest {
		return false, nil
	}
	mark, ok := markFor(body, h.r.id)
	if !ok || h.skipped.has(seq) {
		return true, nil
	}
	m, err := decodeBody(body, &h.common)
	if err != nil {
		return false, err
	}
	h.common.Topic, h.common.From = m.Topic, m.From
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
