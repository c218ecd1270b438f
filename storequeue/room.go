package storequeue

import (
	"cmp"
	"fmt"
	"slices"
	"syscall"
)

// reserve is what messages of the gateway itself may use beyond MaxSize.
const reserve = 1 << 20

// overhead is what a byte of a record costs on disk where it was not measured:
// its key, its page, and what is free in both.
const overhead = 1.2

// commitBytes is what a commit may write besides its records: pages anew, the next segment.
const commitBytes = 64 << 10

// usage is the disk that what waits for r uses, and what a byte of its records
// costs there. It wants the segments lock held.
func (r *Reader) usage() (used int64, rate float64) {
	r.mu.Lock()
	waiting, acked := r.bytes, r.acked
	r.mu.Unlock()
	if waiting == 0 {
		return 0, overhead
	}
	var records, disk float64
	for _, s := range r.q.segments {
		if k := s.marks[r.id]; k.last > acked {
			records += float64(k.bytes)
			disk += float64(k.bytes) * s.rate()
		}
	}
	if rate = overhead; records > 0 {
		rate = disk / records
	}
	return int64(float64(waiting) * rate), rate
}

// rate is what a byte of record costs on disk in s. It wants the segments lock
// held.
func (s *segment) rate() float64 {
	if s.body == 0 || !s.sealed && s.body < 64<<10 { // what bbolt needs for itself would count for too much
		return overhead
	}
	return max(1, float64(s.bytes.Load())/float64(s.body))
}

// limited lists the readers that have limits. It is not to be changed.
func (q *Queue) limited() []*Reader {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	return q.bounded
}

// admit takes out of a batch what may not be stored: what is for a reader at its
// limit that refuses, and, while the queue is full, all but the gateway's own.
func (q *Queue) admit(b *batch) {
	left := q.leftOf(b)
	full := q.hasRoom(int64(len(b.buf)))
	if full != nil {
		full = q.relieve(int64(len(b.buf)))
	}
	if left == nil && full == nil {
		return
	}
	spare := q.maxSize.Load() + reserve - q.diskBytes()
	refused := b.sift(func(body []byte, e *entry) error {
		size := int64(float64(len(body)) * overhead)
		if full != nil && (!e.own || spare < size) {
			return full
		}
		if err := q.leftFor(left, body, size); err != nil && !e.own {
			return err
		}
		if e.own {
			spare -= size
		}
		return nil
	})
	q.refused.Add(uint64(refused))
}

// A lane is what may still come for a reader that refuses.
type lane struct {
	r           *Reader
	used, limit int64
}

// leftOf lists, by reader, those for which the batch may be too much. Readers
// that drop their oldest and are far beyond their limit do so now: the keeper
// has not kept up.
func (q *Queue) leftOf(b *batch) map[ReaderID]*lane {
	var left map[ReaderID]*lane
	for _, r := range q.limited() {
		r.mu.Lock()
		l := r.limits
		r.mu.Unlock()
		if l.MaxBytes <= 0 {
			continue
		}
		q.segMu.RLock()
		used, _ := r.usage()
		q.segMu.RUnlock()
		switch more := int64(float64(len(b.buf)) * overhead); {
		case l.WhenFull == DropOldest && used > l.MaxBytes:
			q.state.dirty()
			if used > l.MaxBytes+l.MaxBytes/8 {
				if err := r.trim(); err != nil {
					q.log.Error("skip the oldest messages", "reader", r.name, "error", err)
				}
			}
		case l.WhenFull == Refuse && used+more > l.MaxBytes:
			if left == nil {
				left = map[ReaderID]*lane{}
			}
			left[r.id] = &lane{r, used, l.MaxBytes}
		}
	}
	return left
}

// leftFor takes from what is left for the readers of a message, or says which
// of them has too little.
func (q *Queue) leftFor(left map[ReaderID]*lane, body []byte, size int64) error {
	if left == nil {
		return nil
	}
	for m := range marks(body) {
		if l := left[m.Reader]; l != nil && l.used+size > l.limit {
			return fmt.Errorf("%w: %d of %d bytes used for %s", ErrFull, l.used, l.limit, l.r.name)
		}
	}
	for m := range marks(body) {
		if l := left[m.Reader]; l != nil {
			l.used += size
		}
	}
	return nil
}

// sift takes out the entries for which why has an error, and returns how many.
// They are answered with it, in their turn.
func (b *batch) sift(why func(body []byte, e *entry) error) (refused int) {
	calls := make([]call, len(b.entries))
	kept, start, end := b.entries[:0], 0, 0
	for i, e := range b.entries {
		rec := b.buf[start:e.end]
		start = e.end
		calls[i] = call{e.done, why(rec[:len(rec)-sumSize], &e)}
		if calls[i].err != nil {
			refused++
			continue
		}
		end += copy(b.buf[end:], rec)
		e.end = end
		kept = append(kept, e)
	}
	if refused > 0 {
		b.entries, b.buf, b.calls = kept, b.buf[:end], calls
	}
	return refused
}

// A call answers one Submit.
type call struct {
	done func(uint64, error)
	err  error // it was refused
}

