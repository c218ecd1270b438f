package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// testKey is a master key; each n makes another.
func testKey(n byte) Key {
	k := make(Key, keySize)
	k[0] = n
	return k
}

func encrypted(n byte) Config { return Config{Encrypt: true, Key: testKey(n)} }

// folder is what a queue's files hold, by name.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files[e.Name()] = string(readFile(t, filepath.Join(dir, e.Name())))
	}
	return files
}

func putFolder(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Nothing that was given to an encrypted queue stands in its folder: neither
// while it is open, nor closed, nor after encryption was switched on for what
// state.db held.
func TestNothingInTheClear(t *testing.T) {
	const payload, topic, property, from, fact, name = "PAYLOAD-canary", "TOPIC-canary", "PROPERTY-canary", "FROM-canary", "FACT-canary", "NAME-canary"
	canaries := []string{payload, topic, property, from, fact, name}
	use := func(q *Queue) {
		r := mustReader(t, q, "session/"+name)
		m := Message{Topic: "plant/" + topic, Payload: []byte(payload), From: from, Properties: []Property{{"k", property}}, Note: []byte(payload), For: []Mark{{Reader: r.ID()}}}
		for range 300 {
			mustAppend(t, q, m)
		}
		if err := r.Checkpoint(100, Change{"retained", "plant/" + topic, []byte(fact)}, Change{"sessions", name, []byte(fact)}); err != nil {
			t.Fatal(err)
		}
	}
	find := func(dir string, in func(name string) bool) (found []string) {
		for file, data := range folder(t, dir) {
			for _, c := range canaries {
				if in(file) && strings.Contains(data, c) {
					found = append(found, file+": "+c)
				}
			}
		}
		return found
	}
	all := func(string) bool { return true }

	plain := t.TempDir()
	q := openTest(t, plain, Config{})
	use(q)
	q.Close()
	if n := len(find(plain, all)); n < len(canaries) {
		t.Fatalf("the search finds %d of %d in a plain queue", n, len(canaries))
	}
	q = openTest(t, plain, encrypted(1))
	use(q)
	q.Close()
	if found := find(plain, func(name string) bool { return name != filepath.Base(segmentPath("", 1)) }); found != nil {
		t.Errorf("after encryption was switched on: %v", found)
	}

	dir := t.TempDir()
	cfg := encrypted(1)
	cfg.SegmentSize = 64 << 10
	q = openTest(t, dir, cfg)
	use(q)
	if found := find(dir, all); found != nil {
		t.Errorf("open: %v", found)
	}
	q.Close()
	if found := find(dir, all); found != nil {
		t.Errorf("closed: %v", found)
	}
}

// Without the right key nothing opens, and nothing is touched.
func TestWrongKey(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, encrypted(1))
	mustAppend(t, q, note(1, mustReader(t, q, "x")))
	q.Close()
	before := folder(t, dir)
	for name, cfg := range map[string]Config{
		"another": encrypted(2), "none": {}, "none, and on": {Encrypt: true}, "short": {Encrypt: true, Key: make(Key, 31)}, "another, and off": {Key: testKey(2)},
	} {
		if q, err := Open(dir, cfg); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				q.Close()
			}
		}
		after := folder(t, dir)
		for file := range after {
			if after[file] != before[file] {
				t.Errorf("%s: %s was touched", name, file)
			}
		}
	}
	fresh := filepath.Join(t.TempDir(), "queue")
	if _, err := Open(fresh, Config{Encrypt: true}); !errors.Is(err, ErrKey) {
		t.Errorf("a new queue without a key: %v", err)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
}

