package storequeue

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// state.db holds what is small and changes in place: the epoch, the readers'
// names, ids and cursors, and the readers' own facts.
type state struct {
	db     *bbolt.DB
	epoch  uint64
	newest uint64            // first sequence of the newest segment, as of Open
	known  uint64            // a sequence that was committed, as of Open: a lower bound
	listed map[uint64][]byte // segments, as of Open
	nudge  chan struct{}     // room for one: told twice is harmless
	keys   keys
	bad    int // values that were not what was written when state.db was made anew
	copying

	turn sync.Mutex // held over a commit, like bbolt's own lock; covers the results of those who wait
	mu   sync.Mutex // covers next; held for moments
	next []*stateUpdate
}

// A stateUpdate waits for a commit to state.db, which it shares with all that
// wait with it.
type stateUpdate struct {
	fn   func(*bbolt.Tx) error // may run more than once
	done bool
	err  error
}

const (
	stateFile    = "state.db"
	stateVersion = 2 // 1 had values without checksums
	stateMmap    = 64 << 20
	factPrefix   = "state/" // of bucket names that belong to callers
)

var (
	bucketMeta    = []byte("meta")
	bucketReaders = []byte("readers") // name → id
	bucketCursors = []byte("cursors") // id → sequence
	keyVersion    = []byte("version") // a number, not a fact
	keyLayout     = []byte("layout")  // the same as a fact
	keyLastReader = []byte("last_reader")
	keyNewest     = []byte("newest_segment") // first sequence of the newest one
	keyCommitted  = []byte("committed")      // newest sequence when cursors were last written
)

// openState wants settleState to have found state.db whole.
//
// openState changes nothing unless it opens. Then it brings the ring to what is
// configured.
func openState(dir string, cfg Config) (*state, error) {
	s := &state{nudge: make(chan struct{}, 1)}
	path := filepath.Join(dir, stateFile)
	if err := syncPath(path); err != nil { // what a killed process left to the system's cache
		return nil, fmt.Errorf("sync %s: %w", path, err)
	}
	masters := 0
	err := guard(func() (err error) {
		if err = s.openBolt(path); err != nil {
			return err
		}
		return s.db.View(func(tx *bbolt.Tx) (err error) {
			masters, err = s.read(tx, cfg.Key)
			return err
		})
	})
	if err == nil {
		err = s.settle(dir, &cfg, masters)
	}
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, berrors.ErrTimeout):
		err = fmt.Errorf("open %s: %w", path, ErrInUse)
	case !errors.Is(err, ErrKey) && !isFull(err):
		err = fmt.Errorf("%w: open %s: %w; put it back from a backup", ErrDamaged, path, err)
	}
	return nil, errors.Join(err, s.close())
}

// read takes what state.db says of the queue, and returns how many master keys
// open it.
func (s *state) read(tx *bbolt.Tx, master Key) (masters int, err error) {
	s.epoch = number(fact(tx, bucketMeta, keyEpoch))
	if s.keys.ring, masters, err = readRing(tx, s.epoch, master); err != nil {
		return 0, err
	}
	if s.keys.vault, err = newVault(s.epoch, s.keys.ring); err != nil {
		return 0, err
	}
	v := &s.keys.vault
	if err = v.verify(tx); err != nil {
		return 0, err
	}
	s.newest, s.known = number(v.fact(tx, bucketMeta, keyNewest)), number(v.fact(tx, bucketMeta, keyCommitted))
	err = v.eachFact(tx, bucketCursors, func(_, at []byte) error {
		s.known = max(s.known, number(at))
		return nil
	})
	if err == nil {
		s.listed, err = v.readListed(tx)
	}
	return masters, err
}

// openBolt opens state.db, in today's layout.
func (s *state) openBolt(path string) (err error) {
	if s.db, err = bbolt.Open(path, 0o600, boltOptions(stateMmap, false)); err != nil {
		return err
	}
	var version uint64
	err = s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return errors.New("not a queue's state")
		}
		version = number(meta.Get(keyVersion))
		return nil
	})
	switch {
	case err != nil || version == stateVersion:
		return err
	case version != 1:
		return fmt.Errorf("layout version %d is unknown to this program: use a newer one", version)
	}
	err = addSums(path, s.db)
	if cerr := s.db.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		s.db, err = bbolt.Open(path, 0o600, boltOptions(stateMmap, false))
	}
	return err
}

