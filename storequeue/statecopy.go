package storequeue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// stateCopy is a copy of state.db, for the day that is damaged. It is made
// when readers were added or removed, once in copyEvery at most, and by Close.
const (
	stateCopy = "state.copy"
	copyEvery = 10 * time.Second
)

// copying is when to make a copy.
type copying struct {
	due atomic.Bool

	copyMu sync.Mutex // covers the rest; held over making a copy
	made   time.Time
	of     int // the commit that was copied
}

// worthCopying says that state.db has what must not be lost.
func (s *state) worthCopying() {
	s.due.Store(true)
	s.dirty()
}

// keepCopy copies state.db if that is due, and returns when to come again.
func (q *Queue) keepCopy() time.Duration {
	s := q.state
	if !s.due.Load() {
		return copyEvery
	}
	s.copyMu.Lock()
	wait := copyEvery - time.Since(s.made)
	s.copyMu.Unlock()
	if wait > 0 {
		return wait
	}
	q.copyState()
	return copyEvery
}

// copyState copies what is not copied yet.
func (q *Queue) copyState() {
	if q.Err() != nil {
		return
	}
	q.state.due.Store(false)
	if err := q.state.writeCopy(q.dir); err != nil {
		q.log.Error("the copy of "+stateFile+" cannot be written; the old one stays", "error", err)
	}
}

func (s *state) writeCopy(dir string) error {
	s.copyMu.Lock()
	defer s.copyMu.Unlock()
	s.made = time.Now()
	path, of := filepath.Join(dir, stateCopy), s.of
	tmp, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) (err error) {
			if of = tx.ID(); of != s.of {
				_, err = tx.WriteTo(tmp)
			}
			return err
		})
	})
	if err == nil && of == s.of {
		return errors.Join(tmp.Close(), os.Remove(tmp.Name()))
	}
	if err = finish(tmp, path, err); err == nil {
		s.of = of
	}
	return err
}

// finish gives a file that was written its name, on disk when it returns.
func finish(tmp *os.File, path string, err error) error {
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		return renameSynced(tmp.Name(), path)
	}
	return errors.Join(err, ignoreMissing(os.Remove(tmp.Name())))
}

// settleState sees to it that bbolt finds a state.db that is whole, and says
// what was wrong if its copy had to take its place.
func settleState(dir string) (why, err error) {
	path, spare := filepath.Join(dir, stateFile), filepath.Join(dir, stateCopy)
	if err := syncFresh(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("sync %s: %w", path, err)
	}
	last, lastErr := verifyState(path)
	if errors.Is(lastErr, ErrInUse) || errors.Is(lastErr, errNewer) {
		return nil, lastErr
	}
	if lastErr == nil && !last.fallen {
		return nil, nil
	}
	older, spareErr := verifyState(spare)
	switch {
	case lastErr == nil && (spareErr != nil || older.sequence != last.sequence+1):
		return nil, nil // nothing knows more than state.db
	case spareErr != nil:
		return nil, fmt.Errorf("%w: %s: %w; so is its copy: %w; put one of them back from a backup", ErrDamaged, path, lastErr, spareErr)
	case lastErr == nil:
		why = errors.New("its last commit is lost")
	default:
		why = lastErr
	}
	return why, restore(spare, path)
}

// useCopy puts the copy in the place of a state.db that is whole and was changed.
func useCopy(dir string, why error) error {
	path, spare := filepath.Join(dir, stateFile), filepath.Join(dir, stateCopy)
	if _, err := verifyState(spare); err != nil {
		return fmt.Errorf("%w; its copy: %w", why, err)
	}
	return restore(spare, path)
}

// restore puts a state.db aside and its copy in its place.
func restore(spare, path string) error {
	if _, err := putAside(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	from, err := os.Open(spare)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(tmp, from); err == nil {
		err = forgetListed(tmp.Name()) // it knows nothing of what was unlinked since
	}
	return finish(tmp, path, err)
}

// stateContent is the newest commit of a state.db.
type stateContent struct {
	sequence uint64
	fallen   bool // it may have had a successor
}

// verifyState looks at everything in a state.db, or in a copy.
func verifyState(path string) (c stateContent, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil { // bbolt's lock
		return c, fmt.Errorf("open %s: %w", path, ErrInUse)
	}
	if err := f.Sync(); err != nil { // what a killed process left to the system's cache
		return c, err
	}
	metas := readMetas(f)
	if len(metas) == 0 {
		return c, errNoMeta
	}
	c = stateContent{sequence: metas[0].sequence, fallen: len(metas) < 2}
	err = metas[0].lookAtState(f)
	return c, err
}

// lookAtState wants every page in its place and every value as it was written.
func (m *meta) lookAtState(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if m.end > uint64(fi.Size()/m.pageSize) {
		return fmt.Errorf("%w: the file is cut short", errTorn)
	}
	p := &pages{f: f, size: m.pageSize, seen: make([]byte, m.end)}
	var names []string
	buckets := map[string]bucket{}
	err = p.walk(m.root, elementBucket, func(name, value []byte) error {
		var b bucket
		err := b.read(value)
		names = append(names, string(name))
		buckets[string(name)] = b
		return err
	})
	if err != nil {
		return err
	}
	meta := buckets[string(bucketMeta)]
	facts, err := meta.facts(p)
	if err != nil {
		return err
	}
	plain, err := knownLayout(facts)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == string(bucketMeta) {
			continue
		}
		b := buckets[name]
		err := b.each(p, func(k, data []byte) error {
			if plain {
				return nil
			}
			_, err := openFact([]byte(name), k, data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return p.free(m.free)
}

// knownLayout tells a layout without checksums from today's, a newer one from
// a damaged one, and whether the bucket that says so is whole.
func knownLayout(facts map[string][]byte) (plain bool, err error) {
	version := number(facts[string(keyVersion)])
	layout, err := openFact(bucketMeta, keyLayout, facts[string(keyLayout)])
	switch {
	case version == 1 && facts[string(keyLayout)] == nil:
		return true, nil
	case err == nil && number(layout) > stateVersion, err != nil && version > stateVersion && version < 1<<16:
		return false, fmt.Errorf("%w: layout version %d", errNewer, version)
	case err != nil:
		return false, err
	case version != stateVersion:
		return false, fmt.Errorf("%w: layout version %d", errFact, version)
	}
	for k, data := range facts {
		if k == string(keyVersion) {
			continue
		}
		if _, err := openFact(bucketMeta, []byte(k), data); err != nil {
			return false, err
		}
	}
	return false, nil
}

// boundAside deletes the oldest of the files that were put aside when they take
// more than their share of the disk.
func (q *Queue) boundAside() error {
	names, bytes := aside(q.dir)
	for len(names) > 1 && bytes > max(q.cfg.MaxSize/4, 2*q.cfg.SegmentSize) {
		oldest, size := 0, int64(0)
		var when time.Time
		for i, name := range names {
			fi, err := os.Stat(filepath.Join(q.dir, name))
			if err != nil {
				return err
			}
			if i == 0 || fi.ModTime().Before(when) {
				oldest, size, when = i, fi.Size(), fi.ModTime()
			}
		}
		q.log.Warn("a damaged file that was put aside is deleted: together they take too much of the disk", "file", names[oldest])
		if err := os.Remove(filepath.Join(q.dir, names[oldest])); err != nil {
			return err
		}
		names = append(names[:oldest], names[oldest+1:]...)
		bytes -= size
	}
	return nil
}