// Encryption can be switched on and off with a queue that holds something; what
// was stored before stays readable.
func TestSwitchEncryption(t *testing.T) {
	dir := t.TempDir()
	want, n := []string(nil), 0
	for round, cfg := range []Config{{}, encrypted(1), {Key: testKey(1)}, encrypted(1), encrypted(1), {Key: testKey(1)}} {
		q := openTest(t, dir, cfg)
		r := mustReader(t, q, "x")
		facts := 0
		if err := q.State("b", func(k string, v []byte) error {
			facts++
			if k+"!" != string(v) {
				t.Errorf("round %d: %q is %q", round, k, v)
			}
			return nil
		}); err != nil || facts != round {
			t.Errorf("round %d: %d facts, %v", round, facts, err)
		}
		for range 5 {
			mustAppend(t, q, note(n, r))
			want = append(want, fmt.Sprint(n))
			n++
		}
		if got := payloads(take(t, r, 0, 100)); !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", round, got, want)
		}
		if err := q.SetState(Change{"b", fmt.Sprint(round), []byte(fmt.Sprint(round) + "!")}); err != nil {
			t.Fatal(err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if firsts, err := (&Queue{dir: dir}).listSegments(); err != nil || len(firsts) != 5 { // two rounds with the same setting share one
		t.Errorf("segments %v, %v", firsts, err)
	}
	// Once the last encrypted segment is gone, so is its key.
	q := openTest(t, dir, Config{Key: testKey(1)})
	if got := len(q.state.keys.ring.keys); got != 2 {
		t.Errorf("%d data keys", got)
	}
	if err := mustReader(t, q, "x").Checkpoint(uint64(n)); err != nil {
		t.Fatal(err)
	}
	q.keep(true)
	if got := len(q.state.keys.ring.keys); got != 0 {
		t.Errorf("%d data keys are left", got)
	}
}

// An empty queue that is to be encrypted is, from its first message on.
func TestSwitchEmpty(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, Config{}).Close()
	q := openTest(t, dir, encrypted(1))
	mustAppend(t, q, note(77, mustReader(t, q, "x")))
	q.Close()
	if data := string(readFile(t, segmentPath(dir, 1))); strings.Contains(data, "press-1") {
		t.Error("a message is in the clear")
	}
	q = openTest(t, dir, encrypted(1))
	if got := payloads(take(t, mustReader(t, q, "x"), 0, 9)); fmt.Sprint(got) != "[77]" {
		t.Errorf("got %v", got)
	}
}

// A crash at any step of a change of the master key leaves a queue that opens
// with the key that is in its place then, with all that was in it.
func TestRekeyCrash(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, encrypted(1))
	r := mustReader(t, q, "x")
	mustAppend(t, q, note(0, r), note(1, r))
	if err := q.SetState(Change{"b", "k", []byte("v")}); err != nil {
		t.Fatal(err)
	}
	q.Close()
	steps := map[string]map[string]string{"before": folder(t, dir)}
	crash := errors.New("crash")
	if err := Rekey(dir, testKey(1), testKey(2), func() error { steps["both"] = folder(t, dir); return crash }); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	if err := Rekey(dir, testKey(1), testKey(2), func() error { steps["both, again"] = folder(t, dir); return nil }); err != nil {
		t.Fatal(err)
	}
	steps["after"] = folder(t, dir)
	for step, keys := range map[string][2]bool{"before": {true, false}, "both": {true, true}, "both, again": {true, true}, "after": {false, true}} {
		for i, opens := range keys {
			files := steps[step]
			files["state.db.tmp"] = "half"
			checkRekeyed(t, putFolder(t, files), byte(i+1), opens, step)
		}
	}
	if dir := putFolder(t, steps["both"]); true { // the old one opens nothing once the new one was used
		openTest(t, dir, encrypted(2)).Close()
		checkRekeyed(t, dir, 1, false, "settled")
	}
}

