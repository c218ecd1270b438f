package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// keys is what a queue is encrypted with.
type keys struct {
	vault vault

	mu   sync.RWMutex // covers ring, whose contents do not change
	ring *ring        // nil: nothing is encrypted
}

// Rekey gives the closed queue in dir a new master key, and a new data key for
// what is written from now on. When install is called, both master keys open
// the queue, and what is in state.db is encrypted anew; it puts the new one in
// its place. Then the old one opens nothing any more. If install is nil, or a
// crash comes before, that is left to the first Open with the new one. What the
// log holds already stays readable with the data keys it was written with.
func Rekey(dir string, old, next Key, install func() error) error {
	err := onState(dir, old, func(s *state) error {
		if s.keys.ring == nil || s.keys.ring.current == 0 {
			return fmt.Errorf("%w: nothing is encrypted: set queue.encryption: true and start the gateway once", ErrKey)
		}
		r, err := s.keys.ring.turnOn(next)
		if err != nil {
			return err
		}
		return s.rewrite(dir, r, old, next)
	})
	if err == nil && install != nil {
		if err = install(); err == nil {
			err = onState(dir, next, func(*state) error { return nil })
		}
	}
	if err != nil {
		return fmt.Errorf("rekey queue %s: %w", dir, err)
	}
	return nil
}

// onState opens the state of an encrypted queue for fn.
func onState(dir string, master Key, fn func(*state) error) error {
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if _, err := settleState(dir); err != nil {
		return err
	}
	s, err := openState(dir, Config{Key: master, keep: true})
	if err != nil {
		return err
	}
	return errors.Join(fn(s), s.close())
}

// A Fit says what a master key is for a queue.
type Fit int

const (
	NoQueue     Fit = iota // there is none
	FitsNothing            // nothing in it is encrypted
	FitsNot                // it has another key
	FitsStill              // it opens it, until the one opens it that is to remain
	Fits
)

// Try tells what a master key is for the queue in dir, and changes nothing.
func Try(dir string, master Key) (Fit, error) {
	path := filepath.Join(dir, stateFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return NoQueue, nil
	}
	fit := FitsNot
	err := guard(func() error {
		db, err := bbolt.Open(path, 0o600, boltOptions(0, true))
		if err != nil {
			return err
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error {
			r, _, err := readRing(tx, number(fact(tx, bucketMeta, keyEpoch)), master)
			switch id, iderr := master.id(); {
			case errors.Is(err, ErrKey):
				return nil
			case err != nil || iderr != nil:
				return errors.Join(err, iderr)
			case r == nil:
				fit = FitsNothing
			case bytes.Equal(id, r.master):
				fit = Fits
			default:
				fit = FitsStill
			}
			return nil
		})
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		err = fmt.Errorf("open %s: %w", path, ErrInUse)
	case err != nil:
		err = fmt.Errorf("%w: open %s: %w", ErrDamaged, path, err)
	}
	return fit, err
}

// settle brings the ring to what is configured: encryption switched on or off,
// or a change of the master key at its end.
func (s *state) settle(dir string, cfg *Config, masters int) error {
	r := s.keys.ring
	id, err := cfg.Key.id()
	if r != nil && err != nil {
		return err
	}
	switch {
	case cfg.Encrypt && (r == nil || r.current == 0):
		if r == nil {
			r = newRing(0)
		}
		if r, err = r.turnOn(cfg.Key); err != nil {
			return err
		}
	case !cfg.Encrypt && !cfg.keep && r != nil && (r.current != 0 || r.state != 0):
		r = r.clone()
		r.current, r.state, r.master = 0, 0, id
	case masters > 1 && bytes.Equal(id, r.master):
		r = r.clone()
		r.own = NewKey()
	default: // also where the master key that is to remain is not in its place yet
		return nil
	}
	return s.rewrite(dir, r, cfg.Key)
}

// rewrite makes state.db anew with another ring, opened by these master keys,
// so that nothing of what it was before is left in its free pages.
func (s *state) rewrite(dir string, r *ring, masters ...Key) error {
	v, err := newVault(s.epoch, r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, stateFile)
	err = s.db.View(func(old *bbolt.Tx) error {
		return createBolt(path, func(tx *bbolt.Tx) error {
			if err := s.copyState(tx, old, &v); err != nil {
				return err
			}
			for _, m := range masters {
				if err := r.admit(tx, s.epoch, m); err != nil {
					return err
				}
			}
			return r.put(tx, s.epoch)
		})
	})
	if err != nil {
		return err
	}
	if err := s.db.Close(); err != nil {
		return err
	}
	s.keys.ring, s.keys.vault = r, v
	if s.db, err = bbolt.Open(path, 0o600, boltOptions(stateMmap, false)); err != nil {
		return err
	}
	return s.writeCopy(dir) // the old one is of keys that are to go
}

// copyState copies all but the ring; what the vault covers goes over into the
// new one.
func (s *state) copyState(tx, old *bbolt.Tx, v *vault) error {
	return old.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if string(name) == string(bucketRing) {
			return nil
		}
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
		if !covered(name) {
			return s.copyFacts(tx, old, name, v)
		}
		return eachFact(old, name, func(k, data []byte) error {
			plain, value, err := s.keys.vault.open(name, k, data)
			if err != nil {
				s.bad++
				return nil // it says nothing to anybody any more
			}
			if !hidden(name) {
				return v.putAt(tx, name, k, "", value)
			}
			return v.put(tx, name, plain, value)
		})
	})
}

