package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// What somebody can do who may write to the folder and has no key: everything
// that needs none, checksums with it.

// editBolt changes a file of a closed queue.
func editBolt(t *testing.T, path string, fn func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// attacked makes a closed, encrypted queue with one message a segment, 0 to 3,
// or with all in one.
func attacked(t *testing.T, segmentSize int64) (dir string, epoch uint64) {
	t.Helper()
	dir = t.TempDir()
	cfg := encrypted(1)
	cfg.SegmentSize = segmentSize
	q := openTest(t, dir, cfg)
	r, y := mustReader(t, q, "x"), mustReader(t, q, "y")
	for i := range 4 {
		mustAppend(t, q, note(i, r, y))
	}
	if err := y.Checkpoint(3); err != nil {
		t.Fatal(err)
	}
	q.Close()
	return dir, q.Epoch()
}

// afterAttack opens a queue and returns what the reader x gets, and what was
// told to be lost.
func afterAttack(t *testing.T, dir string) (got []string, lost []Loss) {
	t.Helper()
	cfg := encrypted(1)
	cfg.Lost = func(l Loss) { lost = append(lost, l) }
	q := openTest(t, dir, cfg)
	defer q.Close()
	q.keep(true) // unlinks what nobody needs
	r := mustReader(t, q, "x")
	mustAppend(t, q, note(99, r)) // or reading waits
	return payloads(take(t, r, 0, 9)), lost
}

// Counts that somebody put into the summary of an encrypted segment are not
// believed, so the segment is not unlinked unseen.
func TestForgedSummary(t *testing.T) {
	for name, forge := range map[string]func(facts map[string][]byte, epoch uint64) []byte{
		"a plain sum": func(facts map[string][]byte, epoch uint64) []byte { return seal{epoch: epoch}.summary(facts, 1) },
		"none":        func(map[string][]byte, uint64) []byte { return nil },
		"the old one": func(facts map[string][]byte, _ uint64) []byte { return facts[string(keySum)] },
	} {
		for _, sparse := range []bool{false, true} {
			dir, epoch := attacked(t, 1)
			if sparse {
				rewriteFirst(t, dir)
			}
			editBolt(t, segmentPath(dir, 1), func(tx *bbolt.Tx) error {
				info, none := tx.Bucket(bucketInfo), &segment{}
				facts := map[string][]byte{string(keySealed): none.encodeMarks(), string(keySizes): none.encodeSizes()}
				for _, k := range [][]byte{keyEpoch, keyFirst, keySparse, keySum} {
					facts[string(k)] = bytes.Clone(info.Get(k))
				}
				err := errors.Join(info.Put(keySealed, facts[string(keySealed)]), info.Put(keySizes, facts[string(keySizes)]), info.Delete(keySum))
				if sum := forge(facts, epoch); err == nil && sum != nil {
					err = info.Put(keySum, sum)
				}
				return err
			})
			got, _ := afterAttack(t, dir)
			if fmt.Sprint(got) != "[0 1 2 3 99]" {
				t.Errorf("%s, sparse %v: got %v", name, sparse, got)
			}
			if names, _ := aside(dir); len(names) != 1 {
				t.Errorf("%s, sparse %v: put aside: %v", name, sparse, names)
			}
		}
	}
}

// rewriteFirst makes the first segment a sparse one.
func rewriteFirst(t *testing.T, dir string) {
	t.Helper()
	q := openTest(t, dir, encrypted(1))
	defer q.Close()
	s := q.segments[0]
	rec := bytes.Clone(recordAt(t, s, 1))
	if err := q.rewrite(s, func(put func(uint64, []byte) error) error { return put(1, rec) }); err != nil {
		t.Fatal(err)
	}
}

func recordAt(t *testing.T, s *segment, seq uint64) (rec []byte) {
	t.Helper()
	err := s.view(func(tx *bbolt.Tx) error {
		return eachRecord(tx.Bucket(bucketRecords), seq, func(at uint64, b []byte) error {
			if at == seq {
				rec = bytes.Clone(b)
			}
			return nil
		})
	})
	if err != nil || rec == nil {
		t.Fatalf("record %d: %v", seq, err)
	}
	return rec
}

// Where readers are, what they skip and which segments there are is damage when
// somebody changed it, and the copy of state.db takes its place.
func TestForgedFacts(t *testing.T) {
	one := key(1) // the reader x
	for _, c := range []struct {
		bucket, k, value []byte
	}{
		{bucketCursors, one, key(4)},
		{bucketSkipped, one, stretches{{0, 4}}.encode()},
		{bucketFresh, one, []byte{1}},
		{bucketMeta, keyNewest, key(1)},
		{bucketMeta, keyCommitted, key(1)},
		{bucketMeta, keyLastReader, key(0)},
		{bucketSegments, key(1), []byte{1}},
		{bucketSegments, key(9), nil},
	} {
		place := fmt.Sprintf("%s %x", c.bucket, c.k)
		dir, _ := attacked(t, 1)
		forge := func(file string, plain bool) {
			editBolt(t, filepath.Join(dir, file), func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists(c.bucket)
				if err != nil {
					return err
				}
				value := slices.Clone(c.value)
				if old := b.Get(c.k); len(old) >= macSize+sumSize && !plain {
					value = append(value, old[len(old)-macSize-sumSize:len(old)-sumSize]...)
				}
				return putFact(tx, c.bucket, c.k, value)
			})
		}
		for _, plain := range []bool{true, false} {
			forge(stateFile, plain)
			got, lost := afterAttack(t, dir)
			if len(got) < 4 || fmt.Sprint(got[:4]) != "[0 1 2 3]" || len(lost) != 1 || lost[0].Reason != ReasonState {
				t.Errorf("%s, plain %v: got %v, told %v", place, plain, got, lost)
			}
			dir, _ = attacked(t, 1)
		}
		forge(stateFile, false)
		forge(stateCopy, false)
		if string(c.bucket) == string(bucketSegments) {
			continue // the copy's list counts for nothing
		}
		if q, err := Open(dir, encrypted(1)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s, in the copy as well: %v", place, err)
			if err == nil {
				q.Close()
			}
		}
	}
}

