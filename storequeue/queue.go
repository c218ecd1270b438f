package storequeue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// Errors that callers decide on.
var (
	ErrFull    = errors.New("queue is full")                                       // nothing was stored; it may be tried again later
	ErrClosed  = errors.New("queue is closed")                                     // nothing was stored
	ErrFailed  = errors.New("queue cannot commit")                                 // the disk failed: end the process, never retry
	ErrDamaged = errors.New("the queue is damaged")                                // Open: put back from a backup what it names
	ErrInUse   = errors.New("another process has it open: stop it first")          // Open, Rekey, Try
	ErrKey     = errors.New("the queue's key does not fit")                        // Open: nothing was touched
	ErrMissing = errors.New("the queue that belongs to this gateway is not there") // Open with MustExist
)

// Config is what Open needs to know. Zero values mean the defaults named here.
type Config struct {
	SegmentSize int64         // bytes of a segment file from which the next one begins; default 48 MiB, so that with its last commit it stays under 64 MiB
	MaxSize     int64         // bytes of disk; default 2 GiB; beyond it Submit answers ErrFull
	Linger      time.Duration // how long the first message of a commit waits for others; default 0: what comes during a commit is the next
	MinFree     int64         // bytes to leave free on the disk; default none
	Encrypt     bool          // what is written from now on is encrypted; needs Key
	Key         Key           // the master key of what is encrypted, or is to be
	keep        bool          // Encrypt is what it is
	MustExist   bool          // a missing queue is ErrMissing instead of a fresh start
	Logger      *slog.Logger  // default: discard

	// Damaged is told of each damaged message that a reader leaves out, of the same
	// one again by every reader and reading that comes to it. It must be quick. Nil:
	// nobody; it is logged anyway.
	Damaged func(seq uint64)

	// Lost is told of acknowledged messages that will not be delivered. It must be
	// quick. Nil: nobody; it is logged anyway.
	Lost func(Loss)

	// Match says whether a topic filter takes a topic: Remove needs it for filters,
	// and Open where some were removed so. It must be safe for concurrent use.
	Match func(filter, topic string) bool

	// Committed is told of each commit: how many messages, and how long it took.
	// The committer calls it; it must be quick. Nil: nobody.
	Committed func(messages int, took time.Duration)
}

const (
	defaultSegmentSize = 48 << 20
	defaultMaxSize     = 2 << 30
)

// A Queue is one log of messages on disk, with many readers. Its methods are
// safe for concurrent use.
type Queue struct {
	dir   string
	cfg   Config
	log   *slog.Logger
	state *state

	maxSize, minFree atomic.Int64 // as in Config, or as set since

	committed atomic.Uint64 // newest sequence on disk
	commits   atomic.Uint64
	refused   atomic.Uint64
	damaged   atomic.Uint64
	wear      wear

	filling filling // what waits for the next commit

	born time.Time
	busy atomic.Int64 // when the committer took its batch, nanoseconds after born; 0: it waits for work

	// segMu covers segments, their counts and the readers. It is never held
	// over a commit.
	segMu    sync.RWMutex
	segments []*segment // by first sequence; the last one is the active one
	readers  map[ReaderID]*Reader
	names    map[string]*Reader // the durable ones
	bounded  []*Reader          // those with Limits; not changed in place
	lastTemp ReaderID
	house    *Reader // what nobody in particular lost

	wounds    []*wound   // found while opening, until they are told
	rewriting sync.Mutex // held over making a segment anew, which is done with one at a time

	// keeping is held by whoever puts the folder in order: the keeper, or the
	// committer that needs room. It covers the fields below.
	keeping        sync.Mutex
	compactNext    time.Time // not before
	compacted      atomic.Uint64
	compactedBytes atomic.Uint64 // written for it

	clock  clock
	fault  faultState
	upkeep string // the keeper's last complaint; keeping covers it

	stop chan struct{} // closed by Close
	done sync.WaitGroup
}

// faultState remembers why the queue stopped acknowledging.
type faultState struct {
	once sync.Once
	err  error // written before ch is closed
	ch   chan struct{}
}

