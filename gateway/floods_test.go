package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Good clients lose nothing, and wait hardly longer, while others do their
// worst. The attackers share the machine here, so they get what all others
// leave of the processors: elsewhere they would bring their own.
func TestFloods(t *testing.T) {
	good, lasts := 20, 250*time.Millisecond
	prove := os.Getenv("PROVE") != ""
	if prove {
		good, lasts = 200, 8*time.Second
	}
	s := newStorm(t, good+insiders, false)
	s.order.Count, s.order.QoS = good, 1
	for _, what := range []string{"Arrive", "Subscribe"} {
		if r := s.do(t, s.swarm, what, s.order); r.In != good {
			t.Fatalf("%s: %d of %d: %v", what, r.In, good, r.Errors)
		}
	}
	bad := startSwarm(t, "chrt", "--idle", "0", filepath.Join(binaryDir, "swarm"))
	work := s.order
	work.Within = lasts
	calmly := s.resident(t, "RssAnon")
	for _, flood := range []struct {
		kind string
		rate int
		most time.Duration // that the slowest hundredth may take, if that is more than twice what it took before
	}{
		{"connect", 5000, 20 * time.Millisecond},
		{"publish", 0, 40 * time.Millisecond},
		{"subscribe", 0, 40 * time.Millisecond},
		{"retained", 0, 40 * time.Millisecond},
		{"half-open TLS", 1000, 20 * time.Millisecond},
		{"bad user", 500, 200 * time.Millisecond},
	} {
		t.Run(flood.kind, func(t *testing.T) {
			calm := s.do(t, s.swarm, "Work", work)
			began, cpu := time.Now(), s.cpu(t)
			var attack Report
			call := bad.Go("Swarm.Attack", Attack{Order: s.order, Kind: flood.kind, Rate: flood.rate}.lasting(good, lasts), &attack, nil)
			busy := s.do(t, s.swarm, "Work", work)
			spent := (s.cpu(t) - cpu) / time.Since(began).Seconds()
			if err := (<-call.Done).Error; err != nil {
				t.Errorf("%s: %v", flood.kind, err)
			}
			t.Logf("%-14s %7d times; good clients %v; before, %v; gateway %.2f CPUs, %d MiB", flood.kind, attack.In, busy, calm,
				spent, s.resident(t, "RssAnon")/mib)
			if busy.In != busy.Attempts || len(busy.Errors) > 0 {
				t.Errorf("%s: %d of %d messages came back: %v", flood.kind, busy.In, busy.Attempts, busy.Errors)
			}
			if prove && busy.P99 > max(2*calm.P99, flood.most) {
				t.Errorf("%s: p99 %v, want at most %v or twice %v", flood.kind, busy.P99, flood.most, calm.P99)
			}
		})
	}
	if prove {
		s.calmsDown(t, calmly+64*mib)
	}
}

// calmsDown waits until the gateway holds no more memory than most, in bytes:
// the runtime looks for garbage every two minutes when nothing happens.
func (s *storm) calmsDown(t *testing.T, most int) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seconds := 0; s.resident(t, "RssAnon") > most; seconds++ {
		if seconds > 300 {
			t.Fatalf("after the floods it holds %d MiB, want at most %d", s.resident(t, "RssAnon")/mib, most/mib)
		}
		<-tick.C
	}
}

func (a Attack) lasting(first int, d time.Duration) Attack {
	a.First, a.Within = first, d
	return a
}

// cpu is what the gateway has used, in seconds.
func (s *storm) cpu(t *testing.T) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.gateway.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		t.Fatal(err)
	}
	return float64(user+system) / 100 // USER_HZ
}
