package modbus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// While a line is busy, those who wait are put in order.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, BusConfig{URL: "tcp://nobody"})
		held, err := b.take(t.Context(), &turn{unit: 1})
		if err != nil {
			t.Fatal(err)
		}
		gone, leave := context.WithCancel(t.Context())
		now := time.Now()
		var order []string
		var waiting sync.WaitGroup
		for _, w := range []struct {
			name string
			turn turn
		}{
			{"scan", turn{rank: toScan, unit: 1}},
			{"late poll", turn{rank: toPoll, unit: 2, deadline: now.Add(2 * time.Second)}},
			{"doubtful poll", turn{rank: toProbe, unit: 5, deadline: now}},
			{"poll long overdue", turn{rank: toProbe, unit: 5, deadline: now.Add(-time.Minute)}},
			{"given up", turn{rank: toWrite, unit: 2}},
			{"early poll", turn{rank: toPoll, unit: 3, deadline: now.Add(time.Second)}},
			{"read", turn{rank: toRead, unit: 3}},
			{"next read", turn{rank: toRead, unit: 3}},
			{"write", turn{rank: toWrite, unit: 3}},
			{"write to a unit that may still answer", turn{rank: toWrite, unit: 9}},
		} {
			ctx := t.Context()
			if w.name == "given up" {
				ctx = gone
			}
			waiting.Go(func() {
				l, err := b.take(ctx, &w.turn)
				if err != nil {
					return
				}
				order = append(order, w.name)
				time.Sleep(10 * time.Millisecond)
				b.release(l)
			})
			synctest.Wait()
		}
		held.owing[9] = now.Add(45 * time.Millisecond)
		leave()
		synctest.Wait()
		b.release(held)
		waiting.Wait()
		want := []string{"write", "read", "next read", "poll long overdue", "early poll", "write to a unit that may still answer", "late poll", "doubtful poll", "scan"}
		if !slices.Equal(order, want) {
			t.Errorf("got %q, want %q", order, want)
		}
		if len(b.idle) != 1 || len(b.waiting) != 0 {
			t.Errorf("%d lines idle, %d waiting", len(b.idle), len(b.waiting))
		}
	})
}

// Those that were granted at the moment they gave up put the line back.
func TestTurnsGivenUpInTime(t *testing.T) {
	b := newBus(t, BusConfig{URL: "tcp://nobody"})
	var users atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i*n)%40)*time.Microsecond)
				if l, err := b.take(ctx, &turn{rank: rank(n % 5), unit: i}); err == nil {
					if users.Add(1) > 1 {
						t.Error("two have the only line")
					}
					users.Add(-1)
					b.release(l)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if len(b.idle) != 1 || len(b.waiting) != 0 {
		t.Errorf("%d lines idle, %d waiting", len(b.idle), len(b.waiting))
	}
}

func TestSpreadLeavesNoCrowd(t *testing.T) {
	for _, n := range []int{2, 10, 50, 200} {
		var places []time.Duration
		for i := range n {
			places = append(places, spread(uint32(i), time.Second))
		}
		slices.Sort(places)
		for i := range places[1:] {
			if gap := places[i+1] - places[i]; gap < time.Second/time.Duration(3*n) {
				t.Errorf("%d groups: two are %v apart", n, gap)
			}
		}
	}
}

// The clock on the wall decides, also when it was set.
func TestWallBeat(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.DateTime, "2026-01-02 "+text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		phase     time.Duration
		due, now  string
		next      string
		missed    int
		startedAt string
	}{
		{0, "10:07:30", "10:07:30", "10:15:00", 0, ""},
		{0, "10:15:00", "10:15:01", "10:30:00", 0, ""},
		{time.Minute, "10:15:00", "10:15:01", "10:16:00", 0, ""},
		{0, "10:15:00", "11:00:00", "11:15:00", 3, ""},
		{0, "10:15:00", "11:10:00", "11:15:00", 3, ""},
	} {
		b := beat{interval: 15 * time.Minute, phase: tt.phase, wall: true, due: at(tt.due)}
		if _, missed := b.advance(at(tt.now)); !b.due.Equal(at(tt.next)) || missed != tt.missed {
			t.Errorf("%+v: next %v after %d missed", tt, b.due, missed)
		}
	}
}

