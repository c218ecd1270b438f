package storequeue

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Whatever happens to one of its files, or to two that are mixed up: the queue
// opens, nothing comes out that was not written there, what is lost lies in
// what was hit, and is announced exactly when something is. ROT_SEED in the
// environment repeats a round that failed.
func TestRot(t *testing.T) { rot(t, 200, Config{}) }

func TestRotEncrypted(t *testing.T) { rot(t, 100, Config{Encrypt: true, Key: cutKey(1)}) }

func rot(t *testing.T, rounds int, cfg Config) {
	if os.Getenv("PROVE") != "" {
		rounds *= 100
	}
	fmt.Sscan(os.Getenv("ROT_ROUNDS"), &rounds)
	cfg.SegmentSize = rotSegment
	healthy := newRotten(t, cfg, 6)
	foreign := newRotten(t, cfg, 3)
	var mu sync.Mutex // covers the counts
	hit, lost, lossless := map[string]int{}, 0, 0
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for range rounds / 2 {
				seed := rand.Uint64()
				fmt.Sscan(os.Getenv("ROT_SEED"), &seed)
				r := healthy.damaged(t, rand.New(rand.NewPCG(seed, 1)), foreign)
				n := r.check()
				if t.Failed() {
					t.Errorf("ROT_SEED=%d: %s", seed, r.what)
					return
				}
				mu.Lock()
				hit[r.kind]++
				lost += n
				if n == 0 {
					lossless++
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	for _, kind := range slices.Sorted(maps.Keys(hit)) {
		t.Logf("%6d %s", hit[kind], kind)
	}
	t.Logf("%d damages, %d of them without loss, %d messages lost of %d a time", rounds, lossless, lost, healthy.last)
}

// A rotten is the files of a closed queue and what was written to it.
type rotten struct {
	t     *testing.T
	cfg   Config
	files map[string][]byte
	wrote map[uint64]string          // payloads by sequence
	waits map[string]map[uint64]bool // what each reader is to get
	first map[string]uint64          // of each segment
	ends  map[string]uint64
	acked map[string]uint64
	last  uint64
	rnd   *rand.Rand
	older []byte // the newest segment as it was before

	kind, what string          // the damage
	struck     map[string]bool // files
}

const (
	rotSegment = 48 << 10
	rotPage    = 4096
)

func newRotten(t *testing.T, cfg Config, segments int) *rotten {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "queue")
	q := openTest(t, dir, cfg)
	g := &rotten{t: t, cfg: cfg, rnd: rand.New(rand.NewPCG(7, uint64(segments))), wrote: map[uint64]string{}, waits: map[string]map[uint64]bool{}, first: map[string]uint64{}, ends: map[string]uint64{}}
	readers := []*Reader{mustReader(t, q, "all"), mustReader(t, q, "half"), mustReader(t, q, "thirds")}
	for _, r := range readers {
		g.waits[r.name] = map[uint64]bool{}
	}
	for len(q.segments) < segments {
		g.write(q, readers, 1+g.rnd.IntN(60))
	}
	for range 5 {
		g.write(q, readers, 1+g.rnd.IntN(20))
		if g.older == nil {
			g.older = readFile(t, q.segments[len(q.segments)-1].path)
		}
	}
	g.acked = map[string]uint64{"half": g.last / 2, "thirds": g.last / 3}
	for _, r := range readers {
		r.Ack(g.acked[r.name])
		for seq := range g.waits[r.name] {
			if seq <= g.acked[r.name] {
				delete(g.waits[r.name], seq)
			}
		}
	}
	if err := q.SetState(Change{"facts", "a", []byte("one")}, Change{"facts", "b", bytes.Repeat([]byte("two"), 3000)}); err != nil {
		t.Fatal(err)
	}
	for _, s := range q.segments {
		g.first[filepath.Base(s.path)], g.ends[filepath.Base(s.path)] = s.first, s.last
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	g.files = map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f := openFile(t, filepath.Join(dir, e.Name()))
		m := readMetas(f)[0]
		f.Close()
		g.files[e.Name()] = readFile(t, filepath.Join(dir, e.Name()))[:int64(m.end)*m.pageSize] // the rest is room to grow
	}
	return g
}

// write commits some messages together. Every one is for the reader all.
func (g *rotten) write(q *Queue, readers []*Reader, n int) {
	var some []Message
	for range n {
		g.last++
		m := note(0, readers[0])
		for i, r := range readers {
			if i > 0 && g.last%uint64(i+1) == 0 {
				m.For = append(m.For, Mark{Reader: r.ID(), QoS: 1})
			}
		}
		for _, mark := range m.For {
			for _, r := range readers {
				if r.ID() == mark.Reader {
					g.waits[r.name][g.last] = true
				}
			}
		}
		size := g.rnd.IntN(80)
		if g.rnd.IntN(60) == 0 {
			size = g.rnd.IntN(9000)
		}
		m.Payload = append(fmt.Appendf(nil, "%d.%d.", g.last, q.Epoch()), make([]byte, size)...)
		g.wrote[g.last] = string(m.Payload)
		some = append(some, m)
	}
	mustAppend(g.t, q, some...)
}

// damaged is a copy to which something happened.
func (g *rotten) damaged(t *testing.T, rnd *rand.Rand, foreign *rotten) *rotten {
	d := *g
	d.t, d.files, d.struck = t, maps.Clone(g.files), map[string]bool{}
	names := slices.Sorted(maps.Keys(d.files))
	segments := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, segmentPrefix) })
	name := names[rnd.IntN(len(names))]
	other := segments[rnd.IntN(len(segments))]
	b := bytes.Clone(d.files[name])
	at := rnd.IntN(len(b)/rotPage) * rotPage
	switch rnd.IntN(12) {
	default:
		from := d.files[other]
		if rnd.IntN(2) == 0 {
			from = foreign.files[foreign.newest()]
		}
		b = d.damage(rnd, b, at, from)
	case 10:
		d.kind = "segments swapped"
		name = segments[rnd.IntN(len(segments))]
		b = bytes.Clone(d.files[other])
		d.files[other] = d.files[name]
		d.struck[other] = true
	case 11:
		d.kind = "older or another's segment"
		name = segments[rnd.IntN(len(segments))]
		b = bytes.Clone(foreign.files[foreign.newest()])
		if rnd.IntN(2) == 0 {
			name, b = d.newest(), bytes.Clone(d.older)
		}
	}
	d.files[name], d.struck[name] = b, true
	d.what = fmt.Sprintf("%s in %s at %d", d.kind, strings.Join(slices.Sorted(maps.Keys(d.struck)), " and "), at)
	return &d
}

