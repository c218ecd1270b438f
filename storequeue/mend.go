package storequeue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// corruptSuffix is what a damaged file is called by that was put aside.
const corruptSuffix = ".corrupt"

// smallestRecord bounds how many records a file can have held.
const smallestRecord = 24

// A wound is what a segment lost.
type wound struct {
	s       *segment
	before  map[ReaderID]markCount // what each reader had in it; nil: that cannot be read
	missing []gap                  // sequences that are not there; of a sparse segment some never were
	corrupt string                 // where the damaged file is
	cause   error
}

// A gap is the sequences from first to last.
type gap struct{ first, last uint64 }

// mend makes each of these segments anew of what can be found of it, in its own
// file and in those of the others, and puts the damaged files aside. What is
// lost is told once the readers are there.
func (q *Queue) mend(sick []*patient, of int) error {
	foreign := 0
	for _, p := range sick {
		if p.other != 0 {
			foreign++
		}
	}
	if foreign > 0 && foreign == of {
		return fmt.Errorf("%w: %s belongs to another queue than the segments beside it; put back the one that belongs to them", ErrDamaged, stateFile)
	}
	files, err := openAll(q.dir, sick)
	defer closeAll(files)
	if err != nil {
		return err
	}
	others, err := survey(sick, files)
	if err != nil {
		return err
	}
	for i, p := range sick {
		w, err := q.mendOne(p, files[i], others[i])
		if err != nil {
			return fmt.Errorf("salvage segment %s: %w", p.s.path, err)
		}
		q.wounds = append(q.wounds, w)
	}
	return nil
}

// searchMost bounds how many files are searched beside those in which
// something is wrong now.
const searchMost = 8

// openAll opens the files of the sick, and what was put aside before.
func openAll(dir string, sick []*patient) (files []*os.File, err error) {
	if len(sick) == 0 {
		return nil, nil
	}
	var names []string
	for _, p := range sick {
		names = append(names, p.s.path)
	}
	aside, _ := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"+corruptSuffix+"*"))
	for _, name := range append(names, aside[max(0, len(aside)-searchMost):]...) {
		f, err := os.Open(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // one that is gone is a nil among them
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// mendOne makes the segment anew whose file is own among all that may hold
// something of it.
func (q *Queue) mendOne(p *patient, own *os.File, others []*os.File) (*wound, error) {
	s := p.s
	search := &salvage{seal: s.seal.again(), first: s.first, last: p.last(), found: map[uint64]place{}}
	if err := search.search(own, rankOwn); err != nil {
		return nil, err
	}
	seqs := search.sequences()
	if !p.ends || uint64(len(seqs)) <= search.last-s.first {
		for _, f := range others {
			if err := search.search(f, 0); err != nil {
				return nil, err
			}
		}
		seqs = search.sequences()
	}
	last := s.last
	if n := len(seqs); n > 0 {
		last = max(last, seqs[n-1])
	}
	w := &wound{s: s, missing: gaps(seqs, s.first, last), cause: p.cause}
	if p.sealed {
		q.segMu.RLock()
		w.before = s.marks
		q.segMu.RUnlock()
	}
	if !p.ends && p.newest { // what is written next must not get a sequence again
		last = max(last, s.first-1+uint64((q.cfg.SegmentSize+maxBatchBytes)/smallestRecord))
	}
	return w, q.replaceDamaged(w, last, search.each)
}

// gaps returns what is missing between first and last.
func gaps(seqs []uint64, first, last uint64) (missing []gap) {
	next := first
	for _, seq := range seqs {
		if seq > next {
			missing = append(missing, gap{next, seq - 1})
		}
		next = seq + 1
	}
	if next <= last {
		missing = append(missing, gap{next, last})
	}
	return missing
}

// replaceDamaged puts the damaged file aside and one with these records in its
// place.
func (q *Queue) replaceDamaged(w *wound, last uint64, each func(put func(uint64, []byte) error) error) error {
	s := w.s
	made, err := buildSegment(s.path+tmpSuffix, s.seal, s.first, last, each)
	if err != nil {
		return err
	}
	if w.corrupt, err = putAside(s.path); err != nil && !errors.Is(w.cause, errGone) {
		return errors.Join(err, ignoreMissing(os.Remove(made.path)))
	}
	q.segMu.Lock()
	s.marks, s.body, s.last, s.sealed = made.marks, made.body, last, true
	q.segMu.Unlock()
	s.sparse.Store(true)
	if err := s.replace(made.path); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(made.path)))
	}
	s.bytes.Store(made.bytes.Load())
	return nil
}

// putAside gives a file a second name, which none has had, on disk when it
// returns. Where the file system has no second names the file has only that.
func putAside(path string) (string, error) {
	aside, err := asideName(path)
	if err != nil || aside == "" {
		return "", err
	}
	if err := os.Link(path, aside); err != nil {
		if err := os.Rename(path, aside); err != nil {
			return "", err
		}
	}
	return aside, syncPath(filepath.Dir(path))
}

