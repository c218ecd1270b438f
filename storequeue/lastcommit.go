package storequeue

import (
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

// takeBack puts the newest segment where it was before its last commit if that
// one is not whole and the one before it is, or has fewer records that do not
// verify, and if that one goes up to the sequence known at least: what is known
// to have been committed was not cut off, it was damaged. Any such damage it
// leaves as it is.
func takeBack(path string, with seal, first, known uint64) (taken bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	last, before, ok := readMetas(f)
	if !ok {
		return false, nil
	}
	_, bad, torn := last.look(f, with, first)
	if bad == 0 && torn == nil {
		return false, nil
	}
	if newest, less, err := before.look(f, with, first); err != nil || newest < known || torn == nil && less >= bad {
		return false, nil
	}
	if _, err = f.WriteAt(make([]byte, 4), last.at+metaMagic); err == nil {
		err = f.Sync()
	}
	return err == nil, err
}

// A meta is a meta page of bbolt: one commit.
type meta struct {
	at                        int64 // in the file
	pageSize                  int64
	root, free, end, sequence uint64 // pages: of the buckets, of the free list, behind the last one; transaction id
}

// Where things are in a meta page, in bytes from its beginning.
const (
	metaMagic    = 16
	metaPageSize = 24
	metaRoot     = 32
	metaFree     = 48
	metaPages    = 56
	metaTxID     = 64
	metaChecksum = 72
	metaEnd      = 80
)

// readMetas returns both meta pages; ok is false unless both are valid: else
// bbolt goes by the one that is.
func readMetas(f *os.File) (last, before meta, ok bool) {
	for range 2 {
		before, last = last, meta{at: last.pageSize}
		var b [metaEnd]byte
		if _, err := f.ReadAt(b[:], last.at); err != nil {
			return last, before, false
		}
		sum := fnv.New64a()
		sum.Write(b[metaMagic:metaChecksum])
		if sum.Sum64() != binary.NativeEndian.Uint64(b[metaChecksum:]) {
			return last, before, false
		}
		last.pageSize = int64(binary.NativeEndian.Uint32(b[metaPageSize:]))
		last.root, last.free = binary.NativeEndian.Uint64(b[metaRoot:]), binary.NativeEndian.Uint64(b[metaFree:])
		last.end, last.sequence = binary.NativeEndian.Uint64(b[metaPages:]), binary.NativeEndian.Uint64(b[metaTxID:])
	}
	if before.sequence > last.sequence {
		last, before = before, last
	}
	return last, before, true
}

// look returns the newest sequence of a commit and how many of its records do
// not verify, or what is missing of it. It believes nothing that it reads.
func (m *meta) look(f *os.File, with seal, first uint64) (newest uint64, bad int, err error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	if m.pageSize <= pageHeader || m.end > uint64(fi.Size()/m.pageSize) {
		return 0, 0, errTorn
	}
	p := &pages{f: f, size: m.pageSize, seen: make([]bool, m.end)}
	var records, info bucket
	err = p.walk(m.root, func(name, value []byte) error {
		switch string(name) {
		case string(bucketRecords):
			return records.read(value)
		case string(bucketInfo):
			return info.read(value)
		}
		return errTorn
	})
	if err != nil {
		return 0, 0, err
	}
	facts := map[string][]byte{}
	err = info.each(p, func(k, v []byte) error {
		facts[string(k)] = v
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	found := &segment{first: first, seal: with, marks: map[ReaderID]markCount{}}
	found.sparse.Store(facts[string(keySparse)] != nil)
	next, bad, err := found.recount(p, &records)
	if err == nil && bad == 0 && !found.says(facts) {
		err = errTorn
	}
	if err == nil {
		err = p.free(m.free)
	}
	if err == nil && (info.sequence != m.sequence || next > first && records.sequence != next-1) {
		err = errTorn
	}
	return max(next-1, number(facts[string(keySparse)])), bad, err
}

// recount notes whom the records of a commit are for, and returns the sequence
// behind the last of them and how many do not verify.
func (s *segment) recount(p *pages, records *bucket) (next uint64, bad int, err error) {
	next = s.first
	with := s.seal.again()
	err = records.each(p, func(k, data []byte) error {
		last := number(k)
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
			if err != nil {
				bad++
			} else {
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

// A bucket of bbolt: a tree of pages, or one small page in place.
type bucket struct {
	root, sequence uint64
	inline         []byte
}

func (b *bucket) read(value []byte) error {
	if len(value) < 16 {
		return errTorn
	}
	b.root, b.sequence = binary.NativeEndian.Uint64(value), binary.NativeEndian.Uint64(value[8:])
	b.inline = value[16:]
	return nil
}

func (b *bucket) each(p *pages, leaf func(k, v []byte) error) error {
	if b.root != 0 {
		return p.walk(b.root, leaf)
	}
	return p.elements(b.inline, leaf)
}
