package storequeue

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// pages reads the pages of a bbolt file, each of them once. Unlike bbolt it
// takes any bytes: what is wrong is an error. It wants a page to be laid out as
// bbolt writes it, to the byte, so that what it passes bbolt can walk.
type pages struct {
	f    *os.File
	size int64
	seen []byte // by page number: what led to it
}

// What leads to a page.
const (
	pageUsed   = 1 // a tree, or the meta page to the free list
	pageUnused = 2 // the free list
)

const (
	pageHeader   = 16 // number 8, flags 2, count 2, overflow 4
	pageElement  = 16
	bucketHeader = 16 // root 8, sequence 8; behind it, if the root is 0, its page
	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageMeta     = 0x04
	pageFree     = 0x10
)

const (
	elementValue  = 0 // flags of a leaf's elements
	elementBucket = 1
)

// read returns a page together with the pages it runs over into, in buf if it
// is large enough.
func (p *pages) read(id uint64, buf []byte) ([]byte, error) {
	if id >= uint64(len(p.seen)) {
		return nil, fmt.Errorf("%w: page %d is beyond the end", errTorn, id)
	}
	if err := p.see(id, pageUsed); err != nil { // before it is read: nothing is read twice
		return nil, err
	}
	if int64(cap(buf)) < p.size {
		buf = make([]byte, p.size)
	}
	buf = buf[:p.size]
	if _, err := p.f.ReadAt(buf, int64(id)*p.size); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	n := 1 + uint64(binary.NativeEndian.Uint32(buf[12:]))
	if binary.NativeEndian.Uint64(buf) != id || n > uint64(len(p.seen))-id {
		return nil, fmt.Errorf("%w: page %d is another one", errTorn, id)
	}
	for i := uint64(1); i < n; i++ {
		if err := p.see(id+i, pageUsed); err != nil {
			return nil, err
		}
	}
	if n == 1 {
		return buf, nil
	}
	buf = make([]byte, int64(n)*p.size)
	if _, err := p.f.ReadAt(buf, int64(id)*p.size); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return buf, nil
}

func (p *pages) see(id uint64, as byte) error {
	if id < 2 || id >= uint64(len(p.seen)) || p.seen[id] != 0 {
		return fmt.Errorf("%w: page %d is in two places", errTorn, id)
	}
	p.seen[id] = as
	return nil
}

// A tree is one bucket being walked.
type tree struct {
	p     *pages
	flags uint32 // of its elements
	leaf  func(k, v []byte) error
	prev  []byte   // the key before
	bufs  [][]byte // one for each level
}

// walk calls leaf with each key and value of the tree below a page, in order,
// which share bytes that are used again.
func (p *pages) walk(id uint64, flags uint32, leaf func(k, v []byte) error) error {
	t := &tree{p: p, flags: flags, leaf: leaf}
	return t.page(id, nil, 0)
}

// page walks what lies below a page, the first key of which is known above: all
// but the root's.
func (t *tree) page(id uint64, first []byte, level int) error {
	if level == len(t.bufs) {
		t.bufs = append(t.bufs, nil)
	}
	b, err := t.p.read(id, t.bufs[level])
	if err != nil {
		return err
	}
	if int64(len(b)) == t.p.size {
		t.bufs[level] = b
	}
	end, err := t.elements(b, first, level)
	if err == nil && max(1, (int64(end)+t.p.size-1)/t.p.size)*t.p.size != int64(len(b)) {
		err = fmt.Errorf("%w: page %d has room left over", errTorn, id)
	}
	return err
}