func (s *state) close() error {
	if s == nil || s.db == nil {
		return nil
	}
	return s.db.Close()
}

// dirty tells the keeper that there is something to write or to unlink.
func (s *state) dirty() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// A Change sets a key in a bucket of the queue's state, or removes it when
// Value is nil. Buckets are the caller's own, named freely.
type Change struct {
	Bucket, Key string
	Value       []byte
}

func (s *state) apply(tx *bbolt.Tx, changes []Change) error {
	for _, c := range changes {
		bucket := []byte(factPrefix + c.Bucket)
		if _, err := tx.CreateBucketIfNotExists(bucket); err != nil {
			return err
		}
		var err error
		if c.Value == nil {
			err = s.keys.vault.delete(tx, bucket, c.Key)
		} else {
			err = s.keys.vault.put(tx, bucket, c.Key, c.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// SetState commits small facts that belong to the log's readers (sessions,
// subscriptions, retained messages) beside the cursors. On disk when it returns.
func (q *Queue) SetState(changes ...Change) error {
	return q.update(func(tx *bbolt.Tx) error { return q.state.apply(tx, changes) })
}

// update commits to state.db, together with whoever else waits for a commit: a
// thousand sessions made at once are a few commits. fn may run more than once.
// A disk that fails there fails the queue.
func (q *Queue) update(fn func(*bbolt.Tx) error) error {
	s, u := q.state, &stateUpdate{fn: fn}
	s.mu.Lock()
	s.next = append(s.next, u)
	s.mu.Unlock()
	s.turn.Lock()
	defer s.turn.Unlock()
	if !u.done { // else it was in the commit before
		s.mu.Lock()
		all := s.next
		s.next = nil
		s.mu.Unlock()
		q.updateAll(all)
	}
	return u.err
}

// updateAll commits what has gathered. Who cannot be applied fails alone.
func (q *Queue) updateAll(all []*stateUpdate) {
	for len(all) > 0 {
		failed := -1
		err := q.commitState(func(tx *bbolt.Tx) error {
			for i, u := range all {
				if err := u.fn(tx); err != nil {
					failed = i
					return err
				}
			}
			return nil
		})
		if failed < 0 || q.Err() != nil {
			for _, u := range all {
				u.done, u.err = true, err
			}
			return
		}
		all[failed].done, all[failed].err = true, err
		all = slices.Delete(all, failed, failed+1)
	}
}

func (q *Queue) commitState(fn func(*bbolt.Tx) error) error {
	if err := q.Err(); err != nil {
		return err
	}
	var own error // fn's, which says nothing about the disk
	err := guard(func() error {
		var done *bbolt.Tx
		err := q.state.db.Update(func(tx *bbolt.Tx) error {
			done, own = tx, fn(tx)
			return own
		})
		if err == nil {
			q.wear.add(done, q.state.db.Info().PageSize)
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return ErrClosed
	case isFull(err):
		err = fmt.Errorf("%w: %w", ErrFull, err)
	case own == nil:
		q.fail(err)
	}
	return fmt.Errorf("write %s: %w", stateFile, err)
}

// State calls fn for each key of a bucket, in no order, with copies. A value
// that is not what was written is left out, counted and told of. fn must not
// call the queue.
func (q *Queue) State(bucket string, fn func(key string, value []byte) error) error {
	v, name, bad := &q.state.keys.vault, []byte(factPrefix+bucket), 0
	err := q.state.db.View(func(tx *bbolt.Tx) error {
		return eachFact(tx, name, func(k, data []byte) error {
			key, value, err := v.open(name, k, data)
			if err != nil {
				bad++
				return nil
			}
			return fn(key, value)
		})
	})
	q.badFacts(bad)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// badFacts tells of values in state.db that are not what was written.
func (q *Queue) badFacts(n int) {
	if n == 0 {
		return
	}
	q.damaged.Add(uint64(n))
	q.log.Error("values in "+stateFile+" are damaged and left out: retained messages or sessions are missing; check the disk", "count", n)
	if q.cfg.Lost != nil {
		at := now()
		q.cfg.Lost(Loss{Reason: ReasonDamaged, Count: uint64(n), From: at, To: at})
	}
}