// asideName is a free name, or that which the file was given before a crash.
func asideName(path string) (string, error) {
	own, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		aside := path + corruptSuffix
		if n > 1 {
			aside += fmt.Sprintf(".%d", n)
		}
		other, err := os.Lstat(aside)
		if errors.Is(err, os.ErrNotExist) {
			return aside, nil
		}
		if err != nil {
			return "", err
		}
		if os.SameFile(own, other) {
			return aside, nil
		}
	}
}

// aside lists the damaged files that were put aside, with their bytes.
func aside(dir string) (names []string, bytes int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), corruptSuffix) {
			continue
		}
		names = append(names, e.Name())
		if fi, err := e.Info(); err == nil {
			bytes += fi.Size()
		}
	}
	slices.Sort(names)
	return names, bytes
}

// viewSound is segment.view that makes a damaged segment anew first, if again
// says that fn may run again.
func (q *Queue) viewSound(s *segment, fn func(*bbolt.Tx) error, again func() bool) error {
	err := s.view(fn)
	if !errors.Is(err, errDamaged) || !again() {
		return err
	}
	w, rerr := q.repair(s, err)
	if rerr != nil {
		return rerr
	}
	if w != nil {
		q.waitForLess(w)
		q.tell(w)
	}
	return s.view(fn)
}

// repair makes a damaged segment anew. No wound: there is nothing wrong with
// its file now.
func (q *Queue) repair(s *segment, cause error) (*wound, error) {
	q.rewriting.Lock()
	defer q.rewriting.Unlock()
	s.mu.Lock()
	s.sound = false
	err, writing := s.verify(), s.writing
	s.mu.Unlock()
	switch {
	case err == nil:
		return nil, nil
	case q.unlinked(s):
		return nil, berrors.ErrDatabaseNotOpen
	case writing || !errors.Is(err, errDamaged):
		return nil, cause
	}
	p := &patient{s: s, cause: err, sealed: true, ends: true}
	files, err := openAll(q.dir, []*patient{p})
	defer closeAll(files)
	if err != nil {
		return nil, err
	}
	w, err := q.mendOne(p, files[0], files[1:])
	if err != nil {
		return nil, fmt.Errorf("salvage segment %s: %w", s.path, err)
	}
	return w, nil
}

// waitForLess takes what was lost off what waits for its readers.
func (q *Queue) waitForLess(w *wound) {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	for id, k := range w.before {
		r, left := q.readers[id], w.s.marks[id]
		if r == nil {
			continue
		}
		r.mu.Lock()
		if k.last > r.acked {
			n := min(k.n-min(k.n, left.n), missingFor(w.missing, standing{r.acked, r.skipped}))
			r.waiting -= min(n, r.waiting)
			r.bytes -= min(k.bytes-min(k.bytes, left.bytes), r.bytes)
		}
		r.mu.Unlock()
	}
}

// tellWounds says what was lost, and to whom, as far as that is known.
func (q *Queue) tellWounds() {
	for _, w := range q.wounds {
		q.tell(w)
	}
	q.wounds = nil
}

func (q *Queue) tell(w *wound) {
	lost := q.lossesOf(w)
	total := uint64(0)
	for _, l := range lost {
		total += l.Count
	}
	text := "a segment was damaged: what could be read of it is kept, the file was put aside; check the disk, and delete that file when nobody needs it"
	if errors.Is(w.cause, errGone) {
		text = "a segment's file is gone: what it held is lost; if a backup has it, stop the gateway, put it back, and start"
	}
	q.log.Error(text,
		"segment", w.s.path, "aside", w.corrupt, "lost", total, "error", w.cause)
	q.damaged.Add(total)
	for _, l := range lost {
		q.announce(l)
	}
}

func (q *Queue) announce(l Loss) {
	q.lose(l)
	if q.cfg.Lost != nil {
		q.cfg.Lost(l)
	}
}

// lossesOf counts what the readers that need a segment miss in it.
func (q *Queue) lossesOf(w *wound) (lost []Loss) {
	q.segMu.RLock()
	defer q.segMu.RUnlock()
	found, low := now(), ^uint64(0)
	for _, r := range q.readers {
		r.mu.Lock()
		at := standing{r.acked, r.skipped}
		r.mu.Unlock()
		low = min(low, at.acked)
		k, n := w.before[r.id], w.s.marks[r.id].n
		if w.before == nil || k.n <= n || k.last <= at.acked {
			continue
		}
		if n = min(k.n-n, missingFor(w.missing, at)); n > 0 {
			lost = append(lost, Loss{Reader: r.name, Reason: ReasonDamaged, Count: n, From: found, To: found})
		}
	}
	if n := missingFor(w.missing, standing{acked: low}); w.before == nil && n > 0 {
		lost = append(lost, Loss{Reason: ReasonDamaged, Count: n, From: found, To: found})
	}
	return lost
}

// missingFor is how much is missing of what a reader at a place is still to see.
func missingFor(missing []gap, at standing) (n uint64) {
	for _, m := range missing {
		n += at.left(m.first, m.last)
	}
	return n
}
