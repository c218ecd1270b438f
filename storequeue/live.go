package storequeue

import (
	"context"
	"slices"
)

// A Live is a second place of a reader, for what comes while it is still behind:
// parts of the log that are given out and acknowledged there, and that the reader
// itself passes over. What is done there, ahead of the reader's place, is a
// stretch beside its cursor; where the two meet there is one place again. Until
// Split it has nothing. Poll and Split are for the goroutine that polls the
// reader; the other methods are safe for concurrent use.
type Live struct{ r *Reader }

// A Range is of sequences, both ends included.
type Range struct{ First, Last uint64 }

// A lease is a part of the log that is a Live's, in its order; the last is open.
type lease struct {
	from, to   uint64 // behind from, which is done, up to to
	high       uint64 // newest that was given out, perhaps before a crash
	base, tail tail   // where it began, and what was last given out; see before
}

// maxLeases bounds what lies ahead of a reader in parts. With more of them a Live
// goes on where it was instead of beginning at the end.
const maxLeases = 64

// Live returns r's second place, always the same one.
func (r *Reader) Live() *Live { return &Live{r} }

// Split gives l what comes from now on. What waits is the reader's, but for what
// l has given out and is not done, which comes first there. Up to few messages,
// if nothing behind them is done or was given out, are l's too: so they come in order.
// named is what an earlier process may have given out. Nothing must be unanswered
// on the way when it is called. It returns true if all is l's now.
func (l *Live) Split(few uint64, named []Range) (whole bool) {
	r := l.r
	end := r.ownNewest()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.straight() && r.waiting <= few {
		high := r.high
		for _, s := range r.leases {
			high = max(high, s.high)
		}
		r.leases = []lease{{from: r.acked, to: nowhere, high: high, base: tail{r.acked, r.before(r.acked, r.tail)}}}
		r.fresh = r.waiting
		return true
	}
	leases := r.given(named, end.seq)
	if len(leases) >= maxLeases || len(r.skipped) >= maxLeases {
		if len(r.leases) > 0 {
			return false
		}
		end = tail{}
		if n := len(r.skipped); n > 0 {
			end.seq = r.skipped[n-1].to
		}
	}
	end.seq = max(end.seq, r.acked)
	r.fresh = 0
	for _, h := range r.handed {
		if slices.ContainsFunc(leases, func(s lease) bool { return s.from < h.seq && h.seq <= s.to }) {
			r.fresh++
		}
	}
	r.leases = append(leases, lease{from: end.seq, to: nowhere, high: end.seq, base: end})
	return false
}

// straight reports whether nothing behind what is done was given out before it.
// It wants mu held.
func (r *Reader) straight() bool {
	return len(r.skipped) == 0 && !slices.ContainsFunc(r.leases, func(s lease) bool { return s.from > r.acked && s.high > s.from })
}

// given are leases of what a Live gave out and is not done. It wants mu held.
func (r *Reader) given(named []Range, end uint64) (leases []lease) {
	for _, s := range r.leases {
		if s.to = min(s.to, s.high); s.to > s.from {
			leases = append(leases, s)
		}
	}
	if r.leases != nil {
		return leases
	}
	at := r.acked
	for _, x := range named {
		from, to := r.skipped.beyond(max(x.First-1, at)), min(x.Last, end)
		if from < to {
			leases = append(leases, lease{from: from, to: to, high: to, base: tail{seq: from}})
			at = to
		}
	}
	return leases
}

// ownNewest is the newest message for r, and the same again if it was taken here.
func (r *Reader) ownNewest() tail {
	r.mu.Lock()
	t := tail{seq: r.newest}
	r.mu.Unlock()
	if found, err := r.collect(context.Background(), t.seq-min(t.seq, 1), 1, scope{upto: t.seq}); err == nil && len(found.msgs) == 1 && found.msgs[0].Origin == "" {
		t.own = t.seq
	}
	return t
}

// lent are the parts of the log that are a Live's. It wants mu held.
func (r *Reader) lent() (all stretches) {
	for _, s := range r.leases {
		all = all.with(stretch{s.from, s.to})
	}
	return all
}

// free are the parts of the log, in order, of which nothing was given out. It
// wants mu held.
func (r *Reader) free() (all []stretch) {
	at := r.skipped.beyond(max(r.high, r.acked))
	for _, s := range r.leases {
		if at < s.from {
			all = append(all, stretch{at, s.from})
		}
		at = r.skipped.beyond(max(at, s.from, s.high))
	}
	return append(all, stretch{at, nowhere})
}

