package storequeue

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Of the last commit a power cut leaves any part, in any order of its sectors.
// What was acknowledged before is there, and the log goes on.
func TestPowerCut(t *testing.T) {
	const sector = 512
	for name, tt := range map[string]struct{ before, last int }{
		"first commit":         {0, 3},
		"one message":          {5, 1},
		"many messages":        {40, 500},
		"behind many messages": {300, 2},
		"the seal":             {60, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			q := openTest(t, dir, Config{})
			r := mustReader(t, q, "x")
			for i := range tt.before {
				mustAppend(t, q, note(i, r))
			}
			file := q.segments[0].path
			old := readFile(t, file)
			if err := commitOnce(q, tt.before, tt.last, r); err != nil {
				t.Fatal(err)
			}
			synced := readFile(t, file)
			q.Close()
			old = append(old, make([]byte, len(synced)-len(old))...) // it grew before the commit
			changed := changes(old, synced, sector)
			for round := range 40 {
				cut := bytes.Clone(old)
				arrived := 0
				for i, at := range changed {
					if some := rand.IntN(4); round < len(changed) && i != round || round >= len(changed) && some > 0 {
						copy(cut[at:at+sector], synced[at:])
						arrived++
					}
				}
				checkPowerCut(t, dir, cut, tt.before, tt.last)
				if t.Failed() {
					t.Fatalf("with %d of %d sectors", arrived, len(changed))
				}
			}
		})
	}
}

// What is known to have been committed was not cut off but damaged: it is not
// taken back, and what is whole of it comes out.
func TestDamageIsNoPowerCut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "x")
	const n = 20
	for i := range n {
		mustAppend(t, q, note(i, r))
	}
	last := note(n, r)
	last.Topic = "plant/last"
	mustAppend(t, q, last)
	file := q.segments[0].path
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	b := bytes.ReplaceAll(readFile(t, file), []byte("plant/last"), []byte("plant/lost"))
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	q, err := Open(dir, Config{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if got := q.Stats().Last; got != n+1 {
		t.Errorf("the log ends at %d, not at %d", got, n+1)
	}
	if got := len(take(t, mustReader(t, q, "x"), 0, n+10)); got != n {
		t.Errorf("%d messages came out, not %d", got, n)
	}
}

func changes(a, b []byte, sector int) (at []int) {
	for i := 0; i < len(b); i += sector {
		if !bytes.Equal(a[i:i+sector], b[i:i+sector]) {
			at = append(at, i)
		}
	}
	return at
}

func checkPowerCut(t *testing.T, from string, segment []byte, before, last int) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "queue")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{stateFile: readFile(t, filepath.Join(from, stateFile)), filepath.Base(segmentPath("", 1)): segment} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q, err := Open(dir, Config{MustExist: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer q.Close()
	if err := q.Check(); err != nil {
		t.Error(err)
	}
	if got := int(q.Stats().Last); got != before && got != before+last {
		t.Errorf("ends at %d, not at %d or %d", got, before, before+last)
		return
	}
	r := mustReader(t, q, "x")
	n := int(q.Stats().Last)
	mustAppend(t, q, note(n, r))
	for i, m := range take(t, r, 0, n+10) {
		if string(m.Payload) != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, m.Payload)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// commitOnce commits the messages from number first on together, or the seal if
// there are none.
func commitOnce(q *Queue, first, n int, r *Reader) error {
	if n == 0 {
		return q.seal(q.segments[0])
	}
	var b batch
	for i := range n {
		m := note(first+i, r)
		b.add(&m, nil)
	}
	return q.write(q.segments[0], &b, uint64(first+1))
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
