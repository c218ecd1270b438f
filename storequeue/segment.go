package storequeue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// A segment is one bbolt file with consecutive records. Bucket "m" holds them
// by sequence number; bucket "i" says which log it belongs to and, once the
// segment is sealed, what each reader has in it. One that was rewritten is
// sparse: sequences may be missing.
type segment struct {
	path  string
	first uint64 // sequence of the first record it holds or will hold
	seal  seal

	bytes  atomic.Int64 // of the file that are in use
	sparse atomic.Bool  // it was rewritten: sequences may be missing

	touched atomic.Int64 // bytes read and written since pages were last given back

	mu      sync.Mutex // covers the fields below
	db      *bbolt.DB  // opened by whoever needs it first
	users   int        // of db
	writing bool       // it is the active one
	resting bool       // db is closed when nobody uses it
	closed  bool
	sound   bool // the file was looked at, or made by this process

	// The queue's segments lock covers the rest.
	last   uint64 // newest committed record; first-1 when empty
	sealed bool
	marks  map[ReaderID]markCount
	body   uint64 // bytes of all its records; 0: unknown

	// The keeper's: see compact.
	dead  time.Time // since when it is mostly dead; zero: it is not
	tried uint64    // what was needed of it when it was last compacted, and one
}

var (
	bucketRecords = []byte("m")
	bucketInfo    = []byte("i")
	keyEpoch      = []byte("epoch")
	keyFirst      = []byte("first")
	keySealed     = []byte("sealed")
	keySizes      = []byte("sizes")
	keyBody       = []byte("body")
	keySum        = []byte("sum")    // over what a sealed segment says of itself
	keySparse     = []byte("sparse") // of a rewritten segment: the last sequence that it stands for
)

// growBy is by how much a segment's file grows ahead of what is in use.
const growBy = 4 << 20

const (
	segmentPrefix = "seg-"
	segmentSuffix = ".db"
)

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%016x%s", segmentPrefix, first, segmentSuffix))
}

// boltOptions keeps commits short and opening fast: a synced free list (without
// it bbolt reads every page at open), and an address range that is large
// enough from the start, because growing it waits for readers.
func boltOptions(mmap int64, readOnly bool) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: int(mmap),
		NoStatistics:    true,
		ReadOnly:        readOnly,
		PreLoadFreelist: true, // or bbolt's check would load it beside readers
	}
}

// createBolt makes a database that is whole or absent: it gets its name only
// after its first commit is on disk. (Made in place, a power cut leaves files
// that bbolt cannot open.)
func createBolt(path string, fill func(*bbolt.Tx) error) error {
	err := buildBolt(path+tmpSuffix, func(db *bbolt.DB) error { return db.Update(fill) })
	if err == nil {
		err = renameSynced(path+tmpSuffix, path)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

// tmpSuffix is what a file is called by that is still being made.
const tmpSuffix = ".tmp"

// buildBolt makes a database, on disk when it returns.
func buildBolt(tmp string, fill func(*bbolt.DB) error) error {
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(tmp, 0o600, boltOptions(0, false))
	if err != nil {
		return err
	}
	db.NoSync = true // once, when all is there
	if err = giveToFolderOwner(tmp); err == nil {
		err = fill(db)
	}
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncPath(tmp)
	}
	return err
}

// giveToFolderOwner lets root mend a queue without shutting the gateway's own
// account out of it.
func giveToFolderOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if owner, ok := folder.Sys().(*syscall.Stat_t); ok {
		return os.Chown(path, int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// renameSynced gives a file another name, on disk when it returns.
func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncPath(filepath.Dir(to))
}

// syncFresh puts a file on disk and makes the system read it from there. What a
// process that was killed left to the system's cache may not be on disk; and when
// a sync fails, the cache can go on showing what the disk lacks, and the next sync
// says nothing of it. What the system will not drop, it shows as before.
func syncFresh(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if err == nil {
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // at worst it changes nothing
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func createSegment(dir string, with seal, first uint64) (*segment, error) {
	s := &segment{path: segmentPath(dir, first), first: first, seal: with, last: first - 1, marks: map[ReaderID]markCount{}}
	err := createBolt(s.path, s.begin)
	return s, err
}

// begin writes what a segment without a record consists of.
func (s *segment) begin(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucket(bucketRecords); err != nil {
		return err
	}
	info, err := tx.CreateBucket(bucketInfo)
	if err != nil {
		return err
	}
	if err := info.Put(keyEpoch, key(s.seal.epoch)); err != nil {
		return err
	}
	if err := info.Put(keyFirst, key(s.first)); err != nil {
		return err
	}
	return stamp(tx)
}

// use runs fn with the database, which the first who needs it opens.
func (s *segment) use(fn func(*bbolt.DB) error) error {
	db, err := s.hold()
	if err != nil {
		return err
	}
	defer s.letGo()
	return guard(func() error { return fn(db) })
}

func (s *segment) hold() (*bbolt.DB, error) {
	s.mu.Lock() // held over opening the file: whoever needs it waits for it
	defer s.mu.Unlock()
	if s.closed {
		return nil, berrors.ErrDatabaseNotOpen
	}
	if s.db == nil {
		if err := s.verify(); err != nil {
			return nil, err
		}
		if err := s.openBolt(boltOptions(0, true)); err != nil {
			return nil, err
		}
	}
	s.users++
	s.resting = false
	return s.db, nil
}

func (s *segment) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.resting && s.users == 0 {
		s.release() // read only: there is nothing to lose
	}
}

// rest closes the file until somebody needs it again, unless it is the active
// segment's: open files cost address space, of which small machines have little.
func (s *segment) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing {
		return
	}
	s.resting = true
	if s.users == 0 {
		s.release()
	}
}

// openForWriting makes s the active segment.
func (s *segment) openForWriting(mmap int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing, s.sound = true, true
	return s.openBolt(boltOptions(mmap, false))
}

// endWriting makes s one that is only read.
func (s *segment) endWriting() {
	s.mu.Lock()
	s.writing = false
	s.mu.Unlock()
	s.rest()
}

// openBolt wants mu held.
func (s *segment) openBolt(opts *bbolt.Options) error {
	err := guard(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0o600, opts)
		return err
	})
	if err != nil {
		s.db = nil
		return fmt.Errorf("open segment %s: %w", s.path, err)
	}
	s.db.AllocSize = growBy
	s.db.NoSync = true // commit does it
	return nil
}