// damage does something to the page at a place in b, or from it on.
func (g *rotten) damage(rnd *rand.Rand, b []byte, at int, from []byte) []byte {
	switch rnd.IntN(10) {
	case 0, 1, 2:
		g.kind = "bits flipped"
		for range 1 + rnd.IntN(3)*rnd.IntN(9) {
			b[at+rnd.IntN(rotPage)] ^= 1 << rnd.IntN(8)
		}
	case 3:
		g.kind = "page header damaged"
		b[at+rnd.IntN(64)] ^= byte(1 + rnd.IntN(255))
	case 4, 5:
		g.kind = "page zeroed"
		clear(b[at : at+rotPage])
	case 6:
		g.kind = "sector zeroed"
		at += rnd.IntN(8) * 512
		clear(b[at : at+512])
	case 7:
		g.kind = "cut short"
		at = rnd.IntN(len(b))
		b = b[:at]
	case 8:
		g.kind = "pages swapped"
		to := rnd.IntN(len(b)/rotPage) * rotPage
		kept := bytes.Clone(b[at : at+rotPage])
		copy(b[at:], b[to:to+rotPage])
		copy(b[to:], kept)
	case 9:
		g.kind = "page of another file"
		from = from[min(at, len(from)/rotPage*rotPage-rotPage):]
		copy(b[at:at+rotPage], from)
	}
	return b
}

func (g *rotten) newest() string {
	names := slices.Sorted(maps.Keys(g.first))
	return names[len(names)-1]
}

