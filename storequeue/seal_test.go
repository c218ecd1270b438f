package storequeue

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"
)

func testSeal(t testing.TB, epoch, first uint64, k byte) seal {
	t.Helper()
	s, err := newSeal(epoch, first, 1, testKey(k))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// closeOne is a message as the record at seq.
func closeOne(t testing.TB, s seal, m *Message, seq uint64) []byte {
	t.Helper()
	var b batch
	b.add(m, nil)
	rec, err := s.close(&b, seq)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(rec)
}

// A sealed record opens at its place, under its key, whole and unchanged, and
// not otherwise.
func TestSealedRecordDamage(t *testing.T) {
	m := recordTests["all"]
	s := testSeal(t, 7, 5, 1)
	rec := closeOne(t, s, &m, 9)
	body, err := s.open(rec, 9)
	if err != nil || !bytes.Equal(body, appendBody(nil, &m)) {
		t.Fatalf("%x, %v", body, err)
	}
	for bit := range len(rec) * 8 {
		rec[bit/8] ^= 1 << (bit % 8)
		if _, err := s.open(rec, 9); err == nil {
			t.Fatalf("bit %d flipped: not noticed", bit)
		}
		rec[bit/8] ^= 1 << (bit % 8)
	}
	for n := range rec {
		if _, err := s.open(rec[:n], 9); err == nil {
			t.Fatalf("cut to %d bytes: not noticed", n)
		}
	}
	if _, err := s.open(append(bytes.Clone(rec), 0), 9); err == nil {
		t.Error("longer: not noticed")
	}
	for name, other := range map[string]seal{"another log": testSeal(t, 8, 5, 1), "another segment": testSeal(t, 7, 6, 1), "another key": testSeal(t, 7, 5, 2), "no key": {epoch: 7, first: 5}, "a lost key": {epoch: 7, first: 5, key: 1}} {
		if _, err := other.open(rec, 9); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	if _, err := s.open(rec, 10); err == nil {
		t.Error("another sequence: not noticed")
	}
	if _, err := s.open(sealed(&m, 7, 9), 9); err == nil {
		t.Error("a plain record in an encrypted segment: not noticed")
	}
	if again := closeOne(t, s, &m, 9); bytes.Equal(again, rec) {
		t.Error("the same nonce twice")
	}
}

func FuzzSealedRecord(f *testing.F) {
	s := testSeal(f, 7, 5, 1)
	m := recordTests["all"]
	good := closeOne(f, s, &m, 9)
	f.Add(good)
	f.Add([]byte{recordSealed})
	f.Add(sealed(&m, 7, 9))
	want, err := s.open(good, 9)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, rec []byte) { // the process beside has sealed it with another nonce
		if body, err := s.again().open(rec, 9); err == nil && !bytes.Equal(body, want) {
			t.Errorf("%x opens", rec)
		}
	})
}

func FuzzRing(f *testing.F) {
	r, err := newRing(0).turnOn(testKey(1))
	if err != nil {
		f.Fatal(err)
	}
	r.spans = append(r.spans, span{9, 1})
	f.Add(r.encode())
	f.Add([]byte{ringVersion, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRing(b)
		if err != nil {
			return
		}
		again, err := decodeRing(r.encode())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%v\nagain %v, %v", r, again, err)
		}
		r.keyOf(5)
	})
}

