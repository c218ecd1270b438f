package broker

import (
	"math/rand/v2"
	"testing"
)

// TestFlightModel sends, acknowledges and reconnects at random and compares
// with a plain list of what was finished.
func TestFlightModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var f flight
		done := map[uint64]bool{}
		var seq, acked uint64
		settle := func() {
			if to, ok := f.settle(); ok {
				for s := acked + 1; s <= to; s++ {
					if !done[s] {
						t.Fatalf("seed %d: settled %d while %d is open", seed, to, s)
					}
				}
				acked = to
			}
		}
		for range 300 {
			switch rnd.IntN(5) {
			case 0:
				seq++
				f.skip(seq)
				done[seq] = true
			case 1, 2:
				seq++
				f.transmit(f.begin(seq, 1))
			case 3:
				if n := len(f.items); n > 0 {
					if it := &f.items[rnd.IntN(n)]; it.stage != finished {
						done[it.seq] = true
						f.finish(it)
					}
				}
			case 4:
				f.resume()
				for s := acked + 1; s <= seq; s++ {
					it, isNew := f.find(s)
					if isNew || (it == nil) != done[s] {
						t.Fatalf("seed %d: find(%d) = %v, %v; finished: %v", seed, s, it, isNew, done[s])
					}
					if it != nil && rnd.IntN(2) == 0 {
						f.transmit(it)
					}
				}
			}
			settle()
			checkFlight(t, &f)
		}
	}
}

func checkFlight(t *testing.T, f *flight) {
	t.Helper()
	open := 0
	ids := map[uint16]bool{}
	for i, it := range f.items {
		if i > 0 && (it.seq <= f.items[i-1].seq || it.stage == finished && f.items[i-1].stage == finished) {
			t.Fatalf("items %+v", f.items)
		}
		if it.stage == finished {
			continue
		}
		if it.id == 0 || ids[it.id] {
			t.Fatalf("packet id %d twice or zero", it.id)
		}
		ids[it.id] = true
		if it.sent {
			open++
		}
	}
	if open != f.open {
		t.Fatalf("%d are open, counted %d", open, f.open)
	}
}

func TestPacketIDsWrap(t *testing.T) {
	f := flight{lastID: 65534}
	f.begin(1, 1)
	f.begin(2, 1)
	f.lastID = 65534
	if id := f.begin(3, 1).id; id != 2 {
		t.Errorf("got %d: 65535 and 1 are taken, 0 is none", id)
	}
}
