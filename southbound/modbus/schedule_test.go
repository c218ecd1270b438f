package modbus

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// pipeBus is a bus to a peer in the same bubble of time. serve says how long a
// unit takes to answer its n-th request; below zero it does not answer.
func pipeBus(t *testing.T, serve func(unit byte, n int) time.Duration) *Bus {
	t.Helper()
	var serving sync.WaitGroup
	var mu sync.Mutex // covers asked and what serve uses: a connection may follow another
	asked := make(map[byte]int)
	dial := func(context.Context, string) (net.Conn, error) {
		near, far := net.Pipe()
		serving.Go(func() {
			defer far.Close()
			for {
				request, err := readRequest(far)
				if err != nil {
					return
				}
				mu.Lock()
				delay := serve(request[6], asked[request[6]])
				asked[request[6]]++
				mu.Unlock()
				if delay < 0 {
					continue
				}
				<-time.NewTimer(delay).C
				if honest(far, 0, 0, request) != nil {
					return
				}
			}
		})
		return near, nil
	}
	b := newBus(t, BusConfig{URL: "tcp://pipe", Dial: dial})
	t.Cleanup(func() {
		_ = b.Close()
		serving.Wait()
	})
	return b
}

// The beat of a group is start + n*interval, whatever the polls take.
func TestScheduleDoesNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 100 * time.Millisecond
		b := pipeBus(t, func(_ byte, n int) time.Duration { return time.Duration(n%70) * time.Millisecond })
		s := openSession(t, b, registersAt(1, interval, 5))
		start := time.Now()
		for n := range 36_000 { // an hour
			batch, err := s.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			took := time.Duration(n%70) * time.Millisecond
			if want := start.Add(time.Duration(n)*interval + took); !batch.Time.Equal(want) {
				t.Fatalf("poll %d at %v, want %v", n, batch.Time.Sub(start), want.Sub(start))
			}
		}
		if got := b.Stats().Overruns; got != 0 {
			t.Errorf("%d overruns", got)
		}
	})
}

// A poll that takes too long makes the group miss beats, not change them.
func TestOverrunIsSkippedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 100 * time.Millisecond
		b := pipeBus(t, func(_ byte, n int) time.Duration {
			if n == 2 {
				return 350 * time.Millisecond
			}
			return 0
		})
		s := openSession(t, b, registersAt(1, interval, 5))
		start := time.Now()
		want := []time.Duration{0, 100, 550, 550, 600, 700} // the third is due at 200
		for n, ms := range want {
			batch, err := s.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := batch.Time.Sub(start); got != ms*time.Millisecond {
				t.Errorf("poll %d came after %v, want %v", n, got, ms*time.Millisecond)
			}
		}
		if got := b.Stats().Overruns; got != 2 {
			t.Errorf("%d overruns, want 2", got)
		}
	})
}

func TestGroupsKeepTheirOwnBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pipeBus(t, func(byte, int) time.Duration { return time.Millisecond })
		cfg := registersAt(1, time.Second, 5)
		cfg.Groups = append(cfg.Groups, Group{Name: "slow", Interval: 10 * time.Second})
		cfg.Tags = append(cfg.Tags, Tag{Name: "6", Group: "slow", Table: Input, Address: 6, Type: "uint16"})
		s := openSession(t, b, cfg)
		polls := make(map[string]int)
		for start := time.Now(); time.Since(start) < time.Minute-time.Second/2; {
			batch, err := s.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			polls[batch.Group]++
		}
		if polls["g"] != 61 || polls["slow"] != 7 { // the second group at 0 s and then at 6.18 s + n*10 s
			t.Errorf("polls in a minute: %v", polls)
		}
	})
}

// A unit that is dead for ten minutes is asked rarely, makes its neighbour wait
// for one timeout at most, and is good again within the longest backoff.
func TestDeadUnitDoesNotStallTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const dead, alive = 2, 1
		start := time.Now()
		const outage = 10 * time.Minute
		requests := 0
		b := pipeBus(t, func(unit byte, _ int) time.Duration {
			if unit == dead && time.Since(start) < outage {
				requests++
				return -1
			}
			return time.Millisecond
		})
		living := openSession(t, b, registersAt(alive, time.Second, 5))
		s := openSession(t, b, registersAt(dead, time.Second, 5, 200))
		var neighbour sync.WaitGroup
		neighbour.Go(func() {
			for n := range 600 {
				batch, err := living.Read(t.Context())
				if err != nil || batch.Readings[0].Quality != southbound.Good {
					t.Errorf("poll %d of the living unit: %+v, %v", n, batch, err)
					return
				}
				if late := batch.Time.Sub(start) - time.Duration(n)*time.Second; late > time.Second+5*time.Millisecond {
					t.Errorf("poll %d of the living unit is %v late", n, late)
				}
			}
		})
		for {
			q := qualities(t, s, dead)
			if q[0] == southbound.Good {
				break
			}
			if q[0] != q[1] || q[0] != southbound.BadTimeout && q[0] != southbound.BadOffline {
				t.Fatalf("qualities %v of a dead unit", q)
			}
		}
		neighbour.Wait()
		if back := time.Since(start) - outage; back > 62*time.Second {
			t.Errorf("the unit was good %v after it came back", back)
		}
		if requests < 8 || requests > 30 {
			t.Errorf("%d requests to a unit dead for %v", requests, outage)
		}
	})
}

func TestCloseInterruptsTheWaitForTheNextPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openSession(t, pipeBus(t, func(byte, int) time.Duration { return 0 }), registersAt(1, time.Hour, 5))
		qualities(t, s, 1)
		start := time.Now()
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := s.Read(t.Context()); err == nil {
				t.Error("read after close")
			}
		})
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		waiting.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("close took %v to be noticed", took)
		}
	})
}

// What a device refused is asked for again after a minute.
func TestRefusedAddressIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := newBus(t, BusConfig{URL: "tcp://pipe", Dial: func(context.Context, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { // until the bus closes the other end
				refuse := refusing(2, 5)
				for {
					request, err := readRequest(far)
					if err != nil {
						return
					}
					if time.Since(start) > refusedRetry/2 {
						refuse = honest
					}
					if refuse(far, 0, 0, request) != nil {
						return
					}
				}
			}()
			return near, nil
		}})
		defer b.Close()
		s := openSession(t, b, registersAt(1, time.Second, 5))
		for qualities(t, s, 1)[0] == southbound.BadAddress {
		}
		if took := time.Since(start); took != refusedRetry {
			t.Errorf("good again after %v", took)
		}
	})
}

func TestGapAndPauseAfterConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pipeBus(t, func(byte, int) time.Duration { return 0 })
		b.cfg.Gap, b.cfg.PauseAfterConnect = 20*time.Millisecond, 300*time.Millisecond
		start := time.Now()
		for range 4 {
			expect(t, b, 1, 0, 1)
		}
		if took := time.Since(start); took != 360*time.Millisecond {
			t.Errorf("four reads took %v", took)
		}
	})
}
