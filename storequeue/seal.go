package storequeue

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A seal makes the records of one segment out of bodies, and tells whether a
// record is what was written at its place. Without a key a record is a body
// and its checksum. With one it is encrypted:
//
//	version  1 byte, 0xE1
//	nonce    12 bytes, random: a commit that a power cut took back was written under the same sequences
//	body     as in record.go, encrypted with AES-256-GCM
//	tag      16 bytes, over the body, the epoch, the segment's first sequence and the record's own
//
// A segment is encrypted as a whole or not at all: the ring says which, and
// not the segment, so that nobody can pass off a plain one for it.
type seal struct {
	epoch uint64 // of the log
	first uint64 // sequence of the segment
	key   uint32 // id of the data key; 0: not encrypted
	aead  cipher.AEAD
	sums  []byte // key of what the segment says of itself
	room  *room  // nil: each body that is opened gets memory of its own
}

// room is memory that whoever reads one record after the other uses again.
type room struct {
	place [placeSize]byte
	body  []byte
}

const (
	recordSealed = 0xE1
	placeSize    = 24
	sealedMore   = 1 + 12 + 16 // bytes of a sealed record that are not its body
)

// newSeal is the seal of a segment under a data key; without one, of a segment
// that is not encrypted.
func newSeal(epoch, first uint64, id uint32, data Key) (seal, error) {
	s := seal{epoch: epoch, first: first, key: id}
	if id == 0 {
		return s, nil
	}
	if data == nil {
		return s, nil // its key is gone, with the last segment that needed it: it opens nothing
	}
	salt := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, epoch), first)
	k, err := hkdf.Key(sha256.New, data, salt, "headgate queue segment", keySize)
	if err == nil {
		s.aead, err = newAEAD(k)
	}
	if err == nil {
		s.sums, err = hkdf.Key(sha256.New, data, salt, "headgate queue segment summary", keySize)
	}
	return s, err
}

// again is a seal for one goroutine: a body that it opens is there until it
// opens the next.
func (s seal) again() seal {
	if s.key != 0 {
		s.room = new(room)
	}
	return s
}

// place writes down where a record lies.
func (s seal) place(dst []byte, seq uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, s.epoch)
	dst = binary.BigEndian.AppendUint64(dst, s.first)
	return binary.BigEndian.AppendUint64(dst, seq)
}

// close makes the records of a batch, the first of which gets the sequence
// first, and returns them one behind the other; each entry says where its ends.
func (s seal) close(b *batch, first uint64) (records []byte, err error) {
	if s.key == 0 {
		for i := range b.entries {
			e := &b.entries[i]
			binary.BigEndian.PutUint32(b.buf[e.end-sumSize:], sum(e.sum, s.epoch, first+uint64(i)))
			e.stored = e.end
		}
		return b.buf, nil
	}
	if s.aead == nil {
		return nil, errKeyGone
	}
	if need := len(b.buf) + len(b.entries)*sealedMore; cap(b.sealed) < need {
		b.sealed = make([]byte, 0, need)
	}
	b.sealed = b.sealed[:0]
	start := 0
	for i := range b.entries {
		e := &b.entries[i]
		b.place = s.place(b.place[:0], first+uint64(i))
		b.sealed = append(b.sealed, recordSealed)
		b.sealed = s.aead.Seal(b.sealed, nil, b.buf[start:e.end-sumSize], b.place)
		start, e.stored = e.end, len(b.sealed)
	}
	return b.sealed, nil
}

var errKeyGone = fmt.Errorf("%w: its key is gone", errRecord)

// open returns the body of the record at seq. It may lie in the record's bytes,
// or in the seal's room.
func (s seal) open(rec []byte, seq uint64) (body []byte, err error) {
	if s.key != 0 {
		body, err = s.decrypt(rec, seq)
	} else {
		body, err = s.verify(rec, seq)
	}
	if err != nil {
		return nil, err
	}
	return body, knownVersion(body)
}

func (s seal) verify(rec []byte, seq uint64) ([]byte, error) {
	if len(rec) < 2+sumSize {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(rec))
	}
	body, tail := rec[:len(rec)-sumSize], rec[len(rec)-sumSize:]
	if sum(crc32.Checksum(body, castagnoli), s.epoch, seq) != binary.BigEndian.Uint32(tail) {
		return nil, fmt.Errorf("%w: checksum differs", errRecord)
	}
	return body, nil
}

func (s seal) decrypt(rec []byte, seq uint64) ([]byte, error) {
	if len(rec) < 2+sealedMore {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(rec))
	}
	if rec[0] != recordSealed {
		return nil, fmt.Errorf("%w: it is not encrypted, and its segment is", errRecord)
	}
	if s.aead == nil {
		return nil, errKeyGone
	}
	r := s.room
	if r == nil {
		r = new(room)
	}
	body, err := s.aead.Open(r.body[:0], nil, rec[1:], s.place(r.place[:0], seq))
	if err != nil {
		return nil, fmt.Errorf("%w: it does not decrypt", errRecord)
	}
	r.body = body
	return body, nil
}

// summed is what a sealed segment says of itself under a checksum. Under a key
// keyBody is in it as well.
var summed = [][]byte{keyEpoch, keyFirst, keySparse, keySealed, keySizes}

// summary is over what a sealed segment says of itself, and over its last
// sequence: a segment that no reader needs by these counts is unlinked unseen.
// It is a checksum; of an encrypted segment, the HMAC-SHA256 under a key that
// comes from the segment's. Once that key is gone there is nothing to protect.
func (s seal) summary(facts map[string][]byte, last uint64) []byte {
	b := key(last)
	for _, k := range summed {
		b = appendString(b, facts[string(k)])
	}
	if s.sums == nil {
		return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli))
	}
	h := hmac.New(sha256.New, s.sums)
	h.Write(appendString(b, facts[string(keyBody)]))
	return h.Sum(nil)
}

// summarized reports whether a sealed segment's summary is its own. Without a
// key there may be none: an earlier program made it.
func (s seal) summarized(facts map[string][]byte, last uint64) bool {
	sum := facts[string(keySum)]
	return sum == nil && s.sums == nil || hmac.Equal(sum, s.summary(facts, last))
}