// What lies in state.db opens where it was put, unchanged, and not otherwise.
func TestVaultDamage(t *testing.T) {
	q := openTest(t, t.TempDir(), encrypted(1))
	v := &q.state.keys.vault
	a, b := []byte(factPrefix+"a"), []byte(factPrefix+"b")
	if err := q.SetState(Change{"a", "one", []byte("1")}, Change{"a", "two", []byte("2")}, Change{"b", "one", []byte("3")}); err != nil {
		t.Fatal(err)
	}
	err := q.state.db.View(func(tx *bbolt.Tx) error {
		one, two := v.key(a, "one"), v.key(a, "two")
		data := bytes.Clone(fact(tx, a, one))
		if name, value, err := v.open(a, one, data); name != "one" || string(value) != "1" || err != nil {
			t.Errorf("%q %q %v", name, value, err)
		}
		for bit := range len(data) * 8 {
			flipped := bytes.Clone(data)
			flipped[bit/8] ^= 1 << (bit % 8)
			if _, _, err := v.open(a, one, flipped); err == nil {
				t.Fatalf("bit %d flipped: not noticed", bit)
			}
		}
		for n := range data {
			if _, _, err := v.open(a, one, data[:n]); err == nil {
				t.Fatalf("cut to %d: not noticed", n)
			}
		}
		if _, _, err := v.open(a, two, data); err == nil {
			t.Error("under another key: not noticed")
		}
		if _, _, err := v.open(b, v.key(b, "one"), data); err == nil {
			t.Error("in another bucket: not noticed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A value that somebody changed is left out, counted and told of; the others
// are there.
func TestChangedFact(t *testing.T) {
	dir := t.TempDir()
	cfg := encrypted(1)
	var lost []Loss
	cfg.Lost = func(l Loss) { lost = append(lost, l) }
	q := openTest(t, dir, cfg)
	if err := q.SetState(Change{"a", "one", []byte("1")}, Change{"a", "two", []byte("2")}); err != nil {
		t.Fatal(err)
	}
	v, a := &q.state.keys.vault, []byte(factPrefix+"a")
	err := q.update(func(tx *bbolt.Tx) error { // two's value in the place of one's
		return putFact(tx, a, v.key(a, "one"), bytes.Clone(fact(tx, a, v.key(a, "two"))))
	})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := q.State("a", func(k string, v []byte) error { got += k + string(v); return nil }); err != nil || got != "two2" {
		t.Errorf("%q, %v", got, err)
	}
	if len(lost) != 1 || lost[0].Count != 1 || lost[0].Reason != ReasonDamaged || q.Stats().Damaged != 1 {
		t.Errorf("told %+v", lost)
	}
}

// Segments that changed their places, or came back older, give nothing that is
// not what was written there.
func TestSwappedSegments(t *testing.T) {
	dir := t.TempDir()
	cfg := encrypted(1)
	cfg.SegmentSize = 1
	q := openTest(t, dir, cfg)
	r := mustReader(t, q, "x")
	for i := range 4 {
		mustAppend(t, q, note(i, r))
	}
	q.Close()
	a, b := readFile(t, segmentPath(dir, 1)), readFile(t, segmentPath(dir, 2))
	files := folder(t, dir)
	files["seg-0000000000000001.db"], files["seg-0000000000000002.db"] = string(b), string(a)
	expectNoSwap(t, putFolder(t, files))
	// Even with the right number inside.
	swapped := putFolder(t, files)
	for name, first := range map[string]uint64{"seg-0000000000000001.db": 1, "seg-0000000000000002.db": 2} {
		s := &segment{path: filepath.Join(swapped, name), first: first, seal: testSeal(t, q.Epoch(), first, 1), sound: true}
		if err := s.openForWriting(0); err != nil {
			t.Fatal(err)
		}
		err := s.commit(&wear{}, func(tx *bbolt.Tx) error {
			records := tx.Bucket(bucketRecords)
			k, rec := records.Cursor().First()
			rec = bytes.Clone(rec)
			if err := records.Delete(bytes.Clone(k)); err != nil {
				return err
			}
			if err := records.Put(key(first), rec); err != nil {
				return err
			}
			return tx.Bucket(bucketInfo).Put(keyFirst, key(first))
		})
		if err != nil {
			t.Fatal(err)
		}
		s.close()
	}
	expectNoSwap(t, swapped)
}

func expectNoSwap(t *testing.T, dir string) {
	t.Helper()
	q, err := Open(dir, encrypted(1))
	if err != nil {
		return // seen
	}
	defer q.Close()
	for _, m := range take(t, mustReader(t, q, "x"), 0, 9) {
		if want := fmt.Sprint(m.Seq - 1); string(m.Payload) != want {
			t.Errorf("message %d is %q", m.Seq, m.Payload)
		}
	}
}

// The newest segment in an older copy is seen: its end was known.
func TestOlderCopyOfTheNewest(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, encrypted(1))
	r := mustReader(t, q, "x")
	mustAppend(t, q, note(0, r))
	q.Close()
	old := readFile(t, segmentPath(dir, 1))
	q = openTest(t, dir, encrypted(1))
	mustAppend(t, q, note(1, mustReader(t, q, "x")))
	q.Close()
	files := folder(t, dir)
	files["seg-0000000000000001.db"] = string(old)
	cfg := encrypted(1)
	lost := uint64(0)
	cfg.Lost = func(l Loss) { lost += l.Count }
	q, err := Open(putFolder(t, files), cfg)
	if err != nil {
		return // seen as well
	}
	defer q.Close()
	if lost != 1 || q.Stats().Last < 2 {
		t.Errorf("%d told, the log ends at %d", lost, q.Stats().Last)
	}
}
