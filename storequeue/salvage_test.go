package storequeue

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whatever is in a file, a search of it ends: it hands over no more than a few
// times the file's bytes, and no sequence that is not asked for. So does the
// opening of a queue with such a file.
func TestSalvageIsBounded(t *testing.T) {
	size := 4 << 20
	if os.Getenv("PROVE") != "" {
		size = 64 << 20
	}
	for name, fill := range hostile {
		for _, encrypted := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", encrypted"}[encrypted], func(t *testing.T) {
				dir, cfg := filepath.Join(t.TempDir(), "queue"), Config{SegmentSize: 48 << 10}
				if encrypted {
					cfg.Encrypt, cfg.Key = true, cutKey(1)
				}
				q := openTest(t, dir, cfg)
				mixed(t, q, mustReader(t, q, "x"), 300)
				s := q.segments[len(q.segments)-2]
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
				spoil(t, s, size, fill)
				f := openFile(t, s.path)
				defer f.Close()
				c := &counter{salvage: salvage{seal: s.seal.again(), first: s.first, last: s.last, found: map[uint64]place{}}}
				pageSize, _ := rankPages(f)
				if err := searchPages(f, pageSize, func(uint64) int { return rankAdrift }, c); err != nil {
					t.Fatal(err)
				}
				if c.stray > 0 || c.bytes > 2*searchAgain*size || c.wanted > searchAgain*size/pageElement {
					t.Errorf("%d bytes: %d records of %d bytes were looked at, %d of them nobody asked for, of %d", size, c.records, c.bytes, c.stray, c.wanted)
				}
				began := time.Now()
				q = openTest(t, dir, cfg)
				if q.Stats().Aside == nil {
					t.Error("nothing was put aside")
				}
				t.Logf("%d records of %d bytes, %d keys; opened in %v", c.records, c.bytes, c.wanted, time.Since(began))
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// A counter counts what a salvage is asked.
type counter struct {
	salvage
	wanted, records, bytes, stray int
}

func (c *counter) wants(seq uint64) bool {
	c.wanted++
	return c.salvage.wants(seq)
}

func (c *counter) take(seq uint64, rec []byte, at place) (bool, error) {
	c.records++
	c.bytes += len(rec)
	if !c.salvage.wants(seq) {
		c.stray++
	}
	return c.salvage.take(seq, rec, at)
}

// spoil fills a segment's file, behind its meta pages, which lead to all of it.
func spoil(t *testing.T, s *segment, size int, fill func(b []byte, id, end int, seq func() []byte)) {
	t.Helper()
	b := make([]byte, size)
	copy(b, readFile(t, s.path))
	rnd := rand.New(rand.NewPCG(1, 1))
	seq := func() []byte { return key(s.first + rnd.Uint64N(s.last-s.first+1)) }
	for id := 2; id < size/rotPage; id++ {
		page := b[id*rotPage : (id+1)*rotPage]
		for i := range page {
			page[i] = recordSealed // looks like the beginning of a record, encrypted
		}
		binary.NativeEndian.PutUint64(page, uint64(id))
		fill(page, id, size/rotPage, seq)
	}
	for at := range 2 {
		m := b[at*rotPage:]
		binary.NativeEndian.PutUint64(m[metaPages:], uint64(size/rotPage))
		binary.NativeEndian.PutUint64(m[metaChecksum:], metaSum((*[metaEnd]byte)(m)))
	}
	if err := os.WriteFile(s.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

const mostElements = (rotPage - pageHeader) / pageElement

func leafHead(b []byte, flags, count int, over uint32) {
	binary.NativeEndian.PutUint16(b[8:], uint16(flags))
	binary.NativeEndian.PutUint16(b[10:], uint16(count))
	binary.NativeEndian.PutUint32(b[12:], over)
}

// putElement says that the key lies at a place of the page.
func putElement(b []byte, i, at, k, v int) {
	e := b[pageHeader+i*pageElement:]
	binary.NativeEndian.PutUint32(e, 0)
	binary.NativeEndian.PutUint32(e[4:], uint32(at-pageHeader-i*pageElement))
	binary.NativeEndian.PutUint32(e[8:], uint32(k))
	binary.NativeEndian.PutUint32(e[12:], uint32(v))
}

// hostile are pages that ask for as much work as they can.
var hostile = map[string]func(b []byte, id, end int, seq func() []byte){
	"the same bytes again and again": func(b []byte, id, end int, seq func() []byte) {
		const n = 100
		leafHead(b, pageLeaf, n, 0)
		at := pageHeader + n*pageElement
		copy(b[at:], seq())
		for i := range n {
			putElement(b, i, at, 8, len(b)-at-8)
		}
	},
	"values to the end of the file": func(b []byte, id, end int, seq func() []byte) {
		const n = 100
		leafHead(b, pageLeaf, n, uint32(end-id-1))
		at := pageHeader + n*pageElement
		copy(b[at:], seq())
		for i := range n {
			putElement(b, i, at, 8, (end-id)*rotPage-at-8)
		}
	},
	"many keys beyond the page": func(b []byte, id, end int, seq func() []byte) {
		leafHead(b, pageLeaf, mostElements, uint32(end-id-1))
		for i := range mostElements {
			putElement(b, i, rotPage+i*8, 8, 40)
		}
	},
	"bundles of the smallest": func(b []byte, id, end int, seq func() []byte) {
		const n, in = 50, 90
		leafHead(b, pageLeaf, n, 0)
		at := pageHeader + n*pageElement
		copy(b[at:], seq())
		v := b[at+8:]
		v[0], v[1] = bundleMarker, in
		for i := range in {
			binary.BigEndian.PutUint16(v[2+2*i:], 2+sealedMore)
		}
		binary.BigEndian.PutUint32(v[2+2*in:], crc32.Checksum(v[:2+2*in], castagnoli))
		for i := range n {
			putElement(b, i, at, 8, len(v))
		}
	},
	"leaves in leaves": func(b []byte, id, end int, seq func() []byte) {
		const n = 100
		leafHead(b, pageLeaf, n, 0)
		at := pageHeader + n*pageElement
		copy(b[at:], bucketRecords)
		in := b[at+1+bucketHeader:]
		for i := range n {
			putElement(b, i, at, 1, len(b)-at-1)
		}
		leafHead(in, pageLeaf, n, 0)
		at = pageHeader + n*pageElement
		copy(in[at:], seq())
		for i := range n {
			putElement(in, i, at, 8, len(in)-at-8)
		}
	},
	"branches to everywhere": func(b []byte, id, end int, seq func() []byte) {
		leafHead(b, pageBranch, mostElements, 0)
		for i := range mostElements {
			binary.NativeEndian.PutUint64(b[pageHeader+i*pageElement+8:], uint64(2+(id+i*61)%(end-2)))
		}
	},
	"runs that overlap": func(b []byte, id, end int, seq func() []byte) {
		leafHead(b, pageBranch, mostElements, uint32(end-id-1))
		for i := range mostElements {
			binary.NativeEndian.PutUint64(b[pageHeader+i*pageElement+8:], uint64(end-1-i))
		}
	},
	"nothing": func(b []byte, id, end int, seq func() []byte) { clear(b) },
}
