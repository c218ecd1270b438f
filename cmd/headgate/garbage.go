package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Between two collections of garbage the heap grows by a share of what lives:
// by 100 % unless the runtime is told otherwise. A gateway with few clients has
// so little that lives that it would collect all the time, a third of its work
// at a million messages a second; one with 10,000 so much that it would hold
// twice what it needs. So the share is chosen for a constant amount of garbage,
// within bounds.
const (
	garbage      = 64 << 20 // bytes
	leastPercent = 33       // or it would collect all the time, when much lives
	mostPercent  = 400
)

// boundGarbage keeps that share right until ctx ends. Who set GOGC or
// GOMEMLIMIT has decided.
func boundGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	current := mostPercent
	debug.SetGCPercent(current)
	for {
		if want := garbagePercent(lives()); want < current-current/8 || want > current+current/8 { // setting it stops the world for a moment
			debug.SetGCPercent(want)
			current = want
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// roomToWait gives the runtime at least four places for goroutines that run.
// With one for each of two processors, two that compute keep it from looking at
// the network for up to ten milliseconds; with more, the kernel shares the
// processors among them, in parts of a millisecond. Who set GOMAXPROCS has decided.
func roomToWait() {
	const places = 4
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < places {
		runtime.GOMAXPROCS(places)
	}
}

func garbagePercent(lives uint64) int {
	return int(min(max(100*garbage/max(lives, 1), leastPercent), mostPercent))
}

// lives is what the last collection found in use, in bytes: the share is of this.
func lives() uint64 {
	sum, samples := uint64(0), []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		sum += s.Value.Uint64()
	}
	return sum
}
