package modbus_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// A crowd is units on one bus: the first dead of them do not answer, and the next
// slow ones take their time.
type crowd struct {
	units, dead, slow byte
	takes             time.Duration // of the slow ones
	interval, lasts   time.Duration
	timeout           time.Duration
	share             float64 // of the polls of the others that must be on time
}

func crowdSize() crowd {
	if os.Getenv("PROVE") == "" {
		return crowd{units: 20, dead: 4, slow: 2, takes: 20 * time.Millisecond, interval: 400 * time.Millisecond, lasts: 4 * time.Second, timeout: 50 * time.Millisecond, share: 0.9}
	}
	return crowd{units: 50, dead: 10, slow: 5, takes: 150 * time.Millisecond, interval: 2 * time.Second, lasts: 5 * time.Minute, timeout: 500 * time.Millisecond, share: 0.999}
}

func (c *crowd) read(unit byte, _ modbus.Table, address, quantity uint16) ([]uint16, error) {
	switch {
	case unit <= c.dead:
		return nil, simulator.ErrSilent
	case unit <= c.dead+c.slow:
		<-time.After(c.takes)
	}
	values := make([]uint16, quantity)
	for i := range values {
		values[i] = uint16(unit)<<8 + address + uint16(i)
	}
	return values, nil
}

// Units that do not answer, or slowly, do not keep the others of their bus from
// being read on time: once each of those was read, hardly a beat is missed.
func TestHealthyUnitsAreReadOnTime(t *testing.T) {
	for _, scheme := range []string{"tcp", "rtu"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			c := crowdSize()
			if scheme == "rtu" {
				c.interval *= 2 // of 50 units, 35 ms each at most, without those that are slow
			}
			sim, err := simulator.Listen(proofURL(t, scheme), simulator.Config{Read: c.read, Baud: map[string]int{"rtu": 115200}[scheme]})
			if err != nil {
				t.Fatal(err)
			}
			defer sim.Close()
			cfg := modbus.BusConfig{URL: sim.URL(), ResponseTimeout: c.timeout}
			if scheme == "rtu" {
				cfg.Serial.Baud = 115200
			}
			bus, err := modbus.NewBus(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			polls, missed := c.run(t, bus)
			share := float64(polls) / float64(polls+missed)
			t.Logf("%s: %d polls of %d healthy units on time, %d not: %.3f %%; %+v", scheme, polls, c.units-c.dead-c.slow, missed, 100*share, bus.Stats())
			if share < c.share {
				t.Errorf("%.3f %% on time", 100*share)
			}
		})
	}
}

// run polls all units, and counts those of healthy ones from when all were read.
func (c *crowd) run(t *testing.T, bus *modbus.Bus) (polls, missed uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	var all, first sync.WaitGroup
	var counting atomic.Bool
	var good, skipped atomic.Uint64
	for unit := byte(1); unit <= c.units; unit++ {
		healthy := unit > c.dead+c.slow
		a, err := bus.Adapter(modbus.DeviceConfig{Unit: unit, Groups: []modbus.Group{{Name: "g", Interval: c.interval}},
			Tags: []modbus.Tag{{Name: "a", Group: "g", Table: modbus.Holding, Address: 1, Type: "uint16"}}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := a.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if healthy {
			first.Add(1)
		}
		all.Go(func() {
			defer s.Close()
			fresh := healthy
			for {
				b, err := s.Read(ctx)
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("unit %d: %v", unit, err)
					}
					return
				}
				r := b.Readings[0]
				if r.Quality == southbound.Good && r.Value != uint64(unit)<<8+1 {
					t.Errorf("unit %d is %v", unit, r.Value)
				}
				switch {
				case !healthy:
				case fresh && r.Quality == southbound.Good:
					fresh = false
					first.Done()
				case counting.Load() && r.Quality == southbound.Good:
					good.Add(1)
					skipped.Add(uint64(b.Missed))
				case counting.Load():
					skipped.Add(uint64(b.Missed) + 1)
				}
			}
		})
	}
	first.Wait()
	counting.Store(true)
	<-time.After(c.lasts)
	counting.Store(false)
	cancel()
	all.Wait()
	return good.Load(), skipped.Load()
}

