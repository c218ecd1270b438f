package storequeue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"

	"go.etcd.io/bbolt"
)

// A commit costs one sync. bbolt by itself makes two, one behind the pages and
// one behind the meta page that makes them count; with one behind both, a power
// cut can leave a meta page that counts and pages that are not there. That can
// be the newest commit only, which nobody was told of: the next begins when its
// sync is over, and a commit never writes over what the one before it consists
// of. So each commit is stamped, and Open takes back one that is not whole:
// bbolt's other meta page is that of the commit before.

// stamp makes the commit of tx one that can be told from its predecessors,
// whose pages may lie where its own belong.
func stamp(tx *bbolt.Tx) error {
	records := tx.Bucket(bucketRecords)
	k, _ := records.Cursor().Last()
	if err := records.SetSequence(number(k)); err != nil {
		return err
	}
	return tx.Bucket(bucketInfo).SetSequence(uint64(tx.ID()))
}

// errTorn is what is wrong with a commit that did not get to the disk whole.
var errTorn = errors.New("commit is not whole")

// settle puts the newest segment where it was before its last commit if that
// one is not whole and the one before it is, or has fewer records that do not
// verify, and if that one goes up to the sequence known at least: what is known
// to have been committed was not cut off, it was damaged. Any such damage it
// leaves as it is. What no commit that counts consists of it wipes, so that no
// search finds what was never acknowledged. It returns what the segment holds.
func settle(path string, with seal, first, known uint64) (c content, taken bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return content{}, false, err
	}
	defer f.Close()
	metas := readMetas(f)
	if len(metas) == 0 {
		return content{torn: errNoMeta}, false, nil
	}
	last := metas[0].look(f, with, first)
	last.fallen = len(metas) < 2 || metas[0].odd || metas[1].odd
	if len(metas) < 2 {
		return last, false, nil
	}
	before := metas[1].look(f, with, first)
	if last.bad == 0 && last.torn == nil {
		return last, false, wipe(f, &last, &before)
	}
	if before.torn != nil || before.newest < known || last.torn == nil && before.bad >= last.bad {
		return last, false, nil
	}
	if err = wipe(f, &before, &before); err == nil {
		err = metas[1].standIn(f, metas[0].at)
	}
	return before, err == nil, err
}

// wipe clears the pages that neither of two commits consists of.
func wipe(f *os.File, last, before *content) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	wiped := false
	zero, some := make([]byte, last.size), make([]byte, 64*last.size)
	for id, end := uint64(2), uint64(fi.Size()/last.size); id < end; id++ {
		at := id % 64 * uint64(last.size)
		if id == 2 || at == 0 {
			n := min(end-id, 64-id%64) * uint64(last.size)
			if _, err := f.ReadAt(some[at:at+n], int64(id)*last.size); err != nil {
				return err
			}
		}
		if last.uses(id) || before.torn == nil && before.uses(id) || bytes.Equal(some[at:at+uint64(last.size)], zero) {
			continue
		}
		wiped = true
		if _, err := f.WriteAt(zero, int64(id)*last.size); err != nil {
			return err
		}
	}
	if !wiped {
		return nil
	}
	return f.Sync()
}

// A meta is a meta page of bbolt: one commit.
type meta struct {
	odd                       bool  // its page has another header: only bbolt's own check minds
	at                        int64 // in the file
	pageSize                  int64
	root, free, end, sequence uint64 // pages: of the buckets, of the free list, behind the last one; transaction id
}

// Where things are in a meta page, in bytes from its beginning.
const (
	metaMagic    = 16
	metaVersion  = 20
	metaPageSize = 24
	metaRoot     = 32
	metaFree     = 48
	metaPages    = 56
	metaTxID     = 64
	metaChecksum = 72
	metaEnd      = 80
)

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	minPageSize = 1 << 10 // of those that bbolt looks for
	maxPageSize = minPageSize << 14
)

var errOneMeta = fmt.Errorf("%w: a meta page is not whole", errTorn)

var errNoMeta = fmt.Errorf("%w: no meta page is whole", errTorn)

// readMetas returns the meta pages that are valid, the newer one first: bbolt
// goes by that.
func readMetas(f *os.File) []meta {
	var valid []meta
	if m, ok := readMeta(f, 0); ok {
		if m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
			return nil // bbolt would believe it
		}
		valid = append(valid, m)
	}
	for at := int64(minPageSize); at <= maxPageSize; at *= 2 {
		m, ok := readMeta(f, at)
		if !ok || len(valid) > 0 && valid[0].pageSize != at {
			continue
		}
		if m.pageSize != at {
			return nil // as above
		}
		if len(valid) == 0 || valid[0].sequence != m.sequence {
			valid = append(valid, m)
		}
		break
	}
	if len(valid) == 2 && valid[0].sequence < valid[1].sequence {
		valid[0], valid[1] = valid[1], valid[0]
	}
	return valid
}

func readMeta(f *os.File, at int64) (m meta, ok bool) {
	var b [metaEnd]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return m, false
	}
	if binary.NativeEndian.Uint32(b[metaMagic:]) != boltMagic || binary.NativeEndian.Uint32(b[metaVersion:]) != boltVersion ||
		metaSum(&b) != binary.NativeEndian.Uint64(b[metaChecksum:]) {
		return m, false
	}
	m.odd = binary.NativeEndian.Uint64(b[:]) != min(uint64(at), 1) || binary.NativeEndian.Uint16(b[8:]) != pageMeta
	m.at, m.pageSize = at, int64(binary.NativeEndian.Uint32(b[metaPageSize:]))
	m.root, m.free = binary.NativeEndian.Uint64(b[metaRoot:]), binary.NativeEndian.Uint64(b[metaFree:])
	m.end, m.sequence = binary.NativeEndian.Uint64(b[metaPages:]), binary.NativeEndian.Uint64(b[metaTxID:])
	return m, true
}

