package storequeue

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// What the walker passes bbolt can open, read to its end in both directions
// and write to. Each step of the input is a kind, a place and a value; a step
// of the third kind makes the meta pages' checksums right again, so that what
// they say is reached too.
func FuzzWalk(f *testing.F) {
	segment, state := walkSeeds(f)
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0x10, 0x0A, 3, 1, 0, 0, 56, 200, 2, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0x10, 0x10, 3, 0x81, 0, 0x20, 4, 9})
	dir := memoryDir(f) // of this process: syncs and new folders would be most of what a run costs
	f.Fuzz(func(t *testing.T, steps []byte) {
		for _, from := range [][]byte{segment, state} {
			b := append([]byte(nil), from...)
			for step := range slices.Chunk(steps, 5) {
				if len(step) == 5 {
					mutate(b, step)
				}
			}
			path := filepath.Join(dir, "x.db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			walkAndOpen(t, path)
		}
	})
}

func mutate(b, step []byte) {
	at := (int(step[1])<<16 | int(step[2])<<8 | int(step[3])) % (len(b) - 8)
	switch step[0] % 4 {
	case 0:
		b[at] = step[4]
	case 1:
		b[at] ^= 1 << (step[4] % 8)
	case 2:
		for _, m := range []int{0, 4096} {
			binary.NativeEndian.PutUint64(b[m+metaChecksum:], metaSum((*[metaEnd]byte)(b[m:])))
		}
	case 3: // a number that means something
		binary.NativeEndian.PutUint32(b[at&^3:], uint32(step[4]))
	}
}

// walkSeeds returns a segment with everything in it, and a state.db.
func walkSeeds(f *testing.F) (segment, state []byte) {
	dir := filepath.Join(f.TempDir(), "queue")
	q, err := Open(dir, Config{})
	if err != nil {
		f.Fatal(err)
	}
	r, err := q.Reader("x")
	if err != nil {
		f.Fatal(err)
	}
	for i := range 14 {
		m := note(i, r)
		m.ContentType = string(make([]byte, i*i*60))
		err = q.Append(f.Context(), m, note(i, r))
		if err == nil {
			err = q.SetState(Change{"facts", fmt.Sprint(i), make([]byte, 300)})
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		f.Fatal(err)
	}
	used := func(name string) []byte {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		defer file.Close()
		m := readMetas(file)[0]
		b := make([]byte, int64(m.end)*m.pageSize)
		if _, err := file.ReadAt(b, 0); err != nil {
			f.Fatal(err)
		}
		return b
	}
	return used(filepath.Base(segmentPath("", 1))), used(stateFile)
}

func walkAndOpen(t *testing.T, path string) {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	metas := readMetas(file)
	if len(metas) == 0 || metas[0].walkAll(file) != nil {
		return
	}
	db, err := bbolt.Open(path, 0o600, boltOptions(0, false))
	if err != nil {
		t.Fatalf("it does not open: %v", err)
	}
	defer db.Close()
	db.NoSync = true
	left := 100_000
	each := func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			c := b.Cursor()
			for k, v := c.First(); k != nil && left > 0; k, v = c.Next() {
				left -= 1 + len(v)/1000
				b.Get(k)
			}
			for k, _ := c.Last(); k != nil && left > 0; k, _ = c.Prev() {
				left--
			}
			return nil
		})
	}
	if err := db.View(each); err != nil || left <= 0 {
		t.Fatalf("reading: %v, %d left", err, left)
	}
	for i := range 3 {
		err = db.Update(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
				c := b.Cursor()
				if k, _ := c.First(); i == 1 && k != nil {
					if err := c.Delete(); err != nil {
						return err
					}
				}
				return b.Put([]byte{255, byte(i)}, make([]byte, 3000*i))
			})
		})
		if err != nil {
			t.Fatalf("writing: %v", err)
		}
	}
}

// walkAll looks at all that bbolt would.
func (m *meta) walkAll(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if m.end > uint64(fi.Size()/m.pageSize) {
		return errTorn
	}
	p := &pages{f: f, size: m.pageSize, seen: make([]byte, m.end)}
	var all []bucket
	err = p.walk(m.root, elementBucket, func(_, value []byte) error {
		var b bucket
		err := b.read(value)
		all = append(all, b)
		return err
	})
	for i := 0; err == nil && i < len(all); i++ {
		err = all[i].each(p, func(_, _ []byte) error { return nil })
	}
	if err == nil {
		err = p.free(m.free)
	}
	return err
}
