package storequeue

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// pages reads the pages of a bbolt file, each of them once. Unlike bbolt it
// takes any bytes: what is wrong is an error.
type pages struct {
	f    *os.File
	size int64
	seen []bool // by page number
	want []byte // the first key of the next leaf, as the branch above has it
}

const (
	pageHeader  = 16 // number 8, flags 2, count 2, overflow 4
	pageElement = 16
	pageBranch  = 0x01
	pageLeaf    = 0x02
	pageFree    = 0x10
)

// read returns a page together with the pages it runs over into.
func (p *pages) read(id uint64) ([]byte, error) {
	var head [pageHeader]byte
	if id >= uint64(len(p.seen)) {
		return nil, fmt.Errorf("%w: page %d is beyond the end", errTorn, id)
	}
	if _, err := p.f.ReadAt(head[:], int64(id)*p.size); err != nil {
		return nil, err
	}
	n := 1 + uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head[:]) != id || n > uint64(len(p.seen))-id {
		return nil, fmt.Errorf("%w: page %d is another one", errTorn, id)
	}
	for i := range n {
		if err := p.see(id + i); err != nil {
			return nil, err
		}
	}
	b := make([]byte, int64(n)*p.size)
	_, err := p.f.ReadAt(b, int64(id)*p.size)
	return b, err
}

func (p *pages) see(id uint64) error {
	if id < 2 || id >= uint64(len(p.seen)) || p.seen[id] {
		return fmt.Errorf("%w: page %d is in two places", errTorn, id)
	}
	p.seen[id] = true
	return nil
}

// walk calls leaf with each key and value of the tree below a page, in order.
func (p *pages) walk(id uint64, leaf func(k, v []byte) error) error {
	b, err := p.read(id)
	if err != nil {
		return err
	}
	return p.elements(b, leaf)
}

func (p *pages) elements(b []byte, leaf func(k, v []byte) error) error {
	if len(b) < pageHeader {
		return errTorn
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	if flags != pageBranch && flags != pageLeaf || pageHeader+count*pageElement > len(b) {
		return errTorn
	}
	for i := range count {
		e := b[pageHeader+i*pageElement:]
		at, k, v := uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
		if flags == pageBranch {
			at, k, v = uint64(binary.NativeEndian.Uint32(e)), at, 0
		}
		if at+k+v > uint64(len(e)) {
			return errTorn
		}
		var err error
		if key := e[at : at+k]; flags == pageBranch {
			p.want = key
			err = p.walk(binary.NativeEndian.Uint64(e[8:]), leaf)
		} else if p.want != nil && !bytes.Equal(p.want, key) {
			err = errTorn
		} else {
			p.want = nil
			err = leaf(key, e[at+k:at+k+v])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// free reads the list of free pages, and wants it to name every page that
// nothing else has led to, and no other.
func (p *pages) free(id uint64) error {
	b, err := p.read(id)
	if err != nil {
		return err
	}
	count, ids := uint64(binary.NativeEndian.Uint16(b[10:])), b[pageHeader:]
	if count == 0xFFFF { // too many for two bytes
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if binary.NativeEndian.Uint16(b[8:]) != pageFree || count > uint64(len(ids)/8) {
		return errTorn
	}
	for i := range count {
		if err := p.see(binary.NativeEndian.Uint64(ids[8*i:])); err != nil {
			return err
		}
	}
	for id := 2; id < len(p.seen); id++ {
		if !p.seen[id] {
			return fmt.Errorf("%w: page %d is nowhere", errTorn, id)
		}
	}
	return nil
}
