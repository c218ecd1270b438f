package storequeue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A bundle is several records of one commit under one key, the sequence of the
// last of them: to put a key into bbolt costs more than all else about a small
// record. Two bundles fill a page. A record alone is stored as it is.
//
//	marker   1 byte, which no record begins with
//	count    1 byte, 2 or more
//	sizes    2 bytes for each record
//	CRC32C   4 bytes over all of the above
//	records  one behind the other, each with its own checksum
const (
	bundleMarker = 0xB0
	bundleBytes  = 1984
	bundleMost   = 96 // records
)

// bundleHead is how many bytes stand before n records.
func bundleHead(n int) int { return 2 + 2*n + sumSize }

// appendBundle puts the records of these entries, the first of which begins at
// start, behind dst.
func appendBundle(dst, buf []byte, start int, entries []entry) []byte {
	head := len(dst)
	dst = append(dst, bundleMarker, byte(len(entries)))
	at := start
	for _, e := range entries {
		dst = binary.BigEndian.AppendUint16(dst, uint16(e.stored-at))
		at = e.stored
	}
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[head:], castagnoli))
	return append(dst, buf[start:at]...)
}

// bundled is how many of the first entries, whose records begin at start, go
// under one key.
func bundled(start int, entries []entry) (n int) {
	for n < len(entries) && n < bundleMost && entries[n].stored-start+bundleHead(n+1) <= bundleBytes {
		n++
	}
	return max(n, 1)
}

// A value is what lies under one key, being read: one record or a bundle.
type value struct {
	seq   uint64 // of the next record
	left  int
	sizes []byte // nil: one record
	rest  []byte
}

// openValue reads what lies under the key last. It shares v's bytes.
func openValue(last uint64, v []byte) (value, error) {
	if len(v) == 0 || v[0] != bundleMarker {
		return value{seq: last, left: 1, rest: v}, nil
	}
	if len(v) < 2 || len(v) < bundleHead(int(v[1])) {
		return value{}, fmt.Errorf("%w: bundle of %d bytes", errRecord, len(v))
	}
	n := int(v[1])
	head, rest := v[:bundleHead(n)], v[bundleHead(n):]
	sizes, sum := head[2:2+2*n], binary.BigEndian.Uint32(head[2+2*n:])
	if crc32.Checksum(head[:2+2*n], castagnoli) != sum || uint64(n) > last {
		return value{}, fmt.Errorf("%w: checksum of a bundle differs", errRecord)
	}
	return value{seq: last - uint64(n) + 1, left: n, sizes: sizes, rest: rest}, nil
}

// next returns the next record, which is not verified, and its sequence.
func (v *value) next() (seq uint64, rec []byte, ok bool) {
	if v.left == 0 {
		return 0, nil, false
	}
	size := len(v.rest)
	if v.sizes != nil {
		size = min(size, int(binary.BigEndian.Uint16(v.sizes)))
		v.sizes = v.sizes[2:]
	}
	seq, rec = v.seq, v.rest[:size]
	v.seq, v.left, v.rest = seq+1, v.left-1, v.rest[size:]
	return seq, rec, true
}

// skipTo is next for the record with that sequence, if it is still to come.
func (v *value) skipTo(want uint64) (rec []byte, ok bool) {
	if want < v.seq {
		return nil, false
	}
	for {
		seq, rec, ok := v.next()
		if !ok || seq == want {
			return rec, ok
		}
	}
}
