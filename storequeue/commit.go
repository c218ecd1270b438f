package storequeue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// Bounds of what may wait for one commit; a Submit beyond them blocks.
const (
	maxBatch      = 8192
	maxBatchBytes = 8 << 20
)

// A batch is what one commit takes: encoded bodies, one behind the other, each
// followed by room for its checksum.
type batch struct {
	buf     []byte
	entries []entry
	calls   []call // if some were refused: of all, in the order in which they came
	sealed  []byte // the records, if they are encrypted
	place   []byte // of the record that is being sealed
	bundles []byte // of the records, while they are written
}

type entry struct {
	end     int    // of the body in buf, room for the checksum included
	stored  int    // of the record, as it is written
	payload uint32 // bytes of the payload
	sum     uint32 // of the body
	own     bool   // see Message.Own
	done    func(uint64, error)
}

func (b *batch) full() bool { return len(b.entries) >= maxBatch || len(b.buf) >= maxBatchBytes }

func (b *batch) add(m *Message, done func(uint64, error)) {
	start := len(b.buf)
	b.buf = appendBody(b.buf, m)
	e := entry{payload: uint32(len(m.Payload)), sum: crc32.Checksum(b.buf[start:], castagnoli), own: m.Own, done: done}
	b.buf = append(b.buf, 0, 0, 0, 0)
	e.end = len(b.buf)
	b.entries = append(b.entries, e)
}

func (b *batch) reset() {
	clear(b.entries[:max(len(b.entries), len(b.calls))])
	b.buf, b.sealed, b.bundles, b.entries, b.calls = b.buf[:0], b.sealed[:0], b.bundles[:0], b.entries[:0], nil
	if cap(b.buf) > 2*maxBatchBytes { // after one giant message
		b.buf, b.sealed = nil, nil
	}
}

// filling is the batch that waits for the commit in progress to end.
type filling struct {
	mu     sync.Mutex // covers the fields below; held for an encoding, never for I/O
	batch  *batch
	since  time.Time // when the first message of batch came, if commits linger
	crowd  crowd
	closed bool
	work   sync.Cond // the committer waits for something to do
	room   sync.Cond // submitters wait for a smaller batch
}

func (f *filling) init() {
	f.batch = &batch{}
	f.work.L, f.room.L = &f.mu, &f.mu
}

func (f *filling) close() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.closed = true
	f.work.Broadcast()
	f.room.Broadcast()
	return true
}

// next hands the filled batch over for an empty one, once its first message has
// waited for so long. It returns nil when the queue is closed and nothing is left.
func (f *filling) next(empty *batch, linger time.Duration) *batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.batch.entries) == 0 && !f.closed {
		f.work.Wait()
	}
	if len(f.batch.entries) == 0 {
		return nil
	}
	f.linger(linger)
	f.gather()
	full := f.batch
	f.batch = empty
	f.room.Broadcast()
	return full
}

// Submit hands m over and returns without waiting for the disk; it blocks only
// while too much is waiting for the next commit. m is copied: the caller may
// reuse it and all its bytes at once. done is called exactly once, in the order
// of submission, from the committer's goroutine: with the sequence number after
// the commit that holds m, or with an error, and then m is not stored. done
// must not block, and must not call Submit.
func (q *Queue) Submit(m *Message, done func(seq uint64, err error)) {
	if m.Time.IsZero() {
		m.Time = now()
	}
	f := &q.filling
	f.mu.Lock()
	for f.batch.full() && !f.closed {
		f.room.Wait()
	}
	if f.closed {
		f.mu.Unlock()
		done(0, ErrClosed)
		return
	}
	f.batch.add(m, done)
	switch {
	case len(f.batch.entries) == 1:
		if q.cfg.Linger > 0 {
			f.since = time.Now()
		}
		f.work.Signal()
	case len(f.batch.entries) == f.crowd.size || f.batch.full():
		f.work.Signal()
	}
	f.mu.Unlock()
}

// commitLoop writes batch after batch until Close.
func (q *Queue) commitLoop() {
	spare := &batch{}
	for {
		b := q.filling.next(spare, q.cfg.Linger)
		if b == nil {
			return
		}
		began := time.Now()
		q.busy.Store(int64(began.Sub(q.born)))
		first, err := q.commit(b)
		if q.cfg.Committed != nil && err == nil {
			q.cfg.Committed(len(b.entries), time.Since(began))
		}
		q.filling.expect(len(b.entries), time.Since(began))
		b.answer(first, err)
		q.busy.Store(0)
		b.reset()
		spare = b
	}
}

// Busy is for how long the committer has been at its batch, 0 while it waits
// for work. A disk that hangs, without an error, shows here.
func (q *Queue) Busy() time.Duration {
	since := q.busy.Load()
	if since == 0 {
		return 0
	}
	return time.Since(q.born) - time.Duration(since)
}

// commit puts a batch on disk, or explains why none of it is there.
func (q *Queue) commit(b *batch) (first uint64, err error) {
	if err := q.Err(); err != nil {
		return 0, err
	}
	if q.admit(b); len(b.entries) == 0 {
		return 0, nil
	}
	s, err := q.activeSegment()
	if err == nil {
		first = q.committed.Load() + 1
		err = q.write(s, b, first)
	}
	if err == nil {
		q.committed.Store(first + uint64(len(b.entries)) - 1)
		q.commits.Add(1)
		q.account(s, b, first)
		return first, nil
	}
	if isFull(err) && s != nil && s.lastOnFile() <= q.committed.Load() {
		q.giveWay()
		q.refused.Add(uint64(len(b.entries)))
		return 0, fmt.Errorf("%w: %w", ErrFull, err)
	}
	q.fail(err)
	return 0, q.Err()
}

