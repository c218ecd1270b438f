package storequeue

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
)

// A salvage looks for the records of one segment in files that are damaged,
// page by page, whatever the pages above say of them.
type salvage struct {
	seal        seal
	first, last uint64
	found       map[uint64]place // by sequence
}

// A place is where a record lies that verifies.
type place struct {
	f    *os.File
	at   int64
	size int
	rank int    // what leads to it
	tail uint32 // of the record: two with the same are the same
}

// Of two records with the same sequence, which the log never gives twice but to
// what was taken back, the one with the higher rank counts; none if they differ
// and have the same.
const (
	rankNobody = iota
	rankFree   // in a page that the free list names, of a file that lost its last commit
	rankAdrift // in a page that nothing leads to
	rankLive   // in a page of the newest commit
	rankOwn    // on top of it: in the segment's own file
)

// search looks at every page of a file; more is added to each rank. What cannot
// be read is as good as empty.
func (s *salvage) search(f *os.File, more int) error {
	if f == nil { // it is gone
		return nil
	}
	size, ranks := rankPages(f)
	return searchPages(f, size, func(id uint64) int {
		switch {
		case id >= uint64(len(ranks)):
			return rankAdrift + more
		case ranks[id] == rankNobody:
			return rankNobody
		}
		return ranks[id] + more
	}, s)
}

func (s *salvage) wants(seq uint64) bool { return seq >= s.first && seq <= s.last }

// rankPages tells, as far as it can, what leads to each page.
func rankPages(f *os.File) (size int64, ranks []int) {
	metas := readMetas(f)
	fi, err := f.Stat()
	if len(metas) == 0 || err != nil {
		return pageSize(metas), nil
	}
	m := metas[0]
	end := min(m.end, uint64(fi.Size()/m.pageSize))
	p := &pages{f: f, size: m.pageSize, seen: make([]byte, end)}
	p.mark(m.root)
	ranks = make([]int, end)
	for id := range ranks {
		ranks[id] = rankAdrift
		if p.seen[id] == pageUsed {
			ranks[id] = rankLive
		}
	}
	free, err := p.freeList(m.free)
	for _, id := range free {
		if err == nil && id < end && ranks[id] != rankLive {
			ranks[id] = rankNobody
			if len(metas) < 2 { // the lost commit may lie there
				ranks[id] = rankFree
			}
		}
	}
	return m.pageSize, ranks
}

func pageSize(metas []meta) int64 {
	if len(metas) == 0 {
		return int64(os.Getpagesize())
	}
	return metas[0].pageSize
}

// mark notes which pages a tree leads to, as far as it can be followed.
func (p *pages) mark(id uint64) {
	b, err := p.read(id, nil)
	if err != nil {
		return
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	for i := 0; i < count && pageHeader+(i+1)*pageElement <= len(b); i++ {
		e := b[pageHeader+i*pageElement:]
		if flags == pageBranch {
			p.mark(binary.NativeEndian.Uint64(e[8:]))
			continue
		}
		if flags != pageLeaf || binary.NativeEndian.Uint32(e)&elementBucket == 0 {
			continue
		}
		start, kn, vn := elementAt(b, i)
		if v := start + kn; vn >= 8 && v+8 <= uint64(len(b)) {
			if root := binary.NativeEndian.Uint64(b[v:]); root != 0 {
				p.mark(root)
			}
		}
	}
}

func (s *salvage) take(seq uint64, rec []byte, at place) (sound bool, err error) {
	if _, err := s.seal.open(rec, seq); err != nil {
		if errors.Is(err, errNewer) {
			return false, err
		}
		return false, nil
	}
	at.tail = binary.BigEndian.Uint32(rec[len(rec)-sumSize:])
	old, ok := s.found[seq]
	switch {
	case !ok || at.rank > old.rank:
		s.found[seq] = at
	case at.rank == old.rank && (at.tail != old.tail || at.size != old.size):
		old.size = 0 // which of them was acknowledged nobody can say
		s.found[seq] = old
	}
	return true, nil
}

// A surveyor looks which of some segments a file that is not their own holds
// something of, so that each is searched for where there is something only: what
// is searched grows with the files, and not with their square.
type surveyor struct {
	sick  []*patient // in the order of their sequences
	seals []seal
	found []bool // by segment; true for the file's own, which need not be asked about
}

// survey returns, for each segment, those of the files that are not its own and
// hold something of it. The first files are the segments' own.
func survey(sick []*patient, files []*os.File) ([][]*os.File, error) {
	others := make([][]*os.File, len(sick))
	if len(files) < 2 {
		return others, nil
	}
	s := &surveyor{sick: sick}
	for _, p := range sick {
		s.seals = append(s.seals, p.s.seal.again())
	}
	for i, f := range files {
		if f == nil { // it is gone
			continue
		}
		s.found = make([]bool, len(sick))
		if i < len(sick) {
			s.found[i] = true
		}
		if err := searchPages(f, pageSize(readMetas(f)), func(uint64) int { return rankAdrift }, s); err != nil {
			return nil, err
		}
		for j, found := range s.found {
			if found && j != i {
				others[j] = append(others[j], f)
			}
		}
	}
	return others, nil
}

// of returns which segment a sequence is of.
func (s *surveyor) of(seq uint64) (i int, ok bool) {
	i, ok = slices.BinarySearchFunc(s.sick, seq, func(p *patient, seq uint64) int { return cmp.Compare(p.s.first, seq) })
	if !ok {
		i--
	}
	return i, i >= 0 && seq <= s.sick[i].last()
}

func (s *surveyor) wants(seq uint64) bool {
	i, ok := s.of(seq)
	return ok && !s.found[i]
}

func (s *surveyor) take(seq uint64, rec []byte, _ place) (sound bool, err error) {
	i, _ := s.of(seq)
	_, err = s.seals[i].open(rec, seq)
	s.found[i] = err == nil || errors.Is(err, errNewer)
	return false, nil
}

// sequences returns what was found, in order.
func (s *salvage) sequences() []uint64 {
	seqs := make([]uint64, 0, len(s.found))
	for seq, at := range s.found {
		if at.size > 0 {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs
}

// each hands what was found to put.
func (s *salvage) each(put func(seq uint64, rec []byte) error) error {
	var rec []byte
	for _, seq := range s.sequences() {
		at := s.found[seq]
		rec = slices.Grow(rec[:0], at.size)[:at.size]
		if _, err := at.f.ReadAt(rec, at.at); err != nil {
			return fmt.Errorf("record %d: %w", seq, err)
		}
		if err := put(seq, rec); err != nil {
			return err
		}
	}
	return nil
}