// outcome is what the polls of one unit gave.
type outcome struct{ good, bad, missed int }

func pollFor(t *testing.T, s southbound.Session, d time.Duration) (o outcome) {
	for start := time.Now(); time.Since(start) < d; {
		b, err := s.Read(t.Context())
		if err != nil {
			t.Error(err)
			return o
		}
		o.missed += b.Missed
		if b.Readings[0].Quality == southbound.Good {
			o.good++
		} else {
			o.bad++
		}
	}
	return o
}

// Ten units that do not answer have their share of the time and no more, however
// often they are to be polled.
func TestDeadUnitsHaveTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const units, dead = 20, 10
		silent := 0
		b := pipeBus(t, func(unit byte, _ int) time.Duration {
			if unit <= dead {
				silent++
				return -1
			}
			return time.Millisecond
		})
		var all sync.WaitGroup
		var living [units + 1]outcome
		for unit := byte(1); unit <= units; unit++ {
			s := openSession(t, b, registersAt(unit, 5*time.Second, 5))
			all.Go(func() { living[unit] = pollFor(t, s, time.Hour) })
		}
		all.Wait()
		for unit := dead + 1; unit <= units; unit++ {
			if o := living[unit]; o.bad > 0 || o.good < 717 || o.missed > 3 { // all ten are found dead in the first cycle
				t.Errorf("unit %d: %+v", unit, o)
			}
		}
		if share := float64(silent) * b.cfg.ResponseTimeout.Seconds() / 3600; share > 0.11 || silent < 100 {
			t.Errorf("%d requests to dead units, %.0f %% of the time", silent, 100*share)
		}
		if n := b.Stats().Silent; n != dead {
			t.Errorf("%d units count as silent", n)
		}
	})
}

// When nothing answers any more and then something does, all are asked at once:
// it was the cable.
func TestAllUnitsComeBackTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const out, back = time.Minute, 20 * time.Minute
		b := pipeBus(t, func(byte, int) time.Duration {
			if d := time.Since(start); d > out && d < back {
				return -1
			}
			return time.Millisecond
		})
		var all sync.WaitGroup
		for unit := byte(1); unit <= 10; unit++ {
			s := openSession(t, b, registersAt(unit, time.Second, 5))
			all.Go(func() {
				for time.Since(start) < back {
					_, _ = s.Read(t.Context()) // of a session that ends with a connection
				}
				for {
					batch, err := s.Read(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if batch.Readings[0].Quality == southbound.Good {
						break
					}
				}
				if took := time.Since(start) - back; took > 10*time.Second {
					t.Errorf("unit %d is back after %v", unit, took)
				}
			})
		}
		all.Wait()
	})
}

// A request that got no answer is repeated once, if the unit is one that answers.
func TestRetries(t *testing.T) {
	p := startPeer(t, lateOnce(1))
	cfg := registersAt(1, time.Millisecond, 5)
	cfg.Retries = 0
	s := openSession(t, p.bus(t, short), cfg)
	for poll := range 4 {
		if got := qualities(t, s, 1); got[0] != southbound.Good {
			t.Errorf("poll %d: %v", poll, got)
		}
	}
	if got := p.requests.Load(); got != 5 {
		t.Errorf("%d requests, want 5", got)
	}
}

// What lies between tags and is refused is found once, for all sessions and ready
// for the configuration.
func TestHolesAreLearned(t *testing.T) {
	p := startPeer(t, refusing(2, 5, 25, 26))
	a, err := p.bus(t, patient).adapter(registersAt(1, time.Millisecond, 0, 3, 8, 12, 20, 30, 31))
	if err != nil {
		t.Fatal(err)
	}
	for session := range 2 {
		s, err := a.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := p.requests.Load()
		for range 4 {
			for _, q := range qualities(t, s, 1) {
				if q != southbound.Good {
					t.Errorf("session %d: %s", session, q)
				}
			}
		}
		before, now := p.requests.Load(), before
		if session == 1 && before-now != 4*3 {
			t.Errorf("%d requests for 4 polls around two holes, want 12", before-now)
		}
	}
	if got := fmt.Sprint(a.Holes()); got != "[{holding 4 7} {holding 21 29}]" {
		t.Errorf("holes %s", got)
	}
}