// check opens the queue, twice, and returns how many messages are lost.
func (g *rotten) check() (lost int) {
	t := g.t
	at := "/dev/shm" // syncs are not what this is about
	if _, err := os.Stat(at); err != nil {
		at = ""
	}
	dir, err := os.MkdirTemp(at, "rot")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, b := range g.files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var told []Loss
	cfg := g.cfg
	cfg.MustExist, cfg.Lost = true, func(l Loss) { told = append(told, l) }
	q, err := Open(dir, cfg)
	if err != nil {
		t.Error(err)
		return 0
	}
	g.facts(q)
	missing := g.read(q)
	for _, seqs := range missing {
		lost = max(lost, len(seqs))
	}
	g.announced(missing, told)
	r := mustReader(t, q, "all")
	mustAppend(t, q, note(7, r))
	if end := q.Stats().Last; end <= g.last {
		t.Errorf("sequence %d was given twice", end)
	}
	if err := q.Check(); err != nil {
		t.Error(err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	before := len(told)
	q, err = Open(dir, cfg)
	if err != nil {
		t.Errorf("the second time: %v", err)
		return lost
	}
	g.read(q)
	if err := q.Check(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	if len(told) != before {
		t.Errorf("told again: %v", told[before:])
	}
	q.Close()
	return lost
}

// facts wants what callers keep in state.db to be as it was.
func (g *rotten) facts(q *Queue) {
	n := 0
	err := q.State("facts", func(k string, v []byte) error {
		n++
		if want := map[string]string{"a": "one", "b": strings.Repeat("two", 3000)}[k]; want != string(v) {
			g.t.Errorf("fact %s is %.20q", k, v)
		}
		return nil
	})
	if err != nil || n != 2 {
		g.t.Errorf("%d facts: %v", n, err)
	}
}

// read returns what of that which waits for each reader does not come.
func (g *rotten) read(q *Queue) map[string][]uint64 {
	missing := map[string][]uint64{}
	for name, waits := range g.waits {
		r := q.names[name]
		if r == nil {
			g.t.Errorf("reader %s is not there", name)
			continue
		}
		got := map[uint64]bool{}
		for after := r.Acked(); ; {
			msgs, err := r.Poll(after, 100)
			if err != nil {
				g.t.Error(err)
				break
			}
			if len(msgs) == 0 {
				break
			}
			for _, m := range msgs {
				if m.Seq <= after || m.Seq <= g.last && g.wrote[m.Seq] != string(m.Payload) {
					g.t.Errorf("%s: message %d behind %d is %.20q", name, m.Seq, after, m.Payload)
				}
				after = m.Seq
				got[m.Seq] = true
			}
		}
		for seq := range waits {
			if !got[seq] {
				missing[name] = append(missing[name], seq)
			}
		}
	}
	return missing
}

// announced compares what is missing with what was told.
func (g *rotten) announced(missing map[string][]uint64, told []Loss) {
	named, unnamed := map[string]uint64{}, uint64(0)
	for _, l := range told {
		switch {
		case l.Reason == ReasonState && g.struck[stateFile]:
		case l.Reason != ReasonDamaged || l.Count == 0:
			g.t.Errorf("told %+v", l)
		case l.Reader == "":
			unnamed += l.Count
		default:
			named[l.Reader] += l.Count
		}
	}
	for name, n := range named {
		if missing[name] == nil && !g.inStruck(g.acked[name]) {
			g.t.Errorf("nothing for %s is lost, told were %d", name, n)
		}
	}
	for name, seqs := range missing {
		within := g.inStruck(g.acked[name]) // whether what is lost lay before the cursor or behind it nobody can say
		if n := uint64(len(seqs)); n > unnamed+named[name] || named[name] > n && !within {
			g.t.Errorf("%d messages for %s are lost, told were %d, and %d for nobody", n, name, named[name], unnamed)
		}
		for _, seq := range seqs {
			if !g.inStruck(seq) {
				g.t.Errorf("message %d lies in what was not hit", seq)
				return
			}
		}
	}
	if n := uint64(len(missing["all"])); unnamed+named["all"] != n { // which is to get everything
		g.t.Errorf("%d messages are lost, told were %d and %d", n, named["all"], unnamed)
	}
}

func (g *rotten) inStruck(seq uint64) bool {
	for name := range g.struck {
		if first, ok := g.first[name]; ok && seq >= first && seq <= g.ends[name] {
			return true
		}
	}
	return false
}
