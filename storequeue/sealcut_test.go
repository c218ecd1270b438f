package storequeue

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// The seal of a segment that many readers have something in is larger than a
// sector: a power cut in it must not lose what they have not read.
func TestPowerCutOfALargeSeal(t *testing.T) {
	rounds := 10
	if os.Getenv("PROVE") != "" {
		rounds = 200
	}
	for _, tt := range []struct{ readers, sector int }{{400, 512}, {1500, 4096}} {
		t.Run(fmt.Sprint(tt.readers, "/", tt.sector), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "queue")
			q := openTest(t, dir, Config{})
			all := manyReaders(t, q, tt.readers)
			for i := range sealedMessages {
				mustAppend(t, q, note(i, all...))
			}
			file := q.segments[0].path
			old := readFile(t, file)
			if err := q.seal(q.segments[0]); err != nil {
				t.Fatal(err)
			}
			synced := readFile(t, file)
			state := readFile(t, filepath.Join(dir, stateFile)) // before Close notes anything
			q.Close()
			old = append(old, make([]byte, len(synced)-len(old))...)
			changed := changes(old, synced, tt.sector)
			for round := range rounds {
				cut := bytes.Clone(old)
				for i, at := range changed {
					if round%2 == 0 && i != round/2%len(changed) || round%2 == 1 && rand.IntN(4) > 0 {
						copy(cut[at:at+tt.sector], synced[at:])
					}
				}
				checkSealCut(t, map[string][]byte{stateFile: state, filepath.Base(file): cut}, all)
				if t.Failed() {
					t.Fatalf("round %d", round)
				}
			}
		})
	}
}

const sealedMessages = 4

func manyReaders(t *testing.T, q *Queue, n int) []*Reader {
	t.Helper()
	all := make([]*Reader, n)
	var made sync.WaitGroup
	for i := range all {
		made.Go(func() {
			r, err := q.Reader(fmt.Sprintf("r%d", i))
			if err != nil {
				t.Error(err)
			}
			all[i] = r
		})
	}
	made.Wait()
	return all
}

func checkSealCut(t *testing.T, files map[string][]byte, readers []*Reader) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "queue")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
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
	for _, r := range q.Stats().Readers {
		if r.Waiting != sealedMessages {
			t.Errorf("%d messages wait for %s", r.Waiting, r.Name)
		}
	}
	mustAppend(t, q, note(9, readers[0])) // rotates if the seal counts
	for _, r := range readers {
		if msgs, err := mustReader(t, q, r.name).Poll(0, 100); err != nil || len(msgs) < sealedMessages {
			t.Errorf("%s gets %d messages: %v", r.name, len(msgs), err)
		}
	}
}
