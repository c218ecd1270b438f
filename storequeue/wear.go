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
	left := long - time.Since(f.since)
	if long <= 0 || left <= 0 {
		return
	}
	over := false
	timer := time.AfterFunc(left, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		over = true
		f.work.Broadcast()
	})
	defer timer.Stop()
	for !over && !f.closed && !f.batch.full() {
		f.work.Wait()
	}
}
