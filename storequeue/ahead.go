package storequeue

import "slices"

// aheadMost bounds the sequences that a reader remembers.
const aheadMost = 128

// ahead is where in the log the newest messages for one reader are, so that it
// need not look at everybody else's to find them. A reader that stays further
// behind searches the log.
type ahead struct {
	after uint64   // of what comes behind it, every one is in seqs
	seqs  []uint64 // rising
}

func (a *ahead) add(seq uint64) {
	if len(a.seqs) == aheadMost {
		a.drop(aheadMost / 2)
	}
	a.seqs = append(a.seqs, seq)
}

func (a *ahead) drop(n int) {
	a.after = a.seqs[n-1]
	a.seqs = append(a.seqs[:0], a.seqs[n:]...)
}

// pass forgets what is done.
func (a *ahead) pass(seq uint64) {
	n, _ := slices.BinarySearch(a.seqs, seq+1)
	if n > 0 {
		a.drop(n)
	}
}

// cut takes out what is skipped: what is behind from, up to to.
func (a *ahead) cut(from, to uint64) {
	a.seqs = slices.DeleteFunc(a.seqs, func(seq uint64) bool { return from < seq && seq <= to })
}

// next returns up to limit sequences behind after; false: it does not know.
func (a *ahead) next(after uint64, limit int) (seqs []uint64, known bool) {
	if after < a.after {
		return nil, false
	}
	from, _ := slices.BinarySearch(a.seqs, after+1)
	return slices.Clone(a.seqs[from:min(len(a.seqs), from+max(limit, 1))]), true
}
