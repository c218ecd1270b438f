package storequeue

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
)

func (q *Queue) open() error {
	first, err := isEmptyDir(q.dir)
	if err != nil {
		return err
	}
	if first {
		if q.cfg.MustExist {
			return fmt.Errorf("%w: put its folder back from a backup", ErrMissing)
		}
		if err := create(q.dir, &q.cfg); err != nil {
			return err
		}
	}
	why, err := q.openState()
	if err != nil {
		return err
	}
	q.badFacts(q.state.bad)
	if err = q.openSegments(); err == nil {
		err = q.openReaders()
	}
	if err == nil {
		err = q.dropKeys()
	}
	if err == nil {
		err = q.boundAside()
	}
	if err != nil {
		q.closeFiles()
		return err
	}
	q.state.worthCopying() // it may be older than a change of keys
	if why != nil {
		q.log.Error(stateFile+" was damaged: its copy has taken its place; sessions and retained messages may be older, and messages may come again; check the disk",
			"aside", stateFile+corruptSuffix, "error", why)
		at := now()
		q.announce(Loss{Reason: ReasonState, From: at, To: at})
	}
	q.tellWounds()
	return nil
}

// openState opens state.db, or its copy where it is damaged, or where somebody
// changed it who has no key; why says so.
func (q *Queue) openState() (why, err error) {
	if why, err = settleState(q.dir); err != nil {
		return nil, err
	}
	q.state, err = openState(q.dir, q.cfg)
	if why != nil || !errors.Is(err, errFact) {
		return why, err
	}
	why = err
	if err = useCopy(q.dir, why); err == nil {
		q.state, err = openState(q.dir, q.cfg)
	}
	return why, err
}

// isEmptyDir tells a queue from a place for one. A folder that a power cut
// left half made holds no state.db, the last file to get its name, and at most
// one segment without a record.
func isEmptyDir(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	var segments []string
	for _, e := range entries {
		if e.Name() == stateFile || e.Name() == stateCopy {
			return false, nil
		}
		if _, ok := parseSegment(e.Name()); ok {
			segments = append(segments, filepath.Join(dir, e.Name()))
		}
	}
	for _, path := range segments {
		if used, err := hasRecords(path); err != nil || used {
			return false, errors.Join(err, fmt.Errorf("%w: %s is there, but %s is missing: put it back from a backup", ErrDamaged, path, stateFile))
		}
	}
	return true, nil
}

func hasRecords(path string) (used bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	metas := readMetas(f)
	if len(metas) == 0 {
		return false, errNoMeta
	}
	p, records, _, err := metas[0].buckets(f)
	if err == nil {
		err = records.each(p, func(_, _ []byte) error {
			used = true
			return nil
		})
	}
	return used, err
}

// create makes an empty queue. state.db comes last: without it the folder
// counts as empty, so a power cut on the way leaves nothing that looks like a
// queue.
func create(dir string, cfg *Config) error {
	var r *ring
	if cfg.Encrypt {
		var err error
		if r, err = newRing(1).turnOn(cfg.Key); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syncPath(filepath.Dir(dir)); err != nil {
		return err
	}
	var b [8]byte
	rand.Read(b[:])                                                      // never fails
	epoch := binary.BigEndian.Uint64(b[:]) >> 16                         // 48 bits: short enough for people, unique enough for a site
	if _, err := createSegment(dir, seal{epoch: epoch}, 1); err != nil { // without a record: any seal will do
		return err
	}
	v, err := newVault(epoch, r)
	if err != nil {
		return err
	}
	return createBolt(filepath.Join(dir, stateFile), func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketReaders, bucketCursors} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		if r != nil {
			if err := errors.Join(r.admit(tx, epoch, cfg.Key), r.put(tx, epoch)); err != nil {
				return err
			}
		}
		if err := errors.Join(putVersion(tx), v.putListed(tx, 1, nil)); err != nil {
			return err
		}
		return putFact(tx, bucketMeta, keyEpoch, key(epoch))
	})
}

