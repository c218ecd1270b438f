package storequeue

import (
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// wear counts what a disk is worn by, since Open.
type wear struct {
	written atomic.Uint64 // bytes handed to the disk
	payload atomic.Uint64 // bytes of payload among them
}

// add counts what a transaction wrote, once it is over: the pages that it
// allocated, all of which it writes, and its meta page.
func (w *wear) add(tx *bbolt.Tx, pageSize int) {
	stats := tx.Stats()
	w.written.Add(uint64(stats.GetPageAlloc()) + uint64(pageSize))
}

// linger waits, with mu held, until the first of what waits has waited for so
// long, or a commit is full or the last one.
func (f *filling) linger(long time.Duration) {
	if long > 0 {
		f.wait(long-time.Since(f.since), f.batch.full)
	}
}

// A crowd is those who are likely to send again as soon as they are answered:
// as many as the last commit answered, and those who came meanwhile.
type crowd struct {
	size  int           // 0: there is none
	grace time.Duration // how long they are waited for
}

// Who is fewer than leastCrowd is never waited for: so one message alone has no
// delay, and nobody waits for more than a part of the commit that he waits for
// anyway.
const (
	leastCrowd = 32
	graceShare = 4
	graceMost  = time.Millisecond
)

// expect notes that so many are about to be answered by a commit that took so
// long.
func (f *filling) expect(answered int, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crowd = crowd{}
	if answered >= leastCrowd {
		f.crowd = crowd{answered + len(f.batch.entries), min(took/graceShare, graceMost)}
	}
}

// gather waits, with mu held, for the crowd. Without it about half of those who
// always have a message on its way would miss each commit, and commits would be
// twice as many, of half the size.
func (f *filling) gather() {
	f.wait(f.crowd.grace, func() bool { return len(f.batch.entries) >= f.crowd.size || f.batch.full() })
}

// wait waits, with mu held, for enough, for no longer than long, and not when
// the queue is closed.
func (f *filling) wait(long time.Duration, enough func() bool) {
	if long <= 0 || enough() {
		return
	}
	over := false
	timer := time.AfterFunc(long, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		over = true
		f.work.Broadcast()
	})
	defer timer.Stop()
	for !over && !f.closed && !enough() {
		f.work.Wait()
	}
}
