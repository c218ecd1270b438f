package storequeue

import (
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// markCount is what one reader has in one segment: records, the last of them,
// and their bytes.
type markCount struct{ n, last, bytes uint64 }

func (s *segment) mark(id ReaderID, seq uint64, size int) {
	k := s.marks[id]
	s.marks[id] = markCount{n: k.n + 1, last: seq, bytes: k.bytes + uint64(size)}
}

// countMarks calls fn for every mark of every record, of so many bytes, from
// seq on. Damaged records count for nobody: the reader that gets there says so.
func (s *segment) countMarks(from uint64, fn func(id ReaderID, seq uint64, size int)) error {
	return s.view(func(tx *bbolt.Tx) error {
		return s.scanOver(tx.Bucket(bucketRecords), from, func(seq uint64, body []byte) (bool, error) {
			for m := range marks(body) {
				fn(m.Reader, seq, len(body))
			}
			return true, nil
		}, func(uint64, error) error { return nil })
	})
}

// encodeMarks is what a sealed segment stores, so that opening need not count.
func (s *segment) encodeMarks() []byte {
	b := binary.AppendUvarint(nil, uint64(len(s.marks)))
	for id, k := range s.marks {
		b = binary.AppendUvarint(b, uint64(id))
		b = binary.AppendUvarint(b, k.n)
		b = binary.AppendUvarint(b, k.last)
	}
	return b
}

// encodeSizes came later, and beside it: programs that know nothing of it can
// read the segment.
func (s *segment) encodeSizes() []byte {
	b := binary.AppendUvarint(nil, uint64(len(s.marks)))
	for id, k := range s.marks {
		b = binary.AppendUvarint(b, uint64(id))
		b = binary.AppendUvarint(b, k.bytes)
	}
	return b
}

// decodeMarks reads what encodeMarks and encodeSizes wrote; sizes may be nil.
func (s *segment) decodeMarks(b, sizes []byte) error {
	c := cursor{b: b}
	for n := c.count(3); n > 0; n-- {
		id := ReaderID(c.uvarint())
		s.marks[id] = markCount{n: c.uvarint(), last: c.uvarint()}
	}
	if sizes == nil || c.err != nil {
		return c.err
	}
	c = cursor{b: sizes}
	for n := c.count(2); n > 0; n-- {
		id := ReaderID(c.uvarint())
		k := s.marks[id]
		k.bytes = c.uvarint()
		s.marks[id] = k
	}
	return c.err
}
