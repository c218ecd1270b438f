package storequeue

import (
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
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	size, ranks := rankPages(f)
	for id := uint64(2); int64(id) < fi.Size()/size; {
		rank := rankAdrift
		if id < uint64(len(ranks)) {
			rank = ranks[id]
		}
		n := uint64(1)
		if rank != rankNobody {
			if n, err = s.page(f, id, size, rank+more); err != nil {
				return err
			}
		}
		id += n
	}
	return nil
}

// rankPages tells, as far as it can, what leads to each page.
func rankPages(f *os.File) (size int64, ranks []int) {
	metas := readMetas(f)
	fi, err := f.Stat()
	if len(metas) == 0 || err != nil {
		return int64(os.Getpagesize()), nil
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
		if _, v, ok := roughElement(b, i); ok && len(v) >= 8 {
			if root := binary.NativeEndian.Uint64(v); root != 0 {
				p.mark(root)
			}
		}
	}
}

// roughElement is an element of a leaf wherever it says that it lies.
func roughElement(b []byte, i int) (k, v []byte, ok bool) {
	e := b[pageHeader+i*pageElement:]
	at, kn, vn := uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
	if at+kn+vn > uint64(len(e)) {
		return nil, nil, false
	}
	return e[at : at+kn], e[at+kn : at+kn+vn], true
}

// page takes what it can from a leaf, and returns how many pages that was.
func (s *salvage) page(f *os.File, id uint64, size int64, rank int) (n uint64, err error) {
	b := make([]byte, size)
	if _, err := f.ReadAt(b, int64(id)*size); err != nil {
		return 1, nil // a bad sector
	}
	fi, err := f.Stat()
	if err != nil {
		return 1, err
	}
	n = 1 + uint64(binary.NativeEndian.Uint32(b[12:]))
	if binary.NativeEndian.Uint64(b) != id || binary.NativeEndian.Uint16(b[8:]) != pageLeaf {
		return 1, nil // what another page runs over into is none of its own
	}
	if n > 1 {
		n = min(n, uint64(fi.Size()/size)-id)
		b = make([]byte, int64(n)*size)
		if _, err := f.ReadAt(b, int64(id)*size); err != nil {
			return 1, nil
		}
	}
	sound, err := s.leaf(b, b, place{f: f, at: int64(id) * size, rank: rank})
	if err != nil || !sound {
		return 1, err // it may not be that long
	}
	return n, nil
}

// leaf takes what it can from a leaf, which may be one that lies in place in an
// element of another; page is where the file has them at.
func (s *salvage) leaf(page, b []byte, at place) (sound bool, err error) {
	for i := 0; i < int(binary.NativeEndian.Uint16(b[10:])) && pageHeader+(i+1)*pageElement <= len(b); i++ {
		k, data, ok := roughElement(b, i)
		if !ok {
			continue
		}
		if len(data) >= bucketHeader+pageHeader && string(k) == string(bucketRecords) && len(page) == len(b) {
			took, err := s.leaf(page, data[bucketHeader:], at)
			if err != nil {
				return sound, err
			}
			sound = sound || took
		}
		v, err := openValue(number(k), data)
		if err != nil || len(k) != 8 {
			continue
		}
		for seq, rec, ok := v.next(); ok; seq, rec, ok = v.next() {
			there := at
			there.at, there.size = at.at+int64(cap(page)-cap(rec)), len(rec)
			took, err := s.take(seq, rec, there)
			if err != nil {
				return sound, err
			}
			sound = sound || took
		}
	}
	return sound, nil
}

func (s *salvage) take(seq uint64, rec []byte, at place) (sound bool, err error) {
	if seq < s.first || seq > s.last {
		return false, nil
	}
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