// copyFacts copies what may be read, under the new vault's MACs.
func (s *state) copyFacts(tx, old *bbolt.Tx, name []byte, v *vault) error {
	if string(name) == string(bucketMeta) {
		if err := errors.Join(putVersion(tx), putFact(tx, name, keyEpoch, key(s.epoch))); err != nil {
			return err
		}
	}
	return s.keys.vault.eachFact(old, name, func(k, value []byte) error { return v.putFact(tx, name, k, value) })
}

// covered says which buckets of state.db the vault is for.
func covered(name []byte) bool {
	return hidden(name) || string(name) == string(bucketRemoved)
}

// hidden says in which buckets the keys are names that nobody should read.
func hidden(name []byte) bool {
	return string(name) == string(bucketReaders) || string(name) == string(bucketLosses) || strings.HasPrefix(string(name), factPrefix)
}

// sealOf is the seal of the segment that begins with the sequence first.
func (s *state) sealOf(first uint64) (seal, error) {
	s.keys.mu.RLock()
	r := s.keys.ring
	s.keys.mu.RUnlock()
	id := r.keyOf(first)
	if id == 0 {
		return newSeal(s.epoch, first, 0, nil)
	}
	return newSeal(s.epoch, first, id, r.keys[id])
}

// current is the data key of new segments.
func (s *state) current() uint32 {
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	if s.keys.ring == nil {
		return 0
	}
	return s.keys.ring.current
}

// changeRing commits another ring, for the same master keys.
func (q *Queue) changeRing(change func(*ring) bool) error {
	k := &q.state.keys
	k.mu.Lock() // held over a commit, and over the copy, without which nothing could be read either: nobody makes a seal meanwhile
	defer k.mu.Unlock()
	if k.ring == nil {
		return nil
	}
	r := k.ring.clone()
	if !change(r) {
		return nil
	}
	if err := q.update(func(tx *bbolt.Tx) error { return r.put(tx, q.state.epoch) }); err != nil {
		return err
	}
	k.ring = r
	q.copyState()
	return nil
}

// beginSpan notes that the segments from a sequence on are encrypted with the
// current data key.
func (q *Queue) beginSpan(first uint64) error {
	if q.state.current() == q.state.keyOf(first) {
		return nil
	}
	return q.changeRing(func(r *ring) bool {
		if n := len(r.spans) - 1; r.spans[n].from == first {
			r.spans = r.spans[:n]
		}
		r.spans = append(r.spans, span{first, r.current})
		return true
	})
}

// dropKeys forgets the data keys of segments that are gone.
func (q *Queue) dropKeys() error {
	used := map[uint32]bool{}
	q.segMu.RLock()
	for _, s := range q.segments {
		used[s.seal.key] = true
	}
	q.segMu.RUnlock()
	return q.changeRing(func(r *ring) (some bool) {
		for id := range r.keys {
			if !used[id] && id != r.current && id != r.state {
				delete(r.keys, id)
				some = true
			}
		}
		return some
	})
}

func (s *state) keyOf(first uint64) uint32 {
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	return s.keys.ring.keyOf(first)
}
