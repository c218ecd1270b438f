package storequeue

import (
	"encoding/binary"
	"os"
)

// A search goes through the pages of one file for what may be records. What it
// does is bounded by the size of the file, whatever is in it: it looks at each
// page once, and hands over no more than so many times the bytes of it.
type search struct {
	f         *os.File
	size, end int64 // of a page, of the file
	seeker    seeker

	chunk   []byte // pages that were read together
	chunkAt int64
	value   []byte // that does not lie within one page

	left     int64 // bytes that the page may still hand over
	leftLong int64 // bytes that all values together may that do not lie within one page
}

// A seeker is whom a search is for. It is given what it wants only.
type seeker interface {
	wants(seq uint64) bool
	take(seq uint64, rec []byte, at place) (sound bool, err error)
}

const (
	searchAgain = 4         // times a byte may be handed over: elements that lie may overlap
	searchChunk = 256 << 10 // bytes read together
)

// searchPages hands what may be records to the seeker, with the rank of their
// page; pages of rankNobody are passed over.
func searchPages(f *os.File, size int64, rank func(id uint64) int, to seeker) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	s := &search{f: f, size: size, end: fi.Size(), seeker: to, leftLong: searchAgain * fi.Size()}
	for id := uint64(2); int64(id) < s.end/size; {
		next := id + 1
		if r := rank(id); r != rankNobody {
			if next, err = s.page(id, r); err != nil {
				return err
			}
		}
		id = next
	}
	return nil
}

// page takes what it can from a leaf, and returns the page to go on with.
func (s *search) page(id uint64, rank int) (next uint64, err error) {
	b := s.read(int64(id) * s.size)
	if b == nil || binary.NativeEndian.Uint64(b) != id || binary.NativeEndian.Uint16(b[8:]) != pageLeaf {
		return id + 1, nil
	}
	s.left = searchAgain * s.size
	end, err := s.leaf(b, place{f: s.f, at: int64(id) * s.size, rank: rank}, true)
	return max(id+1, uint64((end+s.size-1)/s.size)), err // what a record runs over into is no page of its own
}

// read returns a page, which is there until the next is read, or nil: a bad
// sector.
func (s *search) read(at int64) []byte {
	if at < s.chunkAt || at+s.size > s.chunkAt+int64(len(s.chunk)) {
		n := min(max(searchChunk, s.size), (s.end-at)/s.size*s.size)
		if int64(cap(s.chunk)) < n {
			s.chunk = make([]byte, n)
		}
		s.chunk, s.chunkAt = s.chunk[:n], at
		if _, err := s.f.ReadAt(s.chunk, at); err != nil {
			s.chunk = s.chunk[:s.size]
			if _, err := s.f.ReadAt(s.chunk, at); err != nil {
				s.chunk = s.chunk[:0]
				return nil
			}
		}
	}
	at -= s.chunkAt
	return s.chunk[at : at+s.size]
}

// leaf takes what it can from a leaf that lies at a place: a page, or what lies
// in an element of one. It returns where in the file the last record ends that
// is one, or 0.
func (s *search) leaf(b []byte, at place, page bool) (end int64, err error) {
	count := min(int(binary.NativeEndian.Uint16(b[10:])), (len(b)-pageHeader)/pageElement)
	for i := range count {
		start, kn, vn := elementAt(b, i)
		there := at
		there.at = at.at + int64(start+kn)
		var took int64
		switch {
		case start+kn+vn > uint64(len(b)):
			if page && kn == 8 {
				took, err = s.long(vn, there)
			}
		case kn == 8:
			took, err = s.records(b[start:start+8], b[start+8:start+8+vn], there)
		case page && string(b[start:start+kn]) == string(bucketRecords) && vn >= bucketHeader+pageHeader && s.spend(vn):
			there.at += bucketHeader
			took, err = s.leaf(b[start+kn+bucketHeader:start+kn+vn], there, false)
		}
		if err != nil {
			return end, err
		}
		end = max(end, took)
	}
	return end, nil
}

// elementAt is where an element of a leaf says that its key lies, behind b's
// beginning, and how long key and value are.
func elementAt(b []byte, i int) (start, key, value uint64) {
	at := pageHeader + i*pageElement
	e := b[at:]
	return uint64(at) + uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
}

// spend reports whether the page may still hand over so many bytes, and some for
// the trouble.
func (s *search) spend(n uint64) bool {
	cost := int64(n) + pageElement
	if cost > s.left {
		return false
	}
	s.left -= cost
	return true
}

// long is records for a value that goes beyond its page; its key, of eight bytes,
// lies before it.
func (s *search) long(size uint64, at place) (end int64, err error) {
	cost := max(int64(size), s.size)
	if at.at+int64(size) > s.end || cost > s.leftLong {
		return 0, nil
	}
	s.leftLong -= cost
	var k [8]byte
	if _, err := s.f.ReadAt(k[:], at.at-8); err != nil || !s.seeker.wants(number(k[:])) {
		return 0, nil
	}
	if uint64(cap(s.value)) < size {
		s.value = make([]byte, size)
	}
	if _, err := s.f.ReadAt(s.value[:size], at.at); err != nil {
		return 0, nil
	}
	s.left = max(s.left, int64(size)+pageElement) // it is paid for
	return s.records(k[:], s.value[:size], at)
}

// records takes what it can from the value under a key.
func (s *search) records(k, data []byte, at place) (end int64, err error) {
	if !s.seeker.wants(number(k)) || !s.spend(uint64(len(data))) {
		return 0, nil
	}
	v, err := openValue(number(k), data)
	if err != nil {
		return 0, nil
	}
	for seq, rec, ok := v.next(); ok; seq, rec, ok = v.next() {
		if !s.seeker.wants(seq) {
			continue
		}
		there := at
		there.at, there.size = at.at+int64(cap(data)-cap(rec)), len(rec)
		sound, err := s.seeker.take(seq, rec, there)
		if err != nil {
			return end, err
		}
		if sound {
			end = there.at + int64(len(rec))
		}
	}
	return end, nil
}
