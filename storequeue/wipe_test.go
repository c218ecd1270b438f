package storequeue

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Nothing is left of a commit that did not come to its end, whether its meta
// page arrived or not: its records have sequence numbers that others get, and a
// salvage must not find them there.
func TestCutCommitIsWiped(t *testing.T) {
	const page, before, last = 4096, 40, 300
	for name, metaArrived := range map[string]bool{"with its meta page": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			q := openTest(t, dir, Config{})
			r := mustReader(t, q, "x")
			for i := range before {
				mustAppend(t, q, note(i, r))
			}
			file := q.segments[0].path
			old := readFile(t, file)
			var b batch
			never := []byte("never acknowledged")
			for i := range last {
				m := note(before+i, r)
				m.Payload = never
				b.add(&m, nil)
			}
			if err := q.write(q.segments[0], &b, before+1); err != nil {
				t.Fatal(err)
			}
			cut := readFile(t, file)
			if metaArrived { // but a page of the records did not
				at := bytes.LastIndex(cut, never) / page * page
				clear(cut[at : at+page])
			} else {
				copy(cut[:2*page], old)
			}
			state := readFile(t, filepath.Join(dir, stateFile))
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			for name, data := range map[string][]byte{file: cut, filepath.Join(dir, stateFile): state} {
				if err := os.WriteFile(name, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if bytes.Count(readFile(t, file), never) < 100 {
				t.Fatal("there is nothing to wipe")
			}
			q = openTest(t, dir, Config{MustExist: true})
			if n := bytes.Count(readFile(t, file), never); n > 0 || q.Stats().Last != before {
				t.Errorf("%d records of what was taken back are left; it ends at %d", n, q.Stats().Last)
			}
		})
	}
}
