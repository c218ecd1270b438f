package storequeue

import (
	"bytes"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

func TestFacts(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "x"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	a, b := []byte("a"), []byte("b")
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{a, b} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		for k, v := range map[string]string{"k": "value", "e": ""} {
			if err := putFact(tx, a, []byte(k), []byte(v)); err != nil {
				return err
			}
		}
		data := bytes.Clone(tx.Bucket(a).Get([]byte("k")))
		for i := range len(data) * 8 {
			flipped := bytes.Clone(data)
			flipped[i/8] ^= 1 << (i % 8)
			if _, err := openFact(a, []byte("k"), flipped); err == nil {
				t.Errorf("bit %d", i)
			}
		}
		if _, err := openFact(b, []byte("k"), data); err == nil {
			t.Error("another bucket")
		}
		if _, err := openFact(a, []byte("l"), data); err == nil {
			t.Error("another key")
		}
		if got := fact(tx, a, []byte("k")); string(got) != "value" {
			t.Errorf("%q", got)
		}
		if got := fact(tx, a, []byte("e")); got == nil || len(got) != 0 {
			t.Errorf("%q", got)
		}
		if fact(tx, a, []byte("none")) != nil || fact(tx, []byte("none"), a) != nil {
			t.Error("something where nothing is")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What layout version 1 has is taken over.
func TestStateOfVersionOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "x")
	mustAppend(t, q, note(1, r), note(2, r))
	if err := r.Checkpoint(1, Change{"b", "k", []byte("v")}); err != nil {
		t.Fatal(err)
	}
	epoch := q.Epoch()
	q.Close()
	withoutSums(t, filepath.Join(dir, stateFile))
	for range 2 {
		q = openTest(t, dir, Config{MustExist: true})
		var got string
		if err := q.State("b", func(k string, v []byte) error { got += k + string(v); return nil }); err != nil {
			t.Error(err)
		}
		if at := mustReader(t, q, "x").Acked(); at != 1 || q.Epoch() != epoch || got != "kv" {
			t.Errorf("at %d, epoch %d, state %q", at, q.Epoch(), got)
		}
		q.Close()
	}
}

// withoutSums turns state.db into one of layout version 1.
func withoutSums(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			plain := map[string][]byte{}
			err := eachFact(tx, name, func(k, v []byte) error {
				plain[string(k)] = bytes.Clone(v)
				return nil
			})
			for k, v := range plain {
				if err == nil {
					err = b.Put([]byte(k), v)
				}
			}
			if err == nil && string(name) == string(bucketMeta) {
				if err = b.Delete(keyLayout); err == nil {
					err = b.Put(keyVersion, key(1))
				}
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