// openSegments opens what the folder holds, oldest first.
func (q *Queue) openSegments() error {
	firsts, err := q.listSegments()
	if err != nil {
		return err
	}
	if len(firsts) == 0 {
		return fmt.Errorf("%w: %s is there, but no segment", ErrMissing, stateFile)
	}
	if newest := q.state.newest; firsts[len(firsts)-1] < newest {
		return fmt.Errorf("%w: %s, the newest segment; put it back, or its sequence numbers would be given twice",
			ErrMissing, segmentPath(q.dir, newest))
	}
	var sick []*patient
	firsts, isThere := q.withListed(firsts)
	for i, first := range firsts {
		with, err := q.state.sealOf(first)
		if err != nil {
			return err
		}
		var p *patient
		if !isThere[first] {
			p = q.missing(with, firsts[i+1]-1)
		} else if i+1 < len(firsts) {
			p, err = peekSegment(segmentPath(q.dir, first), with, firsts[i+1]-1)
		} else {
			p, err = q.openNewest(first, with)
		}
		if err != nil {
			return err
		}
		q.segments = append(q.segments, p.s)
		if p.cause != nil {
			sick = append(sick, p)
		}
	}
	if err := q.mend(sick, len(firsts)); err != nil {
		return err
	}
	if err := q.listAll(firsts); err != nil {
		return err
	}
	active := q.segments[len(q.segments)-1]
	q.committed.Store(active.last)
	if active.sealed {
		return nil
	}
	return active.openForWriting(q.mmapSize())
}

// listSegments returns what the segments' names tell, in order, and removes
// files that never got their name: they hold nothing.
func (q *Queue) listSegments() (firsts []uint64, err error) {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			if err := os.Remove(filepath.Join(q.dir, e.Name())); err != nil {
				return nil, err
			}
		} else if first, ok := parseSegment(e.Name()); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// openReaders restores the durable readers and counts what waits for them.
func (q *Queue) openReaders() error {
	err := q.state.db.View(func(tx *bbolt.Tx) error {
		err := q.clock.start(q.state.keys.vault.fact(tx, bucketMeta, keyClock), q.committed.Load())
		if err != nil {
			return fmt.Errorf("%w: clock: %w", ErrDamaged, err)
		}
		err = q.state.keys.vault.each(tx, bucketReaders, func(name string, id []byte) error {
			at := number(q.state.keys.vault.fact(tx, bucketCursors, id))
			r := newReader(q, ReaderID(number(id)), name, at)
			r.durable = true
			if err := r.restore(tx, at); err != nil {
				return fmt.Errorf("%w: reader %s: %w", ErrDamaged, name, err)
			}
			q.readers[r.id], q.names[r.name] = r, r
			return nil
		})
		if err != nil {
			return err
		}
		return q.restoreLosses(tx)
	})
	if err != nil {
		return err
	}
	for _, s := range q.segments {
		if err := q.countWaiting(s); err != nil {
			return err
		}
	}
	return q.openRemovals()
}

// countWaiting needs to look into a segment only for readers that are within it.
func (q *Queue) countWaiting(s *segment) error {
	part := map[ReaderID]bool{}
	for id, k := range s.marks {
		if r := q.readers[id]; r != nil && r.acked < k.last && (r.acked >= s.first || r.skipped.overlap(s.first-1, k.last) > 0) {
			part[id] = true
		}
	}
	if len(part) > 0 {
		defer s.rest()
		if err := q.makeSound(s); err != nil {
			return err
		}
	}
	for id, k := range s.marks {
		if r := q.readers[id]; r != nil && k.last > r.acked {
			r.newest, r.ahead.after = k.last, k.last
			if !part[id] {
				r.waiting += k.n
				r.bytes += k.bytes
			}
		}
	}
	if len(part) == 0 {
		return nil
	}
	return s.countMarks(s.first, func(id ReaderID, seq uint64, size int) {
		if r := q.readers[id]; r != nil && part[id] && seq > r.acked && !r.skipped.has(seq) {
			r.waiting++
			r.bytes += uint64(size)
		}
	})
}

// makeSound makes a segment anew if its file is damaged.
func (q *Queue) makeSound(s *segment) error {
	err := s.use(func(*bbolt.DB) error { return nil })
	if !errors.Is(err, errDamaged) {
		return err
	}
	w, err := q.repair(s, err)
	if w != nil {
		q.wounds = append(q.wounds, w)
	}
	return err
}

// parseSegment returns the first sequence that a file name tells.
func parseSegment(name string) (first uint64, ok bool) {
	hex, found := strings.CutPrefix(name, segmentPrefix)
	hex, suffix := strings.CutSuffix(hex, segmentSuffix)
	if !found || !suffix || len(hex) != 16 {
		return 0, false
	}
	n, err := fmt.Sscanf(hex, "%016x", &first)
	return first, n == 1 && err == nil
}
