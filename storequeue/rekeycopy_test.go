package storequeue

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The power fails in a rekey, behind the new state.db and before its copy. What
// opens the queue next makes the copy good, with either key; if state.db is lost
// before that, the copy opens with the key it was made with, and only with that.
func TestRekeyWithTheOldCopy(t *testing.T) {
	with := func(n uint64) Config {
		return Config{SegmentSize: rotSegment, Encrypt: true, Key: cutKey(n), MustExist: true}
	}
	for _, c := range []struct {
		name        string
		first, last uint64 // keys to open with, before and after state.db is lost; 0: not
	}{
		{"opened with the new key", 2, 2},
		{"opened with the old key", 1, 1},
		{"lost at once", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			cfg := with(1)
			cfg.MustExist = false
			q := openTest(t, dir, cfg)
			want := 300
			mixed(t, q, mustReader(t, q, "x"), want)
			want = int(q.Stats().Last)
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			spare := filepath.Join(dir, stateCopy)
			old := readFile(t, spare)
			if err := Rekey(dir, cutKey(1), cutKey(2), nil); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(spare, old, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.first > 0 {
				q := openTest(t, dir, with(c.first))
				mixed(t, q, mustReader(t, q, "x"), 300) // under the new data key, over several segments
				want = int(q.Stats().Last)
				left := filepath.Join(t.TempDir(), "left") // without what Close does
				if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				dir = left
			}
			if err := os.WriteFile(filepath.Join(dir, stateFile), make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.first == 0 {
				if _, err := Open(dir, with(2)); !errors.Is(err, ErrKey) {
					t.Errorf("with the new key: %v", err)
				}
			}
			q = openTest(t, dir, with(c.last))
			if n := len(drainAll(t, mustReader(t, q, "x"))); n != want || q.Stats().Damaged > 0 {
				t.Errorf("%d of %d messages are there, %d damaged", n, want, q.Stats().Damaged)
			}
		})
	}
}
