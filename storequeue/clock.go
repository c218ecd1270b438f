package storequeue

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// A clock tells how old messages are, on a system whose clock may be wrong for
// a while and then be set: it notes each step, and does not count it as time
// that has passed. A message that was accepted in 1970 does not become 50 years
// old because a time server answered.
type clock struct {
	mu     sync.Mutex // covers the fields below
	base   time.Time  // of the last look, with the monotonic clock
	seq    uint64     // newest message at the last look
	steps  []step     // rising
	used   bool       // somebody has a MaxAge
	stored time.Time  // when it was last written
	dirty  bool       // steps changed since
}

// A step is by how much the clock was set after the message at seq and before
// the next.
type step struct {
	seq uint64
	by  time.Duration
}

const (
	clockStep = 5 * time.Second     // a smaller one is not worth noting
	longStop  = 30 * 24 * time.Hour // one that seems longer is taken for a clock that was set
	maxSteps  = 100
)

// start goes on from where state.db says the clock stood.
func (c *clock) start(stored []byte, newest uint64) error {
	c.base, c.seq = time.Now(), newest
	if stored == nil {
		return nil
	}
	c.used = true
	r := cursor{b: stored}
	then := time.UnixMilli(r.varint())
	for n := r.count(2); n > 0; n-- {
		c.steps = append(c.steps, step{r.uvarint(), time.Duration(r.varint()) * time.Millisecond})
	}
	if stopped := c.base.Sub(then); stopped < -clockStep || stopped > longStop {
		c.note(newest, stopped)
	}
	return r.err
}

func (c *clock) encode(now time.Time) []byte {
	b := binary.AppendVarint(nil, now.UnixMilli())
	b = binary.AppendUvarint(b, uint64(len(c.steps)))
	for _, s := range c.steps {
		b = binary.AppendUvarint(b, s.seq)
		b = binary.AppendVarint(b, s.by.Milliseconds())
	}
	return b
}

// look compares the system's clock with the time that has passed since the last
// look. In doubt a message of meanwhile is taken for younger.
func (c *clock) look(now time.Time, newest uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := now.Round(0).Sub(c.base.Round(0)) - now.Sub(c.base)
	if by < -clockStep {
		c.note(c.seq, by)
	} else if by > clockStep {
		c.note(newest, by)
	}
	c.base, c.seq = now, newest
}

// note wants mu held, or nobody else to know c yet.
func (c *clock) note(seq uint64, by time.Duration) {
	if len(c.steps) == maxSteps { // the two oldest become one that makes nothing older
		c.steps[1].by = max(c.steps[0].by, 0) + max(c.steps[1].by, 0)
		c.steps = slices.Delete(c.steps, 0, 1)
	}
	c.steps = append(c.steps, step{seq, by})
	c.dirty = true
}

// age is how long ago the message at seq was accepted, at the time then.
func (c *clock) age(seq uint64, then, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := now.Round(0).Sub(then)
	for _, s := range c.steps {
		if s.seq >= seq {
			age -= s.by
		}
	}
	return age
}

const clockEvery = time.Hour // how often it is stored, at least, where ages count

// overdue reports whether the clock is to be stored.
func (c *clock) overdue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used && (c.dirty || time.Since(c.stored) > clockEvery)
}

func (q *Queue) putClock(tx *bbolt.Tx) error {
	c := &q.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.used {
		return nil
	}
	c.dirty, c.stored = false, time.Now()
	return q.state.keys.vault.putFact(tx, bucketMeta, keyClock, c.encode(c.stored))
}

func (c *clock) use() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = true
}
