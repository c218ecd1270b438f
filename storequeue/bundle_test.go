package storequeue

import (
	"bytes"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// Of a bundle with one bad record the others come; one whose head is bad is
// left out and counted record by record.
func TestDamagedBundle(t *testing.T) {
	const messages = 200
	for name, tt := range map[string]struct {
		at   func(v value, data []byte) int // the byte to change in the second bundle
		lost func(first, last uint64) []uint64
	}{
		"a record": {
			func(v value, data []byte) int { return len(data) - len(v.rest) + 8 },
			func(first, _ uint64) []uint64 { return []uint64{first} },
		},
		"its head": {
			func(value, []byte) int { return 3 },
			func(first, last uint64) (all []uint64) {
				for seq := first; seq <= last; seq++ {
					all = append(all, seq)
				}
				return all
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := openTest(t, dir, Config{})
			r := mustReader(t, q, "x")
			if err := commitOnce(q, 0, messages, r); err != nil {
				t.Fatal(err)
			}
			first, last := damageBundle(t, q.segments[0], tt.at)
			q.Close()
			q, err := Open(dir, Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			mustAppend(t, q, note(messages, mustReader(t, q, "x")))
			var lost []uint64
			next := uint64(1)
			for _, m := range take(t, mustReader(t, q, "x"), 0, 2*messages) {
				for ; next < m.Seq; next++ {
					lost = append(lost, next)
				}
				next++
			}
			if want := tt.lost(first, last); !slices.Equal(lost, want) || next != messages+2 {
				t.Errorf("lost %v, want %v; ends before %d", lost, want, next)
			}
			if got := q.Stats().Damaged; got != uint64(len(lost)) {
				t.Errorf("%d counted, %d lost", got, len(lost))
			}
		})
	}
}

// damageBundle changes one byte of the segment's second bundle and returns
// which records that holds.
func damageBundle(t *testing.T, s *segment, at func(value, []byte) int) (first, last uint64) {
	t.Helper()
	err := s.commit(&wear{}, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRecords)
		c := b.Cursor()
		c.First()
		k, data := c.Next()
		v, err := openValue(number(k), data)
		if err != nil {
			return err
		}
		first, last = v.seq, number(k)
		bad := bytes.Clone(data)
		bad[at(v, data)] ^= 1
		return b.Put(key(last), bad)
	})
	if err == nil { // or the damage would be in the last commit, which can be taken back
		err = s.commit(&wear{}, func(*bbolt.Tx) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	if last-first < 5 {
		t.Fatalf("the bundle holds %d to %d: too little for this test", first, last)
	}
	return first, last
}

// A reader may begin in the middle of a bundle.
func TestReadFromWithinABundle(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "x")
	if err := commitOnce(q, 0, 60, r); err != nil {
		t.Fatal(err)
	}
	q.Close()
	q = openTest(t, dir, Config{})
	r = mustReader(t, q, "x")
	for after := range uint64(60) {
		if msgs := take(t, r, after, 1); len(msgs) != 1 || msgs[0].Seq != after+1 {
			t.Fatalf("after %d comes %v", after, msgs)
		}
	}
}

func FuzzValue(f *testing.F) {
	var b batch
	for i := range 5 {
		m := note(i)
		b.add(&m, nil)
	}
	seal{epoch: 1}.close(&b, 1)
	f.Add(appendBundle(nil, b.buf, 0, b.entries))
	f.Add([]byte{bundleMarker, 2, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := openValue(300, data)
		if err != nil {
			return
		}
		size := 0
		for seq, rec, ok := v.next(); ok; seq, rec, ok = v.next() {
			seal{epoch: 1}.open(rec, seq)
			size += len(rec)
		}
		if v.seq != 301 || size > len(data) {
			t.Errorf("ends at %d after %d bytes", v.seq, size)
		}
	})
}

// A message that is read costs one allocation, its bytes; a reading a few more.
func TestAllocationsOfReading(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	r := mustReader(t, q, "x")
	const messages = 64
	for i := range messages {
		mustAppend(t, q, note(i, r))
	}
	got := testing.AllocsPerRun(100, func() {
		if msgs, err := r.Poll(0, messages); err != nil || len(msgs) != messages {
			t.Fatal(len(msgs), err)
		}
	})
	if got > messages+30 {
		t.Errorf("%v allocations for %d messages", got, messages)
	}
}
