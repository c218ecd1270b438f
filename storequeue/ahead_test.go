package storequeue

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// Readers of a log that is mostly for others find what is theirs, whether they
// keep up or stay behind.
func TestReadersAmongOthers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	q := openTest(t, t.TempDir(), Config{SegmentSize: 64 << 10})
	type place struct {
		r    *Reader
		all  []uint64 // its sequences
		from int      // in all, not acknowledged
	}
	var places []*place
	for i := range 3 {
		places = append(places, &place{r: mustReader(t, q, fmt.Sprint("r", i))})
	}
	next := uint64(1)
	for range 150 {
		var batch []Message
		for range rnd.IntN(80) {
			var readers []*Reader
			for i, p := range places {
				if rnd.IntN(5*i+2) == 0 {
					readers, p.all = append(readers, p.r), append(p.all, next)
				}
			}
			batch = append(batch, note(int(next), readers...))
			next++
		}
		mustAppend(t, q, batch...)
		p := places[rnd.IntN(len(places))]
		at := p.from + rnd.IntN(len(p.all)-p.from+1)
		after := p.r.Acked()
		if at > p.from {
			after = p.all[at-1]
		}
		limit := 1 + rnd.IntN(100)
		var got []uint64
		for _, m := range take(t, p.r, after, limit) {
			got = append(got, m.Seq)
		}
		if want := p.all[at:min(len(p.all), at+limit)]; !slices.Equal(got, want) {
			t.Fatalf("%s after %d: %v, want %v", p.r.Name(), after, got, want)
		}
		if n := len(got); n > 0 && rnd.IntN(2) == 0 {
			p.from = at + 1 + rnd.IntN(n)
			p.r.Ack(p.all[p.from-1])
		}
	}
}

// A reader that keeps up does not look at what is for others, damaged or not;
// its own it does miss.
func TestReaderLeavesOthersAlone(t *testing.T) {
	q, err := Open(t.TempDir(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	mine, other := mustReader(t, q, "mine"), mustReader(t, q, "other")
	for n := range 4 { // one by one, or they would be a bundle
		mustAppend(t, q, note(n, []*Reader{other, mine}[n%2]))
	}
	s := q.segments[0]
	damage := func(seq uint64) {
		t.Helper()
		err := s.commit(&wear{}, func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketRecords)
			bad := bytes.Clone(b.Get(key(seq)))
			bad[len(bad)-sumSize-1] ^= 1
			return b.Put(key(seq), bad)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	damage(1)
	damage(3)
	if msgs := take(t, mine, 0, 10); len(msgs) != 2 || q.Stats().Damaged != 0 {
		t.Errorf("%d messages, %d damaged ones seen", len(msgs), q.Stats().Damaged)
	}
	damage(2)
	if msgs := take(t, mine, 0, 10); len(msgs) != 1 || msgs[0].Seq != 4 || q.Stats().Damaged != 1 {
		t.Errorf("%d messages, %d damaged ones seen", len(msgs), q.Stats().Damaged)
	}
}