// Poll is Reader.Poll for what is l's.
func (l *Live) Poll(after uint64, limit int) ([]Message, error) {
	r := l.r
	if r.q.isClosed() {
		return nil, ErrClosed
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.held {
		return nil, nil
	}
	r.mu.Lock()
	leases := slices.Clone(r.leases)
	r.mu.Unlock()
	for _, s := range leases {
		if after >= s.to {
			continue
		}
		at := max(after, s.from)
		found, err := r.collect(context.Background(), at, limit, scope{lease: &s, upto: s.to})
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.hand(at, &found)
		if i := r.leaseTo(s.to); i >= 0 && len(found.msgs) > 0 {
			x := &r.leases[i]
			x.tail, x.high = tail{found.last(), found.prev}, max(x.high, found.last())
		}
		if len(found.msgs) == 0 && s.to < nowhere && !r.inFlight(s.from, s.to) { // the rest of it is gone
			l.pass(s.to)
		}
		r.mu.Unlock()
		if len(found.msgs) > 0 {
			return found.msgs, nil
		}
	}
	return nil, nil
}

// leaseTo finds a lease by its end. It wants mu held.
func (r *Reader) leaseTo(to uint64) int {
	return slices.IndexFunc(r.leases, func(s lease) bool { return s.to == to })
}

// inFlight reports whether something behind from, up to to, was given out and is
// not done. It wants mu held.
func (r *Reader) inFlight(from, to uint64) bool {
	return slices.ContainsFunc(r.handed, func(h handed) bool { return from < h.seq && h.seq <= to })
}

// More reports whether something of l's may lie behind a place.
func (l *Live) More(after uint64) bool {
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.leases, func(s lease) bool { return max(after, s.from) < min(s.to, r.newest) })
}

// Wake is the reader's.
func (l *Live) Wake() <-chan struct{} { return l.r.wake }

// Name is the reader's.
func (l *Live) Name() string { return l.r.name }

// Acked is where l goes on after Split.
func (l *Live) Acked() uint64 {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if len(l.r.leases) == 0 {
		return l.r.acked
	}
	return l.r.leases[0].from
}

// Given is the newest that was given out by l.
func (l *Live) Given() (seq uint64) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	for _, s := range l.r.leases {
		seq = max(seq, s.high)
	}
	return seq
}

// Ack says that everything of l's up to seq is done, as Reader.Ack does.
func (l *Live) Ack(seq uint64) {
	seq = min(seq, l.r.q.committed.Load())
	l.r.mu.Lock()
	moved := l.pass(seq)
	l.r.mu.Unlock()
	if moved {
		l.r.q.state.dirty()
	}
}

// pass wants mu held.
func (l *Live) pass(seq uint64) (moved bool) {
	r := l.r
	before := r.waiting
	for i := range r.leases {
		s := &r.leases[i]
		if to := min(seq, s.to); to > s.from {
			r.pass(s.from, to)
			s.from, moved = to, true
		}
	}
	r.leases = slices.DeleteFunc(r.leases, func(s lease) bool { return s.from >= s.to })
	r.fresh -= min(before-r.waiting, r.fresh)
	return moved
}

// Waiting is how many messages are l's, of those that wait for the reader.
func (l *Live) Waiting() uint64 {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return min(l.r.fresh, l.r.waiting)
}

// Settled is the reader's: it says so of both places.
func (l *Live) Settled(first, last uint64) bool { return l.r.Settled(first, last) }

// passOwn lets r be done with what is its own, and no Live's, up to seq. It wants
// mu held.
func (r *Reader) passOwn(seq uint64) (moved bool) {
	at := r.acked
	for _, s := range r.leases {
		if to := min(seq, s.from); at < to {
			r.pass(at, to)
			moved = true
		}
		at = max(at, s.to)
	}
	if at < seq {
		r.pass(at, seq)
		moved = true
	}
	return moved
}

// pass lets r be done with what is behind from, up to to. It wants mu held.
func (r *Reader) pass(from, to uint64) {
	if from <= r.acked {
		if at := r.skipped.beyond(to); at > r.acked {
			r.move(at)
		}
		return
	}
	before := r.waiting
	r.count(from, to)
	r.skipped = r.skipped.with(stretch{from, to})
	r.ahead.cut(from, to)
	r.out += before - r.waiting
	r.settle(from, to)
	r.changes++
}

// count takes what was given out behind from, up to to, off what waits. It wants
// mu held.
func (r *Reader) count(from, to uint64) {
	i, j := r.placeOf(from+1), r.placeOf(to+1)
	for _, h := range r.handed[i:j] {
		r.bytes -= min(uint64(h.size), r.bytes)
	}
	r.waiting -= min(uint64(j-i), r.waiting)
	r.handed = slices.Delete(r.handed, i, j)
}
