package storequeue

import "encoding/binary"

// A stretch is sequences that a reader passes without being shown them: what in
// them was for it is lost. It begins behind from and ends with to. What limits
// skip is the oldest that waits, so it is one stretch, whatever it is; what people
// remove may be every second message, and is a removal instead.
type stretch struct{ from, to uint64 }

// stretches rise and do not touch. They are not changed in place.
type stretches []stretch

// beyond is where a reader is that has come to seq: at the end of the stretch that
// begins there, if one does.
func (s stretches) beyond(seq uint64) uint64 {
	for _, x := range s {
		if x.from <= seq && seq < x.to {
			seq = x.to
		}
	}
	return seq
}

func (s stretches) has(seq uint64) bool {
	for _, x := range s {
		if x.from < seq && seq <= x.to {
			return true
		}
	}
	return false
}

// behind leaves out the stretches that end at seq or before.
func (s stretches) behind(seq uint64) stretches {
	for len(s) > 0 && s[0].to <= seq {
		s = s[1:]
	}
	return s
}

// with adds a stretch. It may take in others: after a restart that forgot what was
// shown, skipping begins before what was skipped already.
func (s stretches) with(x stretch) stretches {
	all := make(stretches, 0, len(s)+1)
	for len(s) > 0 && s[0].to < x.from {
		all, s = append(all, s[0]), s[1:]
	}
	for len(s) > 0 && s[0].from <= x.to {
		x = stretch{min(x.from, s[0].from), max(x.to, s[0].to)}
		s = s[1:]
	}
	return append(append(all, x), s...)
}

// overlap is how many of the sequences behind from, up to to, are in s.
func (s stretches) overlap(from, to uint64) (n uint64) {
	for _, x := range s {
		if a, b := max(x.from, from), min(x.to, to); a < b {
			n += b - a
		}
	}
	return n
}

func (s stretches) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(s)))
	at := uint64(0)
	for _, x := range s {
		b = binary.AppendUvarint(b, x.from-at)
		b = binary.AppendUvarint(b, x.to-x.from)
		at = x.to
	}
	return b
}

func decodeStretches(b []byte) (stretches, error) {
	c := cursor{b: b}
	var s stretches
	at := uint64(0)
	for n := c.count(2); n > 0; n-- {
		x := stretch{from: at + c.uvarint()}
		x.to = x.from + c.uvarint()
		at = x.to
		s = append(s, x)
	}
	return s, c.err
}

// A standing is how far a reader has come: to acked, and past what is skipped
// behind it.
type standing struct {
	acked   uint64
	skipped stretches
}

// needs reports whether the message at seq, which is marked for the reader, is
// still to be shown to it.
func (p *standing) needs(seq uint64) bool { return seq > p.acked && !p.skipped.has(seq) }

// left is how many of the sequences from first to last it still needs to look at.
func (p *standing) left(first, last uint64) uint64 {
	from := max(p.acked, first-1)
	if last <= from {
		return 0
	}
	return last - from - p.skipped.overlap(from, last)
}
