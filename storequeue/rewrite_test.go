package storequeue

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
)

// keepSome rewrites a segment with the records that keep wants.
func keepSome(t *testing.T, q *Queue, s *segment, keep func(seq uint64) bool) {
	t.Helper()
	err := q.rewrite(s, func(put func(uint64, []byte) error) error {
		return s.view(func(tx *bbolt.Tx) error {
			return eachRecord(tx.Bucket(bucketRecords), s.first, func(seq uint64, rec []byte) error {
				if !keep(seq) {
					return nil
				}
				return put(seq, rec)
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mixed appends messages of all sizes, alone and together, over several
// segments.
func mixed(t *testing.T, q *Queue, r *Reader, n int) {
	t.Helper()
	for i := 0; i < n; {
		var some []Message
		for range 1 + i%37 {
			m := note(i+1, r)
			m.ContentType = string(make([]byte, i*i%1500))
			some = append(some, m)
			i++
		}
		mustAppend(t, q, some...)
	}
}

// What a rewrite keeps is there, for those who read meanwhile too, and after the
// next start; what it leaves out is not waited for.
func TestRewrite(t *testing.T) {
	for name, keep := range map[string]func(uint64) bool{
		"every third": func(seq uint64) bool { return seq%3 == 0 },
		"runs":        func(seq uint64) bool { return seq/50%2 == 0 },
		"all":         func(uint64) bool { return true },
		"none":        func(uint64) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			q := openTest(t, dir, Config{SegmentSize: 100 << 10})
			r := mustReader(t, q, "x")
			mixed(t, q, r, 900)
			if len(q.segments) < 4 {
				t.Fatalf("%d segments", len(q.segments))
			}
			stop, reading := make(chan struct{}), sync.WaitGroup{}
			reading.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						take(t, r, 0, 2000)
					}
				}
			})
			sealed := slices.Clone(q.segments[:len(q.segments)-1])
			for _, s := range sealed {
				keepSome(t, q, s, keep)
			}
			close(stop)
			reading.Wait()
			end := sealed[len(sealed)-1].last
			checkKept(t, q, end, keep)
			q.Close()
			q = openTest(t, dir, Config{SegmentSize: 100 << 10})
			checkKept(t, q, end, keep)
			for _, s := range q.segments[:len(q.segments)-1] {
				lookAt(t, s)
			}
		})
	}
}

// checkKept looks for what keep wants up to end, and for everything behind it.
func checkKept(t *testing.T, q *Queue, end uint64, keep func(uint64) bool) {
	t.Helper()
	if err := q.Check(); err != nil {
		t.Error(err)
	}
	var want []uint64
	for seq := uint64(1); seq <= q.Stats().Last; seq++ {
		if seq > end || keep(seq) {
			want = append(want, seq)
		}
	}
	var got []uint64
	for _, m := range take(t, mustReader(t, q, "x"), 0, 10000) {
		got = append(got, m.Seq)
		if string(m.Payload) != strconv.FormatUint(m.Seq, 10) {
			t.Errorf("message %d is %q", m.Seq, m.Payload)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages came, not %d", len(got), len(want))
	}
	checked := uint64(0)
	for from, more := uint64(0), true; more; {
		c, ok := q.CheckSegment(from)
		checked, from, more = checked+c.Records, c.Next, ok && c.Next > 0
	}
	if checked != uint64(len(want)) {
		t.Errorf("%d messages were checked, not %d", checked, len(want))
	}
}

// lookAt lets the walker that judges last commits see a segment.
func lookAt(t *testing.T, s *segment) {
	t.Helper()
	f := openFile(t, s.path)
	defer f.Close()
	c := readMetas(f)[0].look(f, s.seal, s.first)
	if c.torn != nil || c.bad != 0 || c.newest != s.last {
		t.Errorf("%s: ends at %d, not at %d, %d bad: %v", filepath.Base(s.path), c.newest, s.last, c.bad, c.torn)
	}
}

// Of a damaged bundle in a sparse segment only what can have been in it counts.
func TestDamagedBundleInASparseSegment(t *testing.T) {
	q := openTest(t, filepath.Join(t.TempDir(), "queue"), Config{SegmentSize: 50 << 10})
	r := mustReader(t, q, "x")
	mixed(t, q, r, 400)
	s := q.segments[0]
	keepSome(t, q, s, func(seq uint64) bool { return seq >= 20 && seq < 24 })
	err := s.view(func(tx *bbolt.Tx) error {
		var bad []uint64
		_, data := tx.Bucket(bucketRecords).Cursor().Last()
		data = slices.Clone(data)
		if data[0] != bundleMarker {
			return fmt.Errorf("no bundle")
		}
		data[3] ^= 1
		for seq := s.begins(23, data); seq <= 23; seq++ {
			bad = append(bad, seq)
		}
		if !slices.Equal(bad, []uint64{20, 21, 22, 23}) {
			t.Errorf("%d are bad", bad)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