func metaSum(b *[metaEnd]byte) uint64 {
	sum := fnv.New64a()
	sum.Write(b[metaMagic:metaChecksum])
	return sum.Sum64()
}

// standIn puts a copy of m, as one commit older, in the place of the meta page
// of a later commit, which is thereby taken back: a file with one valid meta
// page has lost its last commit.
func (m *meta) standIn(f *os.File, at int64) error {
	var b [metaEnd]byte
	if _, err := f.ReadAt(b[:], m.at); err != nil {
		return err
	}
	binary.NativeEndian.PutUint64(b[:], uint64(at/m.pageSize))
	binary.NativeEndian.PutUint64(b[metaTxID:], m.sequence-1)
	binary.NativeEndian.PutUint64(b[metaChecksum:], metaSum(&b))
	if _, err := f.WriteAt(b[:], at); err != nil {
		return err
	}
	return f.Sync()
}

// content is what a commit holds.
type content struct {
	newest uint64 // sequence
	bad    int    // records that do not verify
	torn   error  // why it is not whole
	fallen bool   // the file has no other commit: this one may have had a successor
	facts  map[string][]byte
	marks  map[ReaderID]markCount
	body   uint64 // bytes of the records
	size   int64  // of a page
	pages  []byte
}

func (c *content) uses(page uint64) bool {
	return page < uint64(len(c.pages)) && c.pages[page] == pageUsed
}

// look reads a commit. It believes nothing that it reads.
func (m *meta) look(f *os.File, with seal, first uint64) (c content) {
	c = content{size: m.pageSize, newest: first - 1}
	p, records, info, err := m.buckets(f)
	if err != nil {
		c.torn = err
		return c
	}
	c.pages = p.seen
	if c.facts, c.torn = info.facts(p); c.torn != nil {
		return c
	}
	found := &segment{first: first, seal: with, marks: map[ReaderID]markCount{}}
	found.sparse.Store(c.facts[string(keySparse)] != nil)
	next, bad, err := found.recount(p, &records)
	c.bad, c.marks, c.body, c.newest = bad, found.marks, found.body, max(next-1, number(c.facts[string(keySparse)]))
	found.last = c.newest
	if err == nil && bad == 0 && !found.says(c.facts) {
		err = fmt.Errorf("%w: it says something else of itself", errTorn)
	}
	if err == nil {
		err = p.free(m.free)
	}
	if err == nil && (info.sequence != m.sequence || next > first && records.sequence != next-1) {
		err = fmt.Errorf("%w: parts of it are of another commit", errTorn)
	}
	c.torn = err
	return c
}

// buckets returns the two of a segment.
func (m *meta) buckets(f *os.File) (p *pages, records, info bucket, err error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, records, info, err
	}
	if m.end > uint64(fi.Size()/m.pageSize) {
		return nil, records, info, fmt.Errorf("%w: the file is cut short", errTorn)
	}
	p = &pages{f: f, size: m.pageSize, seen: make([]byte, m.end)}
	n := 0
	err = p.walk(m.root, elementBucket, func(name, value []byte) error {
		n++
		switch string(name) {
		case string(bucketRecords):
			return records.read(value)
		case string(bucketInfo):
			return info.read(value)
		}
		return errTorn
	})
	if err == nil && n != 2 {
		err = fmt.Errorf("%w: not a segment", errTorn)
	}
	return p, records, info, err
}

// facts reads a bucket with little in it.
func (b *bucket) facts(p *pages) (map[string][]byte, error) {
	facts := map[string][]byte{}
	err := b.each(p, func(k, v []byte) error {
		facts[string(k)] = bytes.Clone(v)
		return nil
	})
	return facts, err
}

// recount notes whom the records of a commit are for, and returns the sequence
// behind the last of them and how many do not verify.
func (s *segment) recount(p *pages, records *bucket) (next uint64, bad int, err error) {
	next = s.first
	with := s.seal.again()
	err = records.each(p, func(k, data []byte) error {
		last := number(k)
		if len(k) != 8 || last < s.first {
			return fmt.Errorf("%w: a key that is no sequence of it", errTorn)
		}
		v, err := openValue(last, data)
		if err != nil { // it says no longer how many
			bad++
			next = last + 1
		}
		for seq, rec, ok := v.next(); ok; seq, rec, ok = v.next() {
			if seq != next && (!s.sparse.Load() || seq < next) {
				return fmt.Errorf("%w: record %d is where %d was expected", errTorn, seq, next)
			}
			body, err := with.open(rec, seq)
			if errors.Is(err, errNewer) {
				return err
			}
			if err != nil {
				bad++
			} else {
				s.body += uint64(len(body))
				for m := range marks(body) {
					s.mark(m.Reader, seq, len(body))
				}
			}
			next = seq + 1
		}
		return nil
	})
	return next, bad, err
}

// says reports whether what a segment says of itself is what was found in it.
func (s *segment) says(facts map[string][]byte) bool {
	if number(facts[string(keyEpoch)]) != s.seal.epoch || number(facts[string(keyFirst)]) != s.first {
		return false
	}
	sealed, sizes := facts[string(keySealed)], facts[string(keySizes)]
	if sealed == nil {
		return sizes == nil
	}
	if !s.seal.summarized(facts, s.last) {
		return false
	}
	said := &segment{marks: map[ReaderID]markCount{}}
	if said.decodeMarks(sealed, sizes) != nil {
		return false
	}
	for id, k := range s.marks {
		if sizes == nil {
			k.bytes = 0
		}
		if said.marks[id] != k {
			return false
		}
	}
	return len(said.marks) == len(s.marks)
}