// answer tells everybody in a batch what became of it, in the order in which
// they came.
func (b *batch) answer(first uint64, err error) {
	if b.calls == nil {
		for i := range b.entries {
			if err != nil {
				b.entries[i].done(0, err)
			} else {
				b.entries[i].done(first+uint64(i), nil)
			}
		}
		return
	}
	for _, c := range b.calls {
		switch {
		case c.err != nil:
			c.done(0, c.err)
		case err != nil:
			c.done(0, err)
		default:
			c.done(first, nil)
			first++
		}
	}
}

// HasRoom is nil while a message would be stored, and otherwise the error with
// which Submit would refuse it. A reader's own limit does not count.
func (q *Queue) HasRoom() error {
	if err := q.Err(); err != nil {
		return err
	}
	err := q.hasRoom(1)
	if err != nil && q.canGiveWay() {
		return nil
	}
	return err
}

// hasRoom answers ErrFull when n more bytes would pass a limit.
func (q *Queue) hasRoom(n int64) error {
	n += n/2 + commitBytes
	if used := q.diskBytes(); used+n > q.maxSize.Load() {
		return fmt.Errorf("%w: %d of %d bytes used", ErrFull, used, q.maxSize.Load())
	}
	if q.minFree.Load() > 0 {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(q.dir, &fs); err == nil && int64(fs.Bavail)*int64(fs.Bsize)-n < q.minFree.Load() {
			return fmt.Errorf("%w: the disk has less than %d bytes left", ErrFull, q.minFree.Load())
		}
	}
	return nil
}

// relieve makes room for n more bytes, and says why not if there is none to be
// had: segments that nobody needs go, mostly dead ones shrink, and then the
// readers that drop their oldest give way, lowest priority first.
func (q *Queue) relieve(n int64) error {
	q.keeping.Lock()
	defer q.keeping.Unlock()
	for {
		full := q.hasRoom(n)
		if full == nil {
			return nil
		}
		freed, err := q.freeSome()
		if err != nil {
			return fmt.Errorf("%w, and none can be made: %w", full, err)
		}
		if !freed {
			return full
		}
	}
}

// giveWay has readers that drop their oldest do so when the disk took no more.
func (q *Queue) giveWay() {
	q.keeping.Lock()
	defer q.keeping.Unlock()
	if _, err := q.freeSome(); err != nil {
		q.log.Error("make room in the queue", "error", err)
	}
}

// freeSome takes one step towards more room. It wants keeping held, by the
// committer.
func (q *Queue) freeSome() (freed bool, err error) {
	if err := q.flushCursors(); err != nil {
		return false, err
	}
	before := q.diskBytes()
	if err := q.unlinkSegments(); err != nil {
		return false, err
	}
	if q.diskBytes() < before {
		return true, nil
	}
	if shrunk, err := q.compact(true); shrunk || err != nil && !isFull(err) { // a full disk may have no room for making a file smaller
		return shrunk, err
	}
	if retired, err := q.retire(); retired || err != nil && !isFull(err) {
		return retired, err
	}
	for _, r := range q.droppers() {
		n, _, err := r.shed(uint64(q.cfg.SegmentSize/4), ^uint64(0))
		if n > 0 || err != nil {
			return n > 0, err
		}
	}
	return false, nil
}

// retire begins the next segment if less than half of what is in the newest is
// needed: only one that is sealed gives its disk back. What its pages have left
// over is no reason, or a full queue would begin one after the other. It is for
// the committer alone.
func (q *Queue) retire() (retired bool, err error) {
	q.segMu.RLock()
	s := q.segments[len(q.segments)-1]
	wanted, marked := q.needed(s), uint64(0)
	for _, k := range s.marks {
		marked += k.bytes
	}
	q.segMu.RUnlock()
	size, needed := s.bytes.Load(), int64(float64(wanted)*overhead)
	if s.last < s.first || wanted > marked/2 || needed > size/2 || size-needed < min(compactWorth, q.cfg.SegmentSize/8) {
		return false, nil
	}
	if _, err := q.nextSegment(s, false); err != nil {
		if !isFull(err) {
			q.fail(err)
		}
		return false, err
	}
	return true, nil
}

// droppers are the readers that drop their oldest, in the order in which they
// give way.
func (q *Queue) droppers() []*Reader {
	all := slices.DeleteFunc(slices.Clone(q.limited()), func(r *Reader) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.limits.WhenFull != DropOldest || r.waiting == 0
	})
	slices.SortFunc(all, func(x, y *Reader) int {
		return cmp.Or(cmp.Compare(x.priority(), y.priority()), cmp.Compare(y.WaitingBytes(), x.WaitingBytes()), cmp.Compare(x.id, y.id))
	})
	return all
}

func (r *Reader) priority() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits.Priority
}

// canGiveWay reports whether a reader has something that may be dropped.
func (q *Queue) canGiveWay() bool {
	return slices.ContainsFunc(q.droppers(), func(r *Reader) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.ContainsFunc(r.free(), func(x stretch) bool { return x.from < min(x.to, r.newest) })
	})
}