// put stores consecutive records out of buf, the first of which is that of
// first and begins at start. Its bytes must stay until the transaction ends.
func (b *batch) put(records *bbolt.Bucket, buf []byte, first uint64, start int, left []entry) error {
	seq := first - 1
	for len(left) > 0 {
		n := bundled(start, left)
		end := left[n-1].stored
		data := buf[start:end]
		if n > 1 {
			at := len(b.bundles)
			b.bundles = appendBundle(b.bundles, buf, start, left[:n])
			data = b.bundles[at:]
		}
		seq += uint64(n)
		if err := records.Put(key(seq), data); err != nil {
			return err
		}
		start, left = end, left[n:]
	}
	return nil
}

// write is the one transaction that makes a batch durable.
func (q *Queue) write(s *segment, b *batch, first uint64) error {
	err := s.commit(&q.wear, func(tx *bbolt.Tx) error {
		records := tx.Bucket(bucketRecords)
		records.FillPercent = 1.0 // keys only grow
		buf, err := s.seal.close(b, first)
		if err != nil {
			return err
		}
		return b.put(records, buf, first, 0, b.entries)
	})
	if err == nil {
		err = s.measure() // a transaction does not know its own size before its commit
	}
	if err != nil {
		return fmt.Errorf("write segment %s: %w", s.path, err)
	}
	return nil
}

// errSync is a sync that failed: what it left out is on no list, and another
// sync would not say so.
var errSync = errors.New("sync")

// isFull says that a write found no room: nothing is wrong with the disk.
func isFull(err error) bool {
	return !errors.Is(err, errSync) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// account makes what was committed visible to readers and wakes them.
func (q *Queue) account(s *segment, b *batch, first uint64) {
	q.segMu.Lock()
	defer q.segMu.Unlock()
	var woken []*Reader
	start, payload := 0, uint64(0)
	for i, e := range b.entries {
		body := b.buf[start : e.end-sumSize]
		start = e.end
		payload += uint64(e.payload)
		s.body += uint64(len(body))
		for m := range marks(body) {
			s.mark(m.Reader, first+uint64(i), len(body))
			if r := q.readers[m.Reader]; r != nil && r.arrived(first+uint64(i), len(body)) {
				woken = append(woken, r)
			}
		}
	}
	s.last = first + uint64(len(b.entries)) - 1
	q.wear.payload.Add(payload)
	for _, r := range woken {
		r.wakeUp()
	}
}

// activeSegment returns the segment to write to, after starting a new one when
// the last is full or encrypted with another key.
func (q *Queue) activeSegment() (*segment, error) {
	q.segMu.RLock()
	s := q.segments[len(q.segments)-1]
	q.segMu.RUnlock()
	empty := s.last < s.first // only this goroutine changes it
	if fits := s.seal.key == q.state.current(); !s.sealed && fits && (empty || s.bytes.Load() < q.cfg.SegmentSize) {
		return s, nil
	}
	return q.nextSegment(s, empty)
}

// nextSegment seals s and begins the one behind it, or in its place if it is empty.
func (q *Queue) nextSegment(s *segment, empty bool) (*segment, error) {
	if !empty {
		if err := q.seal(s); err != nil {
			return s, err
		}
	}
	if err := q.beginSpan(s.last + 1); err != nil {
		return s, err
	}
	with, err := q.state.sealOf(s.last + 1)
	if err != nil {
		return s, err
	}
	n, err := createSegment(q.dir, with, s.last+1)
	if err == nil {
		err = n.openForWriting(q.mmapSize())
	}
	if err == nil {
		err = q.noteNewest(s, n, empty)
	}
	if err != nil {
		return s, errors.Join(err, n.close())
	}
	q.segMu.Lock()
	if empty { // n has taken its name
		q.segments = q.segments[:len(q.segments)-1]
		err = s.close()
	}
	q.segments = append(q.segments, n)
	q.segMu.Unlock()
	if err != nil {
		return s, err
	}
	q.state.dirty() // what nobody needs of the sealed one may go
	return n, nil
}

// noteNewest lists n, and what readers have in the one before it, unless n took
// its place.
func (q *Queue) noteNewest(before, n *segment, instead bool) error {
	listing := q.listing(before)
	return q.update(func(tx *bbolt.Tx) error {
		v := &q.state.keys.vault
		err := v.putFact(tx, bucketMeta, keyNewest, key(n.first))
		if err == nil && !instead {
			err = v.putListed(tx, before.first, listing)
		}
		if err != nil {
			return err
		}
		return v.putListed(tx, n.first, nil)
	})
}

// seal writes down what each reader has in a segment that gets no more records.
func (q *Queue) seal(s *segment) error {
	if s.sealed {
		return nil
	}
	if err := s.commit(&q.wear, s.putSealed); err != nil {
		return fmt.Errorf("seal segment %s: %w", s.path, err)
	}
	q.segMu.Lock()
	s.sealed = true
	q.segMu.Unlock()
	s.endWriting()
	return nil
}

// mmapSize is the address space of an active segment: more than it can grow to.
func (q *Queue) mmapSize() int64 { return 2*q.cfg.SegmentSize + 4*maxBatchBytes }

// lastOnFile is the newest record that bbolt shows, whatever was promised.
func (s *segment) lastOnFile() uint64 {
	var last uint64
	err := s.view(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketRecords).Cursor().Last(); k != nil {
			last = number(k)
		}
		return nil
	})
	if err != nil {
		return ^uint64(0)
	}
	return last
}