func checkRekeyed(t *testing.T, dir string, n byte, opens bool, step string) {
	t.Helper()
	q, err := Open(dir, encrypted(n))
	if !opens {
		if !errors.Is(err, ErrKey) {
			t.Errorf("%s, key %d: %v", step, n, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s, key %d: %v", step, n, err)
		return
	}
	defer q.Close()
	r := mustReader(t, q, "x")
	mustAppend(t, q, note(2, r))
	if got := payloads(take(t, r, 0, 9)); fmt.Sprint(got) != "[0 1 2]" {
		t.Errorf("%s, key %d: messages %v", step, n, got)
	}
	got := ""
	if err := q.State("b", func(k string, v []byte) error { got += k + string(v); return nil }); err != nil || got != "kv" {
		t.Errorf("%s, key %d: state %q, %v", step, n, got, err)
	}
	if err := q.Check(); err != nil {
		t.Errorf("%s, key %d: %v", step, n, err)
	}
}

// After a change of keys what is written is written with new ones, and the old
// data key goes with the last segment that needs it.
func TestRekeyForgets(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, encrypted(1))
	mustAppend(t, q, note(0, mustReader(t, q, "x")))
	q.Close()
	for n := byte(1); n < 4; n++ {
		if err := Rekey(dir, testKey(n), testKey(n+1), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		q = openTest(t, dir, encrypted(n+1))
		r := mustReader(t, q, "x")
		mustAppend(t, q, note(int(n), r))
		if got := len(q.state.keys.ring.keys); got != int(n)+1 {
			t.Errorf("%d data keys after %d changes", got, n)
		}
		if got := len(take(t, r, 0, 9)); got != int(n)+1 {
			t.Errorf("%d messages after %d changes", got, n)
		}
		q.Close()
	}
	q = openTest(t, dir, encrypted(4))
	if err := mustReader(t, q, "x").Checkpoint(4); err != nil {
		t.Fatal(err)
	}
	q.keep(true)
	if got := len(q.state.keys.ring.keys); got != 1 {
		t.Errorf("%d data keys are left", got)
	}
	if err := Rekey(t.TempDir(), testKey(1), testKey(2), nil); err == nil {
		t.Error("a queue that is not there got another key")
	}
}

func TestTry(t *testing.T) {
	dir := t.TempDir()
	expect := func(want Fit, k Key) {
		t.Helper()
		if got, err := Try(dir, k); got != want || err != nil {
			t.Errorf("got %d, %v, want %d", got, err, want)
		}
	}
	expect(NoQueue, nil)
	openTest(t, dir, Config{}).Close()
	expect(FitsNothing, testKey(1))
	openTest(t, dir, encrypted(1)).Close()
	expect(FitsNot, nil)
	expect(FitsNot, testKey(2))
	expect(Fits, testKey(1))
	Rekey(dir, testKey(1), testKey(2), func() error { return errors.New("crash") })
	expect(FitsStill, testKey(1))
	expect(Fits, testKey(2))
}

func TestKeyIsNotShown(t *testing.T) {
	k := Key(bytes.Repeat([]byte{0x41}, keySize))
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%x %s %v %#v %d %q", k, k, k, k, k, k), fmt.Sprintf("%+v", Config{Key: k})} {
		if strings.Contains(s, "41") || strings.Contains(s, "AA") || strings.Contains(s, "65") {
			t.Error(s)
		}
	}
}

// A segment that is not encrypted is not taken for one that was.
func TestSmuggledSegment(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, encrypted(1))
	r := mustReader(t, q, "x")
	mustAppend(t, q, note(0, r))
	epoch, m := q.Epoch(), note(666, r)
	q.Close()
	if err := os.Remove(segmentPath(dir, 1)); err != nil {
		t.Fatal(err)
	}
	s, err := createSegment(dir, seal{epoch: epoch}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.openForWriting(0); err != nil {
		t.Fatal(err)
	}
	if err := s.commit(&wear{}, func(tx *bbolt.Tx) error { return tx.Bucket(bucketRecords).Put(key(1), sealed(&m, epoch, 1)) }); err != nil {
		t.Fatal(err)
	}
	s.close()
	expectNothing(t, dir)
}

// expectNothing opens a queue of which some messages are not what was written,
// and wants none of them.
func expectNothing(t *testing.T, dir string) {
	t.Helper()
	q, err := Open(dir, encrypted(1))
	if err != nil {
		return // also seen
	}
	defer q.Close()
	r := mustReader(t, q, "x")
	last := q.Stats().Last
	mustAppend(t, q, note(1, r))
	for _, m := range take(t, r, 0, 100) {
		if m.Seq <= last {
			t.Errorf("%d: %q came out", m.Seq, m.Payload)
		}
	}
}

// Of the last commit a power cut leaves any part, encrypted or not. That goes
// for the first commit with a new key as well.
func TestPowerCutEncrypted(t *testing.T) {
	const sector, before, last = 512, 20, 60
	dir := filepath.Join(t.TempDir(), "queue")
	q := openTest(t, dir, encrypted(1))
	r := mustReader(t, q, "x")
	for i := range before {
		mustAppend(t, q, note(i, r))
	}
	file := q.segments[0].path
	old := readFile(t, file)
	if err := commitOnce(q, before, last, r); err != nil {
		t.Fatal(err)
	}
	synced, files := readFile(t, file), folder(t, dir) // before Close notes anything
	q.Close()
	old = append(old, make([]byte, len(synced)-len(old))...)
	changed := changes(old, synced, sector)
	ends := map[uint64]int{}
	for round := range 60 {
		cut := bytes.Clone(old)
		for i, at := range changed {
			if round < len(changed) && i != round || round >= len(changed) && rand.IntN(4) > 0 {
				copy(cut[at:at+sector], synced[at:])
			}
		}
		files[filepath.Base(file)] = string(cut)
		q, err := Open(putFolder(t, files), encrypted(1))
		if err != nil {
			t.Fatal(err)
		}
		r := mustReader(t, q, "x")
		n := q.Stats().Last
		ends[n]++
		mustAppend(t, q, note(int(n), r)) // another plaintext at a sequence that was taken back
		for i, m := range take(t, r, 0, 100) {
			if string(m.Payload) != fmt.Sprint(i) {
				t.Errorf("message %d is %q", i, m.Payload)
			}
		}
		if err := errors.Join(q.Check(), q.Close()); err != nil {
			t.Error(err)
		}
	}
	if ends[before] == 0 || ends[before]+ends[before+last] != 60 {
		t.Errorf("ends: %v", ends)
	}
}
