package storequeue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A seal makes the records of one segment out of bodies, and tells whether a
// record is what was written at its place.
type seal struct {
	epoch uint64 // of the log
}

// sealOf is the seal of the segment that begins with the sequence first.
func (s *state) sealOf(first uint64) seal { return seal{epoch: s.epoch} }

// close puts each record's checksum behind it.
func (s seal) close(b *batch, first uint64) {
	for i, e := range b.entries {
		binary.BigEndian.PutUint32(b.buf[e.end-sumSize:], sum(e.sum, s.epoch, first+uint64(i)))
	}
}

// open returns the body of the record at seq, without a copy.
func (s seal) open(rec []byte, seq uint64) ([]byte, error) {
	if len(rec) < 2+sumSize {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(rec))
	}
	body, tail := rec[:len(rec)-sumSize], rec[len(rec)-sumSize:]
	if sum(crc32.Checksum(body, castagnoli), s.epoch, seq) != binary.BigEndian.Uint32(tail) {
		return nil, fmt.Errorf("%w: checksum differs", errRecord)
	}
	if err := knownVersion(body); err != nil {
		return nil, err
	}
	return body, nil
}
