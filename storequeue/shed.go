package storequeue

import (
	"errors"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// shedBytes bounds the log that is read in one go while messages are skipped:
// meanwhile their reader waits. Up to the first of them there is no bound, or it
// would never be reached.
const shedBytes = 4 << 20

// A headOf is what decides about the oldest message that waits for a reader.
type headOf struct {
	seq     uint64 // 0: there is none
	at      time.Time
	expires time.Time
}

// A shedding is one look at what waits for a reader, in a part of the log of which
// nothing is in flight.
type shedding struct {
	r       *Reader
	now     time.Time
	limits  Limits
	want    uint64 // bytes of records to skip for want of room
	upTo    uint64 // and not beyond
	removed []removal
	skipped stretches // as of before

	newest uint64
	from   uint64 // where the part begins
	to     uint64 // skipped up to here
	n      uint64
	bytes  uint64
	read   int
	losses map[Reason]*Loss
	more   bool // it ended because it had read enough
}

// shed skips the oldest messages that wait for r: those that are too old or have
// expired, and for want of room as many more as make up so many bytes, none of
// them beyond upTo. What Next returned and is not acknowledged it leaves alone.
// It returns how many it skipped, and more if there may be others.
func (r *Reader) shed(want, upTo uint64) (n uint64, more bool, err error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	r.mu.Lock()
	free := r.free()
	r.mu.Unlock()
	for _, part := range free {
		n, more, err = r.shedIn(part, want, upTo)
		if n > 0 || more || err != nil {
			break
		}
	}
	return n, more, err
}

func (r *Reader) shedIn(part stretch, want, upTo uint64) (n uint64, more bool, err error) {
	s := &shedding{r: r, now: time.Now(), want: want, upTo: upTo, losses: map[Reason]*Loss{}, from: part.from, to: part.from}
	r.mu.Lock()
	s.limits, s.newest = r.limits, min(r.newest, part.to)
	s.skipped = r.skipped
	gone := r.gone || r.held
	s.removed = r.removed
	r.mu.Unlock()
	if gone || s.newest <= s.from {
		return 0, false, nil
	}
	for _, seg := range r.q.segmentsWith(r.id, standing{s.from, s.skipped}) {
		end, began := false, s.read
		err = r.q.viewSound(seg, func(tx *bbolt.Tx) error {
			return seg.scanOver(tx.Bucket(bucketRecords), max(s.from+1, seg.first), func(seq uint64, body []byte) (bool, error) {
				more, err := s.judge(seq, body)
				end = !more
				return more, err
			}, (&haul{r: r}).skip)
		}, func() bool { return s.read == began })
		if err != nil || end {
			break
		}
		seg.rest()
	}
	if errors.Is(err, berrors.ErrDatabaseNotOpen) { // unlinked or closed meanwhile
		err = nil
	}
	return s.install(), s.more, err
}

// judge takes one record; more is false if it and those behind it stay.
func (s *shedding) judge(seq uint64, body []byte) (more bool, err error) {
	if seq > s.newest || s.n > 0 && s.read >= shedBytes {
		s.more = seq <= s.newest
		return false, nil
	}
	s.read += len(body)
	if _, ok := markFor(body, s.r.id); !ok || s.skipped.has(seq) {
		return true, nil
	}
	h, topic, err := readHead(body)
	if err != nil {
		return false, err
	}
	if s.r.isRemoved(s.removed, seq, &Message{Topic: topic, Time: h.at}) {
		return true, nil
	}
	why := s.reason(seq, h)
	if why == "" {
		return false, nil
	}
	if s.losses[why] == nil {
		s.losses[why] = &Loss{Reason: why}
	}
	s.losses[why].merge(&Loss{Count: 1, Topics: []string{topic}, From: h.at, To: h.at})
	s.to = seq
	s.n++
	s.bytes += uint64(len(body))
	return true, nil
}

// reason says why a message goes; empty: it stays.
func (s *shedding) reason(seq uint64, h headOf) Reason {
	switch {
	case s.r.q.hasExpired(seq, h, s.now):
		return ReasonExpired
	case s.r.q.isOld(seq, h, s.limits, s.now):
		return ReasonAge
	case s.bytes < s.want && seq <= s.upTo:
		return ReasonFull
	}
	return ""
}

func (q *Queue) hasExpired(seq uint64, h headOf, now time.Time) bool {
	return !h.expires.IsZero() && q.clock.age(seq, h.at, now) >= h.expires.Sub(h.at)
}

func (q *Queue) isOld(seq uint64, h headOf, l Limits, now time.Time) bool {
	return l.MaxAge > 0 && q.clock.age(seq, h.at, now) > l.MaxAge
}

// install makes the skipped messages so, unless r was acknowledged beyond what
// Next returned meanwhile.
func (s *shedding) install() uint64 {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.to <= s.from || !slices.ContainsFunc(r.free(), func(x stretch) bool { return x.from == s.from && s.to <= x.to }) {
		return 0
	}
	r.skipped = r.skipped.with(stretch{s.from, s.to})
	r.ahead.cut(s.from, s.to)
	for _, l := range s.losses {
		r.lose(l)
	}
	r.changes++
	r.waiting -= min(s.n, r.waiting)
	r.bytes -= min(s.bytes, r.bytes)
	if n := len(r.leases); n > 0 && s.from >= r.leases[n-1].from {
		r.fresh -= min(s.n, r.fresh)
	}
	r.out += s.n
	if at := r.skipped.beyond(r.acked); at > r.acked {
		r.move(at)
	}
	r.q.state.dirty()
	return s.n
}

// readHead reads when the message of a verified body was accepted, when it
// expires, and its topic.
func readHead(body []byte) (h headOf, topic string, err error) {
	c := cursor{b: body, at: 2}
	for n := c.uvarint(); n > 0 && c.err == nil; n-- {
		c.mark()
	}
	c.noteAndOrigin(body)
	h.at = c.time()
	if body[1]&flagExpires != 0 {
		h.expires = c.time()
	}
	return h, c.string(), c.err
}

// head finds the oldest message for r behind a place, up to a sequence.
func (r *Reader) head(at standing, upTo uint64) (h headOf, err error) {
	r.mu.Lock()
	removed := r.removed
	r.mu.Unlock()
	for _, seg := range r.q.segmentsWith(r.id, at) {
		err = r.q.viewSound(seg, func(tx *bbolt.Tx) error {
			return seg.scanOver(tx.Bucket(bucketRecords), max(at.acked+1, seg.first), func(seq uint64, body []byte) (bool, error) {
				if seq > upTo {
					return false, nil
				}
				if _, ok := markFor(body, r.id); !ok || at.skipped.has(seq) {
					return true, nil
				}
				found, topic, err := readHead(body)
				if r.isRemoved(removed, seq, &Message{Topic: topic, Time: found.at}) {
					return true, err
				}
				h.seq, h.at, h.expires = seq, found.at, found.expires
				return false, err
			}, func(uint64, error) error { return nil })
		}, func() bool { return h.seq == 0 })
		if err != nil || h.seq > 0 {
			break
		}
		seg.rest()
	}
	return h, err
}

// look skips what waits at the front, behind what is in flight, and is too old,
// and notes the oldest message that is left.
func (r *Reader) look(now time.Time) error {
	r.mu.Lock()
	waits, free, skipped, next, l := r.waiting > 0, r.free(), r.skipped, r.next, r.limits
	r.mu.Unlock()
	if !waits {
		return nil
	}
	var err error
	if skipped.has(next.seq) || !stretches(free).has(next.seq) {
		if next, err = r.nextHead(free, skipped); err != nil {
			return err
		}
	}
	old := next.seq > 0 && (r.q.hasExpired(next.seq, next, now) || r.q.isOld(next.seq, next, l, now))
	for more := old; more && err == nil; {
		_, more, err = r.shed(0, 0)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	oldest, at := r.oldest, standing{r.acked, r.skipped}
	r.mu.Unlock()
	if !at.needs(oldest.seq) {
		if oldest, err = r.head(at, nowhere); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.oldest, r.next = oldest, next
	r.mu.Unlock()
	return nil
}

// nextHead finds the oldest message that is not in flight.
func (r *Reader) nextHead(free, skipped stretches) (h headOf, err error) {
	for _, part := range free {
		if h, err = r.head(standing{part.from, skipped}, part.to); err != nil || h.seq > 0 {
			break
		}
	}
	return h, err
}

// trim skips the oldest of what waits for r while that is more than it may be.
func (r *Reader) trim() error {
	for {
		r.q.segMu.RLock()
		used, rate := r.usage()
		r.q.segMu.RUnlock()
		r.mu.Lock()
		l := r.limits
		r.mu.Unlock()
		if l.WhenFull != DropOldest || l.MaxBytes <= 0 || used <= l.MaxBytes {
			return nil
		}
		keep := l.MaxBytes - l.MaxBytes/16 // so that it is not cut again at once
		n, _, err := r.shed(uint64(math.Ceil(float64(used-keep)/rate)), math.MaxUint64)
		if n == 0 || err != nil {
			return err
		}
	}
}