// Open opens the queue in dir, or makes one if dir does not exist or is empty.
// It starts the committer and the cursor keeper, which Close stops.
func Open(dir string, cfg Config) (*Queue, error) {
	if cfg.SegmentSize <= 0 {
		cfg.SegmentSize = defaultSegmentSize
	}
	if cfg.MaxSize <= 0 {
		cfg.MaxSize = defaultMaxSize
	}
	cfg.SegmentSize = min(cfg.SegmentSize, max(cfg.MaxSize/4, 1)) // space comes back by whole segments
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		dir: dir, cfg: cfg, log: cfg.Logger,
		readers: map[ReaderID]*Reader{}, names: map[string]*Reader{}, lastTemp: firstTemp,
		fault: faultState{ch: make(chan struct{})},
		stop:  make(chan struct{}),
		born:  time.Now().Add(-1), // so that busy is never 0 by chance
	}
	q.SetSize(cfg.MaxSize, cfg.MinFree)
	q.filling.init()
	q.house = newReader(q, 0, "", 0)
	q.house.durable = true
	if err := q.open(); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	q.done.Go(q.commitLoop) // stopped by Close through filling.close
	q.done.Go(q.keepLoop)   // stopped by Close through stop
	return q, nil
}

// Close commits what was submitted, writes the cursors and stops. Submit after
// Close answers ErrClosed.
func (q *Queue) Close() error {
	if !q.filling.close() {
		return nil
	}
	close(q.stop)
	q.wakeAll()
	q.done.Wait()
	err := q.noteEnd()
	q.copyState()
	return errors.Join(err, q.closeFiles())
}

// wakeAll lets those see that the queue is closed who poll.
func (q *Queue) wakeAll() {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	for _, r := range q.readers {
		r.wakeUp()
	}
}

// noteEnd writes down where the log ends, so that damage to its last commit is
// not taken for a power cut.
func (q *Queue) noteEnd() error {
	end := q.committed.Load()
	if q.Err() != nil || end == q.state.known {
		return nil
	}
	err := q.update(func(tx *bbolt.Tx) error { return q.state.keys.vault.putFact(tx, bucketMeta, keyCommitted, key(end)) })
	if isFull(err) {
		return nil
	}
	return err
}

func (q *Queue) closeFiles() error {
	var errs []error
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	for _, s := range q.segments {
		errs = append(errs, s.close())
	}
	errs = append(errs, q.state.close())
	return errors.Join(errs...)
}

func (q *Queue) isClosed() bool {
	select {
	case <-q.stop:
		return true
	default:
		return false
	}
}

// SetSize sets Config's MaxSize and MinFree anew.
func (q *Queue) SetSize(maxSize, minFree int64) {
	q.maxSize.Store(maxSize)
	q.minFree.Store(minFree)
}

// Epoch identifies this log: a queue made anew has another.
func (q *Queue) Epoch() uint64 { return q.state.epoch }

// Append returns nil once every message is on disk. If ctx ends first the
// messages may still be stored.
func (q *Queue) Append(ctx context.Context, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	results := make(chan error, len(msgs))
	for i := range msgs {
		q.Submit(&msgs[i], func(_ uint64, err error) { results <- err })
	}
	var first error
	for range msgs {
		select {
		case err := <-results:
			if first == nil {
				first = err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return first
}

// Failed is closed when a commit failed for another reason than a full disk.
// Nothing is acknowledged from then on; the process must end, because what the
// file shows and what the disk holds may differ. Err says why.
func (q *Queue) Failed() <-chan struct{} { return q.fault.ch }

// Err returns the error that closed Failed, or nil.
func (q *Queue) Err() error {
	select {
	case <-q.fault.ch:
		return q.fault.err
	default:
		return nil
	}
}

// fail ends the queue's service for good.
func (q *Queue) fail(err error) {
	q.fault.once.Do(func() {
		q.fault.err = fmt.Errorf("%w: %w", ErrFailed, err)
		close(q.fault.ch)
	})
}

// now is the resolution in which records keep time.
func now() time.Time { return time.UnixMilli(time.Now().UnixMilli()) }
