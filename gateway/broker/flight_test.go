package broker

import (
	"math/rand/v2"
	"slices"
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

func TestPacketIDs(t *testing.T) {
	for seq, want := range map[uint64]uint16{1: 2, 65533: 65534, 65534: 65535, 65535: 1, 65536: 2, 2 * 65535: 1} {
		if got := packetID(seq); got != want {
			t.Errorf("message %d has packet id %d, want %d", seq, got, want)
		}
	}
}

func TestRecordedIsTrimmed(t *testing.T) {
	var f flight
	for _, seq := range []uint64{5, 3, 9, 5} {
		f.record(seq)
	}
	if !slices.Equal(f.recorded, []uint64{3, 5, 9}) {
		t.Fatalf("recorded %v", f.recorded)
	}
	f.trim(5)
	if f.isRecorded(5) || !f.isRecorded(9) || len(f.recorded) != 1 {
		t.Errorf("recorded %v", f.recorded)
	}
}