// So is what stands, as it was written, in the place of something else.
func TestMovedFacts(t *testing.T) {
	for _, name := range [][]byte{bucketCursors, bucketReaders} {
		dir, _ := attacked(t, 1)
		editBolt(t, filepath.Join(dir, stateFile), func(tx *bbolt.Tx) error {
			var keys [][]byte
			err := eachFact(tx, name, func(k, _ []byte) error {
				keys = append(keys, bytes.Clone(k))
				return nil
			})
			return errors.Join(err, putFact(tx, name, keys[0], bytes.Clone(fact(tx, name, keys[1]))))
		})
		if got, lost := afterAttack(t, dir); fmt.Sprint(got) != "[0 1 2 3 99]" || len(lost) != 1 || lost[0].Reason != ReasonState {
			t.Errorf("%s moved: got %v, told %v", name, got, lost)
		}
	}
}

// Records that somebody took out of an encrypted segment are missed: at its
// beginning, in the middle, at its end.
func TestDeletedRecords(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		for seq := uint64(1); seq <= 4; seq++ {
			dir, _ := attacked(t, 1<<20)
			if sealed { // another one follows
				if err := Rekey(dir, testKey(1), testKey(1), nil); err != nil {
					t.Fatal(err)
				}
				q := openTest(t, dir, encrypted(1))
				mustAppend(t, q, note(4, mustReader(t, q, "x")))
				q.Close()
			}
			editBolt(t, segmentPath(dir, 1), func(tx *bbolt.Tx) error {
				records := tx.Bucket(bucketRecords)
				if records.Get(key(seq)) == nil {
					t.Fatalf("no record %d", seq)
				}
				if err := records.Delete(key(seq)); err != nil {
					return err
				}
				return stamp(tx) // as a commit without it looks
			})
			editBolt(t, segmentPath(dir, 1), stamp) // and the commit before it is gone, too
			want := []string{"0", "1", "2", "3"}
			if sealed {
				want = append(want, "4")
			}
			want = append(slices.Delete(want, int(seq-1), int(seq)), "99")
			got, lost := afterAttack(t, dir)
			told := uint64(0)
			for _, l := range lost {
				told += l.Count
			}
			if !slices.Equal(got, want) || told == 0 {
				t.Errorf("sealed %v, without %d: got %v, told %v", sealed, seq, got, lost)
			}
		}
	}
}