// elements returns where the last one ends.
func (t *tree) elements(b, first []byte, level int) (end int, err error) {
	if len(b) < pageHeader {
		return 0, errTorn
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	end = pageHeader + count*pageElement
	if flags != pageBranch && flags != pageLeaf || end > len(b) || count == 0 && (flags == pageBranch || first != nil) {
		return 0, fmt.Errorf("%w: a page of another kind", errTorn)
	}
	for i := range count {
		k, v, err := element(b, i, flags, end)
		if err != nil {
			return 0, err
		}
		if i == 0 && first != nil && !bytes.Equal(first, k) {
			return 0, fmt.Errorf("%w: a page begins with another key", errTorn)
		}
		end += len(k) + len(v)
		e := b[pageHeader+i*pageElement:]
		if flags == pageBranch {
			err = t.page(binary.NativeEndian.Uint64(e[8:]), k, level+1)
		} else {
			err = t.element(binary.NativeEndian.Uint32(e), k, v)
		}
		if err != nil {
			return 0, err
		}
	}
	return end, nil
}

func (t *tree) element(flags uint32, k, v []byte) error {
	if flags != t.flags || len(k) == 0 || t.prev != nil && bytes.Compare(t.prev, k) >= 0 {
		return fmt.Errorf("%w: keys out of order", errTorn)
	}
	t.prev = append(t.prev[:0], k...)
	return t.leaf(k, v)
}

// element returns the key and the value of a page's element, which must begin
// at a place.
func element(b []byte, i int, flags uint16, want int) (k, v []byte, err error) {
	start := pageHeader + i*pageElement
	e := b[start:]
	at, kn, vn := uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
	if flags == pageBranch {
		at, kn, vn = uint64(binary.NativeEndian.Uint32(e)), at, 0
	}
	if uint64(start)+at != uint64(want) || at+kn+vn > uint64(len(e)) {
		return nil, nil, fmt.Errorf("%w: an element lies where none should", errTorn)
	}
	return e[at : at+kn], e[at+kn : at+kn+vn], nil
}

// free reads the list of free pages, and wants it to name every page that
// nothing else has led to, and no other.
func (p *pages) free(id uint64) error {
	free, err := p.freeList(id)
	if err != nil {
		return err
	}
	for _, id := range free {
		if err := p.see(id, pageUnused); err != nil {
			return err
		}
	}
	for id := 2; id < len(p.seen); id++ {
		if p.seen[id] == 0 {
			return fmt.Errorf("%w: page %d is nowhere", errTorn, id)
		}
	}
	return nil
}

func (p *pages) freeList(id uint64) (free []uint64, err error) {
	b, err := p.read(id, nil)
	if err != nil {
		return nil, err
	}
	count, ids := uint64(binary.NativeEndian.Uint16(b[10:])), b[pageHeader:]
	if count == 0xFFFF { // too many for two bytes
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if binary.NativeEndian.Uint16(b[8:]) != pageFree || count > uint64(len(ids)/8) {
		return nil, fmt.Errorf("%w: no free list", errTorn)
	}
	for i := range count {
		free = append(free, binary.NativeEndian.Uint64(ids[8*i:]))
	}
	return free, nil
}

// A bucket of bbolt: a tree of pages, or one small page in place.
type bucket struct {
	root, sequence uint64
	inline         []byte
}

func (b *bucket) read(value []byte) error {
	if len(value) < bucketHeader {
		return errTorn
	}
	b.root, b.sequence = binary.NativeEndian.Uint64(value), binary.NativeEndian.Uint64(value[8:])
	b.inline = bytes.Clone(value[bucketHeader:])
	return nil
}

func (b *bucket) each(p *pages, leaf func(k, v []byte) error) error {
	if b.root != 0 {
		if len(b.inline) != 0 {
			return errTorn
		}
		return p.walk(b.root, elementValue, leaf)
	}
	if len(b.inline) < pageHeader || binary.NativeEndian.Uint16(b.inline[8:]) != pageLeaf {
		return errTorn
	}
	t := &tree{p: p, flags: elementValue, leaf: leaf}
	end, err := t.elements(b.inline, nil, 0)
	if err == nil && end != len(b.inline) {
		err = errTorn
	}
	return err
}