// An outage is a way in which a device goes, and comes back.
type outage struct {
	name, scheme string
	away         func(*outageTrial) error
	back         func(*outageTrial) error
}

type outageTrial struct {
	sim    *simulator.Simulator
	silent atomic.Bool
	url    string
	cfg    simulator.Config
}

func (o *outageTrial) listen() (err error) {
	o.sim, err = simulator.Listen(o.url, o.cfg)
	return err
}

var outages = []outage{
	{"PLC reboots", "tcp", func(o *outageTrial) error { return o.sim.Break() }, func(o *outageTrial) error { return o.sim.Mend() }},
	{"PLC hangs", "tcp", func(o *outageTrial) error { o.silent.Store(true); return nil }, func(o *outageTrial) error { o.silent.Store(false); return nil }},
	{"unit hangs", "rtu", func(o *outageTrial) error { o.silent.Store(true); return nil }, func(o *outageTrial) error { o.silent.Store(false); return nil }},
	{"cable is pulled", "rtu", func(o *outageTrial) error { return o.sim.Break() }, func(o *outageTrial) error { return o.sim.Mend() }},
	{"gateway is swapped", "tcp", func(o *outageTrial) error { return o.sim.Close() }, (*outageTrial).listen},
	{"converter is swapped", "rtu+tcp", func(o *outageTrial) error { return o.sim.Close() }, (*outageTrial).listen},
}

// Whatever goes and comes back is read again within 10 s, and its state follows.
func TestBackWithinTenSeconds(t *testing.T) {
	lasts := 3 * time.Second
	if os.Getenv("PROVE") != "" {
		lasts = 90 * time.Second
	}
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			trial := &outageTrial{url: proofURL(t, o.scheme)}
			trial.cfg.Read = func(byte, modbus.Table, uint16, uint16) ([]uint16, error) {
				if trial.silent.Load() {
					return nil, simulator.ErrSilent
				}
				return []uint16{1}, nil
			}
			if err := trial.listen(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = trial.sim.Close() }()
			trial.url = trial.sim.URL()
			bus, err := modbus.NewBus(modbus.BusConfig{URL: trial.url})
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			a, err := bus.Adapter(modbus.DeviceConfig{Unit: 1, Groups: []modbus.Group{{Name: "g", Interval: 200 * time.Millisecond}},
				Tags: []modbus.Tag{{Name: "a", Group: "g", Table: modbus.Holding, Address: 1, Type: "uint16"}}})
			if err != nil {
				t.Fatal(err)
			}
			states := make(chan string, 100)
			stop := runDevice(t, a, func(state string) { states <- state })
			defer stop()
			expectState(t, states, "online")
			if err := o.away(trial); err != nil {
				t.Fatal(err)
			}
			expectState(t, states, "offline")
			<-time.After(lasts)
			if err := o.back(trial); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			expectState(t, states, "online")
			t.Logf("%s for %v: back after %v", o.name, lasts, time.Since(start).Round(time.Millisecond))
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("back after %v", took)
			}
		})
	}
}

// runDevice runs a device and tells of its states.
func runDevice(t *testing.T, a southbound.Adapter, tell func(string)) (stop func()) {
	d := &southbound.Device{Gateway: "gw", ID: "dev", Adapter: a,
		Publish: func(_ context.Context, m southbound.Message) error {
			var state struct{ State string }
			if strings.HasSuffix(m.Topic, "/state") {
				if err := json.Unmarshal(m.Payload, &state); err != nil {
					t.Error(err)
				}
				tell(state.State)
			}
			return nil
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func expectState(t *testing.T, states <-chan string, want string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case got := <-states:
			if got == want {
				return
			}
		case <-limit:
			t.Fatalf("not %s within 30 s", want)
		}
	}
}
