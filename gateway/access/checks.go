package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// checks bounds the password checks that run (19 MiB each) and that wait. Those
// for suspects come one at a time, with a pause behind each, and have half of
// the places to wait, so that who guesses neither takes the time of those who
// are in nor keeps others from waiting.
type checks struct {
	running  chan struct{}
	waiting  chan struct{}
	suspects chan struct{} // that run or wait
	suspect  chan struct{} // that runs
}

const (
	checksAtOnce  = 2 // on two processors one, so that the other serves those who are in
	checksWaiting = 100
	suspectPause  = 4 // times what the check took
)

func newChecks() *checks {
	return &checks{
		running: make(chan struct{}, max(1, min(checksAtOnce, runtime.NumCPU()/2))), waiting: make(chan struct{}, checksWaiting),
		suspects: make(chan struct{}, checksWaiting/2), suspect: make(chan struct{}, 1),
	}
}

// begin waits for a turn. The caller calls release when done. suspected is
// asked again when the turn has come: who sent many passwords at once was not
// suspected when they began to wait.
func (c *checks) begin(ctx context.Context, suspected func() bool) (release func(), err error) {
	if !suspected() {
		release, err = c.turn(ctx)
		if err != nil || !suspected() {
			return release, err
		}
		release()
	}
	select {
	case c.suspects <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	leave := func() { <-c.suspects }
	select {
	case c.suspect <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
	end, err := c.turn(ctx)
	if err != nil {
		<-c.suspect
		leave()
		return nil, err
	}
	began := time.Now()
	return func() {
		end()
		leave()
		time.AfterFunc(suspectPause*time.Since(began), func() { <-c.suspect })
	}, nil
}

func (c *checks) turn(ctx context.Context) (release func(), err error) {
	release = func() { <-c.running }
	select {
	case c.running <- struct{}{}:
		return release, nil
	default:
	}
	select {
	case c.waiting <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	defer func() { <-c.waiting }()
	select {
	case c.running <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reconnects remembers which user, password and stored hash were found to
// belong together, so that thousands of devices can come back at once. What it
// keeps is a MAC under a key that no other boot has. A changed password or user
// has another stored hash, so what was remembered of it no longer counts.
type reconnects struct {
	key  [32]byte
	hits atomic.Uint64

	mu    sync.Mutex // guards until
	until map[[32]byte]time.Time
}

const (
	reconnectFor = 15 * time.Minute
	reconnectMax = 16384 // entries
)

func newReconnects() *reconnects {
	r := &reconnects{until: make(map[[32]byte]time.Time)}
	_, _ = rand.Read(r.key[:]) // never fails, crypto/rand
	return r
}

func (r *reconnects) mac(name string, password Secret, hash passwordHash) [32]byte {
	m := hmac.New(sha256.New, r.key[:])
	for _, part := range [][]byte{[]byte(name), password, []byte(hash.String())} {
		var size [8]byte // so that no part can reach into the next
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		m.Write(size[:])
		m.Write(part)
	}
	return [32]byte(m.Sum(nil))
}

func (r *reconnects) knows(name string, password Secret, hash passwordHash) bool {
	mac := r.mac(name, password, hash)
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[mac]
	if ok = ok && time.Now().Before(until); ok {
		r.hits.Add(1)
	}
	return ok
}

func (r *reconnects) remember(name string, password Secret, hash passwordHash) {
	mac := r.mac(name, password, hash)
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.until) >= reconnectMax {
		r.makeRoom(now)
	}
	r.until[mac] = now.Add(reconnectFor)
}

// makeRoom looks at some entries and forgets those that are over, and if none
// is, any one.
func (r *reconnects) makeRoom(now time.Time) {
	const look = 32
	looked, last := 0, [32]byte{}
	for mac, until := range r.until {
		last = mac
		if now.After(until) {
			delete(r.until, mac)
		}
		if looked++; looked == look {
			break
		}
	}
	if len(r.until) >= reconnectMax {
		delete(r.until, last)
	}
}
