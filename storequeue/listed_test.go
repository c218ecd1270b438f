package storequeue

import (
	"os"
	"path/filepath"
	"testing"
)

// threeSegments makes a closed queue of at least three of them, which all wait
// for one reader, and in part for another that has seen the first half.
func threeSegments(t *testing.T, dir string) (segments []*segment, last uint64) {
	t.Helper()
	q := openTest(t, dir, Config{SegmentSize: 48 << 10})
	all, half := mustReader(t, q, "all"), mustReader(t, q, "half")
	for i := 0; len(q.segments) < 4; i++ {
		m := big(i, all)
		if i%2 == 0 {
			m = big(i, all, half)
		}
		mustAppend(t, q, m)
	}
	half.Ack(q.segments[1].first + 1)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return q.segments, q.committed.Load()
}

// A segment whose file is gone is missed: what it held is counted as lost to
// whom it was for, once, and all else is delivered.
func TestSegmentGone(t *testing.T) {
	for name, gone := range map[string][]int{"first": {0}, "middle": {1}, "two": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			segments, last := threeSegments(t, dir)
			want := uint64(0)
			for _, i := range gone {
				s := segments[i]
				want += s.last - s.first + 1
				if err := os.Remove(s.path); err != nil {
					t.Fatal(err)
				}
			}
			for round := range 2 {
				var told []Loss
				q := openTest(t, dir, Config{SegmentSize: 48 << 10, Lost: func(l Loss) { told = append(told, l) }})
				by := map[string]uint64{}
				for _, l := range told {
					by[l.Reader+" "+string(l.Reason)] += l.Count
				}
				if round == 0 && (by["all damaged"] != want || by["half damaged"] > want/2+1) || round > 0 && len(told) > 0 {
					t.Errorf("round %d: told %v, want %d", round, by, want)
				}
				if lost := lostBy(t, q)["all damaged"]; lost != want {
					t.Errorf("round %d: %d counted as lost, want %d", round, lost, want)
				}
				r := mustReader(t, q, "all")
				if n := r.Waiting(); n != last-want {
					t.Errorf("%d wait, want %d", n, last-want)
				}
				msgs := take(t, r, 0, int(last))
				if uint64(len(msgs)) != last-want {
					t.Errorf("%d are read, want %d", len(msgs), last-want)
				}
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A file that goes while the queue is open is missed as soon as somebody comes
// to it.
func TestSegmentGoesWhileOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	segments, last := threeSegments(t, dir)
	q := openTest(t, dir, Config{SegmentSize: 48 << 10})
	s := segments[2]
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	var n int
	r := mustReader(t, q, "all")
	for after := uint64(0); after < last; {
		msgs := take(t, r, after, 1000)
		n += len(msgs)
		after = msgs[len(msgs)-1].Seq
	}
	want := s.last - s.first + 1
	if lost := lostBy(t, q)["all damaged"]; lost != want || uint64(n) != last-want {
		t.Errorf("%d are read and %d counted as lost, want %d of %d", n, lost, want, last)
	}
}

// Segments that nobody needed are not missed, whatever state.db falls back to.
func TestSegmentsThatWent(t *testing.T) {
	for _, fallBack := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "queue")
		segments, last := threeSegments(t, dir)
		q := openTest(t, dir, Config{SegmentSize: 48 << 10})
		spare := readFile(t, filepath.Join(dir, stateCopy))
		for _, name := range []string{"all", "half"} {
			mustReader(t, q, name).Ack(last)
		}
		q.keep(true)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(segments[1].path); err == nil {
			t.Fatal("the segment is still there")
		}
		if fallBack {
			for name, data := range map[string][]byte{stateCopy: spare, stateFile: []byte("rot")} {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		q = openTest(t, dir, Config{SegmentSize: 48 << 10, Lost: func(l Loss) {
			if l.Reason != ReasonState {
				t.Errorf("told %+v", l)
			}
		}})
		if _, err := os.Stat(segments[1].path); err == nil {
			t.Error("the segment is there again")
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