// commit runs fn in a transaction, which is on disk when it returns. After an
// error other than a full disk the file may show what the disk does not hold.
func (s *segment) commit(w *wear, fn func(*bbolt.Tx) error) error {
	return s.use(func(db *bbolt.DB) error {
		var done *bbolt.Tx
		err := db.Update(func(tx *bbolt.Tx) error {
			done = tx
			if err := fn(tx); err != nil {
				return err
			}
			return stamp(tx)
		})
		if err == nil {
			w.add(done, db.Info().PageSize)
			if err = db.Sync(); err != nil {
				err = fmt.Errorf("%w: %w", errSync, err)
			}
		}
		return err
	})
}

// putSealed writes down what each reader has in a segment that gets no more
// records.
func (s *segment) putSealed(tx *bbolt.Tx) error {
	info := tx.Bucket(bucketInfo)
	if err := info.Put(keySizes, s.encodeSizes()); err != nil {
		return err
	}
	if err := info.Put(keyBody, key(s.body)); err != nil {
		return err
	}
	if err := info.Put(keySealed, s.encodeMarks()); err != nil {
		return err
	}
	facts := map[string][]byte{}
	for _, k := range append(summed, keyBody) {
		facts[string(k)] = info.Get(k)
	}
	return info.Put(keySum, s.seal.summary(facts, s.last))
}

// measure notes how much of the file is in use.
func (s *segment) measure() error {
	return s.view(func(tx *bbolt.Tx) error {
		s.touched.Add(tx.Size() - s.bytes.Swap(tx.Size()))
		return nil
	})
}

// view runs fn in a read transaction. fn must not do anything slow.
func (s *segment) view(fn func(*bbolt.Tx) error) error {
	db, err := s.hold()
	for err == nil {
		err = guard(func() error { return db.View(s.inView(fn)) })
		s.letGo()
		if !errors.Is(err, berrors.ErrDatabaseNotOpen) {
			break
		}
		db, err = s.hold() // another file took its place meanwhile, or it is closed
	}
	if err != nil {
		return fmt.Errorf("read segment %s: %w", s.path, err)
	}
	return nil
}

func (s *segment) inView(fn func(*bbolt.Tx) error) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		if s.touched.Load() > touchedMost {
			s.touched.Store(0)
			giveBack(tx)
		}
		return fn(tx)
	}
}

// touchedMost bounds how much of a mapped file is in the process's memory.
const touchedMost = 4 << 20

// giveBack takes the pages of a mapped file out of the process's memory; the
// system's cache still has them. The transaction holds the mapping.
func giveBack(tx *bbolt.Tx) {
	syscall.Syscall(syscall.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), syscall.MADV_DONTNEED) // fails harmlessly
}

// close lets go of the file for good. It waits for read transactions.
func (s *segment) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.release()
}

// replace puts the file at tmp, which is on disk, in the place of the segment's
// own, which must be sealed. Who reads goes on in the old file to the end of its
// transaction, for which replace waits; nobody else does.
func (s *segment) replace(tmp string) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return berrors.ErrDatabaseNotOpen
	}
	err := renameSynced(tmp, s.path)
	old := s.db
	s.db, s.sound = nil, err == nil
	s.mu.Unlock()
	if old != nil {
		err = errors.Join(err, old.Close())
	}
	return err
}

// release wants mu held.
func (s *segment) release() error {
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db = nil
	return db.Close()
}

// guard turns what bbolt does on a damaged file (assertion panics, faults on a
// truncated mapping) into errors.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = errDamaged
			if text, ok := p.(string); ok { // bbolt's own words; a fault in it says nothing to anybody
				err = fmt.Errorf("%w: %s", errDamaged, text)
			}
		}
	}()
	return fn()
}

var errDamaged = errors.New("the file is damaged")
