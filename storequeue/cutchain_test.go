package storequeue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Power cut after power cut on one log, in commits, in seals and in the first
// commits of new segments: what was synced stays, in order; the rest is there
// or not. CUT_SEED in the environment repeats a run that failed.
func TestPowerCutChain(t *testing.T) {
	long := 2 * time.Second
	if os.Getenv("PROVE") != "" {
		long = 5 * time.Minute
	}
	cuts, whole := 0, 0
	for until := time.Now().Add(long); time.Now().Before(until) && !t.Failed(); {
		seed := rand.Uint64()
		fmt.Sscan(os.Getenv("CUT_SEED"), &seed)
		c := &cutChain{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), dir: filepath.Join(t.TempDir(), "queue"), tried: map[string]int{}}
		for range 40 {
			c.open()
			if t.Failed() {
				t.Fatalf("CUT_SEED=%d", seed)
			}
			for range c.rnd.IntN(4) {
				c.commit()
			}
			c.cut()
		}
		cuts, whole = cuts+c.cuts, whole+c.whole
		os.RemoveAll(c.dir)
	}
	t.Logf("%d cuts, %d of them with everything on disk", cuts, whole)
}

// A cutChain is one log and what must be in it.
type cutChain struct {
	t      *testing.T
	rnd    *rand.Rand
	dir    string
	q      *Queue
	r      *Reader
	synced []string       // payloads, by sequence-1
	tried  map[string]int // payload → sequence at which it was ever written

	cuts, whole int
}

// open looks whether all that was synced is there, and takes for synced what
// else is.
func (c *cutChain) open() {
	q, err := Open(c.dir, Config{SegmentSize: 100 << 10})
	if err != nil {
		c.t.Fatal(err)
	}
	c.q, c.r = q, mustReader(c.t, q, "x")
	if err := q.Check(); err != nil {
		c.t.Error(err)
	}
	var found []string
	for after := uint64(0); ; {
		msgs, err := c.r.Poll(after, 1000)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(msgs) == 0 {
			break
		}
		for _, m := range msgs {
			found = append(found, string(m.Payload))
			after = m.Seq
		}
	}
	switch last := int(q.Stats().Last); {
	case last != len(found):
		c.t.Errorf("the log ends at %d, with %d messages", last, len(found))
	case last < len(c.synced) || !slices.Equal(found[:len(c.synced)], c.synced):
		c.t.Errorf("of %d synced messages %d are there, or others", len(c.synced), last)
	}
	for i, p := range found {
		if c.tried[p] != i+1 {
			c.t.Errorf("message %d was never written there", i+1)
		}
	}
	c.synced = found
}

// message is one that has never been, for the sequence.
func (c *cutChain) message(seq int) Message {
	m := note(0, c.r)
	size := c.rnd.IntN(200)
	if c.rnd.IntN(8) == 0 {
		size = c.rnd.IntN(12000)
	}
	m.Payload = append(fmt.Appendf(nil, "%d.%d.", c.rnd.Uint64(), seq), make([]byte, size)...)
	c.tried[string(m.Payload)] = seq
	return m
}

// commit is one that ends well.
func (c *cutChain) commit() {
	var all []Message
	for range 1 + c.rnd.IntN(60) {
		m := c.message(len(c.synced) + 1)
		c.synced = append(c.synced, string(m.Payload))
		all = append(all, m)
	}
	mustAppend(c.t, c.q, all...)
}

// cut begins a commit, or a seal, of which any part reaches the disk.
func (c *cutChain) cut() {
	s, err := c.q.activeSegment() // may seal and rotate
	if err != nil {
		c.t.Fatal(err)
	}
	before := readFile(c.t, s.path)
	var begun []string
	if c.rnd.IntN(6) == 0 && s.last >= s.first {
		err = c.q.seal(s)
	} else {
		var b batch
		for i := range 1 + c.rnd.IntN(c.rnd.IntN(400)+1) {
			m := c.message(len(c.synced) + 1 + i)
			b.add(&m, nil)
			begun = append(begun, string(m.Payload))
		}
		err = c.q.write(s, &b, uint64(len(c.synced)+1))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	after := readFile(c.t, s.path)
	c.q.filling.close()
	close(c.q.stop)
	c.q.done.Wait()
	c.q.closeFiles()
	c.cuts++
	if c.tear(s.path, before, after) {
		c.whole++
		c.synced = append(c.synced, begun...) // must not be taken back
	}
}

// tear writes a file of which any changed pieces arrived, and tells whether all
// did.
func (c *cutChain) tear(path string, before, after []byte) (whole bool) {
	before = append(before, make([]byte, len(after)-len(before))...) // it grew before the commit
	piece := []int{512, 4096}[c.rnd.IntN(2)]
	chance, metaOnly := c.rnd.IntN(5), c.rnd.IntN(4) == 0
	whole = true
	for _, at := range changes(before, after, piece) {
		arrives := c.rnd.IntN(4) < chance
		if metaOnly {
			arrives = at < 8192 || c.rnd.IntN(8) == 0
		}
		if arrives {
			copy(before[at:at+piece], after[at:])
		}
		whole = whole && arrives
	}
	if err := os.WriteFile(path, before, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return whole
}
