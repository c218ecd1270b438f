package storequeue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A patient is a segment as its file shows it, and what is wrong with it.
type patient struct {
	s      *segment
	cause  error  // nil: nothing, as far as was looked
	sealed bool   // what s says of its readers can be believed
	ends   bool   // so can s.last; else, of the newest, it is a lower bound
	newest bool   // no other follows
	other  uint64 // the epoch, if the file belongs to another queue
}

// last is the highest sequence that the segment can have.
func (p *patient) last() uint64 {
	if !p.ends && p.newest {
		return ^uint64(0)
	}
	return p.s.last
}

// verify looks at everything in the file, once in a process, before bbolt
// comes to it: bbolt panics on some bytes, faults on others, and goes in
// circles. It wants mu held.
func (s *segment) verify() error {
	if s.sound {
		return nil
	}
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open segment %s: %w: %w", s.path, errDamaged, errGone)
	}
	if err != nil {
		return fmt.Errorf("open segment %s: %w", s.path, err)
	}
	defer f.Close()
	metas := readMetas(f)
	if len(metas) == 0 {
		return fmt.Errorf("verify segment %s: %w: %w", s.path, errDamaged, errNoMeta)
	}
	c := metas[0].look(f, s.seal, s.first)
	if (len(metas) < 2 || metas[0].odd || metas[1].odd) && c.torn == nil {
		c.torn = errOneMeta
	}
	switch {
	case errors.Is(c.torn, errNewer):
		return fmt.Errorf("verify segment %s: %w", s.path, c.torn)
	case c.torn != nil:
		return fmt.Errorf("verify segment %s: %w: %w", s.path, errDamaged, c.torn)
	case c.bad > 0:
		return fmt.Errorf("verify segment %s: %w: %d records are not what was written", s.path, errDamaged, c.bad)
	}
	s.sound = true
	return nil
}

// peekSegment takes the file of a segment that is not the newest at its word,
// if its word is whole: who comes to it verifies the rest. end is the highest
// sequence that it can have.
func peekSegment(path string, with seal, end uint64) (*patient, error) {
	s := &segment{path: path, first: with.first, last: end, seal: with, sealed: true, marks: map[ReaderID]markCount{}}
	p := &patient{s: s}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	metas := readMetas(f)
	if len(metas) == 0 {
		p.cause = errNoMeta
		return p, nil
	}
	s.bytes.Store(int64(metas[0].end) * metas[0].pageSize)
	pages, records, info, err := metas[0].buckets(f)
	if err != nil {
		p.cause = err
		return p, unlessDamage(err)
	}
	facts, err := info.facts(pages)
	if err != nil {
		p.cause = err
		return p, unlessDamage(err)
	}
	last := records.sequence
	if facts[string(keySparse)] != nil {
		last = number(facts[string(keySparse)])
	}
	p.believe(facts, last, end)
	if (len(metas) < 2 || metas[0].odd || metas[1].odd) && p.cause == nil {
		p.cause = errOneMeta
	}
	return p, nil
}

// believe takes over what a segment says of itself.
func (p *patient) believe(facts map[string][]byte, last, end uint64) {
	s := p.s
	switch epoch := number(facts[string(keyEpoch)]); {
	case epoch != s.seal.epoch:
		p.other = epoch
		p.cause = fmt.Errorf("it belongs to another queue (epoch %d, not %d)", epoch, s.seal.epoch)
	case number(facts[string(keyFirst)]) != s.first:
		p.cause = fmt.Errorf("it is the segment that begins at %d", number(facts[string(keyFirst)]))
	case facts[string(keySealed)] == nil:
		p.cause = errors.New("it is not as it was when the next one began")
	case !s.seal.summarized(facts, last):
		p.cause = fmt.Errorf("%w: it says something else of itself", errTorn)
	case last > end || last+1 < s.first:
		p.cause = fmt.Errorf("it ends at %d, behind %d", last, end)
	default:
		s.marks = map[ReaderID]markCount{}
		p.cause = s.decodeMarks(facts[string(keySealed)], facts[string(keySizes)])
		p.sealed, p.ends = p.cause == nil, true
		s.last = last
		s.body = number(facts[string(keyBody)])
		s.sparse.Store(facts[string(keySparse)] != nil)
	}
}

// unlessDamage returns what no other file in its place would change.
func unlessDamage(err error) error {
	if errors.Is(err, errNewer) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// openNewest looks at everything in the newest segment, and takes back a last
// commit that was cut off.
func (q *Queue) openNewest(first uint64, with seal) (*patient, error) {
	path := segmentPath(q.dir, first)
	// What is read from here on counts as being on disk.
	if err := syncFresh(path); err != nil {
		return nil, fmt.Errorf("sync %s: %w", path, err)
	}
	c, taken, err := settle(path, with, first, q.state.known)
	if err != nil {
		return nil, fmt.Errorf("take back the last commit of %s: %w", path, err)
	}
	if taken {
		q.log.Warn("the last commit was cut off and is taken back: nothing in it was acknowledged", "segment", path)
	}
	s := &segment{path: path, first: first, last: c.newest, seal: with, marks: c.marks, body: c.body, sealed: c.facts[string(keySealed)] != nil}
	s.sparse.Store(c.facts[string(keySparse)] != nil)
	s.bytes.Store(int64(len(c.pages)) * c.size)
	p := &patient{s: s, ends: !c.fallen, newest: true}
	switch {
	case errors.Is(c.torn, errNewer):
		return nil, fmt.Errorf("read segment %s: %w", path, c.torn)
	case c.torn != nil:
		p.cause, p.ends = c.torn, false
	case c.bad > 0:
		p.cause = fmt.Errorf("%d records are not what was written", c.bad)
	case c.newest < q.state.known:
		p.cause, p.ends = fmt.Errorf("it ends at %d, and %d was committed", c.newest, q.state.known), false
	case c.fallen:
		p.cause = errOneMeta
	}
	if epoch := number(c.facts[string(keyEpoch)]); epoch != with.epoch && c.facts != nil {
		p.other = epoch
	}
	s.sound = p.cause == nil
	s.last = max(s.last, q.state.known, first-1)
	return p, nil
}
