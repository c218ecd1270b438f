package gateway_test

import (
	"bytes"
	"fmt"
	"net/rpc"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A flood is one of those that a gateway has to stand.
type flood struct {
	kind string
	rate int // a second, for those that come from outside
}

var floods = []flood{{"connect", 5000}, {"publish", 0}, {"subscribe", 0}, {"retained", 0}, {"half-open TLS", 1000}, {"bad user", 500}}

// Good clients lose nothing, and their slowest messages take at most twice as
// long, while others do their worst. The attackers share the machine here,
// where they would bring their own, and a machine that is busier has slower
// messages whatever it is busy with. So they compute as much for nothing before
// they attack, and with the rest of the processors only. FLOODS names some of the floods, and LASTS one long round instead
// of several short ones.
func TestFloods(t *testing.T) {
	good, lasts, rounds := 20, 250*time.Millisecond, 1
	prove := os.Getenv("PROVE") != ""
	if prove {
		good, lasts, rounds = 200, 2*time.Second, 5
	}
	if d, err := time.ParseDuration(os.Getenv("LASTS")); err == nil {
		lasts, rounds = d, 1
	}
	s := newStorm(t, good+insiders, false)
	s.order.Count, s.order.QoS = good, 1
	for _, what := range []string{"Arrive", "Subscribe"} {
		if r := s.do(t, s.swarm, what, s.order); r.In != good {
			t.Fatalf("%s: %d of %d: %v", what, r.In, good, r.Errors)
		}
	}
	bad := startSwarm(t, rationed(t, filepath.Join(binaryDir, "swarm"))...)
	calmly := s.resident(t, "RssAnon")
	for _, f := range floods {
		if only := os.Getenv("FLOODS"); only != "" && !strings.Contains(only, f.kind) {
			continue
		}
		t.Run(f.kind, func(t *testing.T) {
			var quiet []round
			for tries := 0; len(quiet) < rounds && tries < 2*rounds; tries++ {
				if r := s.round(t, bad, f, lasts); !prove || r.others < tolerable {
					quiet = append(quiet, r)
				}
			}
			if prove {
				weighFlood(t, quiet)
			}
		})
	}
	if prove {
		s.calmsDown(t, calmly+64*mib)
	}
}

// ration is how much of one processor the attackers get. More of it shows what
// they take from the good clients' own machine, not from the gateway: with the
// processors full of a process that never speaks to it, p99 triples as well.
const ration = 0.5

// rationed is argv with that limit if this system lets us set one, and with the
// lowest priority.
func rationed(t *testing.T, argv ...string) []string {
	t.Helper()
	const period = 10_000 // µs; with the usual 100,000 they would come in waves
	argv = append([]string{"chrt", "--idle", "0"}, argv...)
	for _, group := range []struct{ root, file, value string }{
		{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", fmt.Sprint(int(ration * period))},
		{"/sys/fs/cgroup", "cpu.max", fmt.Sprint(int(ration*period), " ", period)},
	} {
		dir, err := os.MkdirTemp(group.root, "headgate-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) }) // after the process in it, which is started later
		os.WriteFile(filepath.Join(dir, "cpu.cfs_period_us"), fmt.Append(nil, period), 0o600)
		if os.WriteFile(filepath.Join(dir, group.file), []byte(group.value), 0o600) == nil {
			return append([]string{"sh", "-c", `echo $$ > "$0"/cgroup.procs && exec "$@"`, dir}, argv...)
		}
	}
	t.Log("no cgroup to put the attackers in: they take what others leave of the processors")
	return argv
}

// A round is what good clients saw while the attackers did nothing to the
// gateway and while they did.
type round struct {
	calm, busy   Report
	cpuCalm, cpu float64 // processors that the gateway used
	others       float64 // processors that nobody of the test used, in the half in which they were more
}

// tolerable is what others may use of the machine in a round that counts.
const tolerable = 0.15

func (r round) String() string {
	return fmt.Sprintf("good clients %v; before, %v; gateway %.2f CPUs, before %.2f; others %.2f", r.busy, r.calm, r.cpu, r.cpuCalm, r.others)
}

func (s *storm) round(t *testing.T, bad *rpc.Client, f flood, lasts time.Duration) round {
	t.Helper()
	var r round
	work := s.order
	work.Within = lasts
	during := func(kind string) (good, attack Report) {
		call := bad.Go("Swarm.Attack", Attack{Order: s.order, Kind: kind, Rate: f.rate}.lasting(s.order.Count, lasts), &attack, nil)
		good = s.do(t, s.swarm, "Work", work)
		if err := (<-call.Done).Error; err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		return good, attack
	}
	begin := s.usage(t)
	r.calm, _ = during(elsewhere)
	middle := s.usage(t)
	var attack Report
	r.busy, attack = during(f.kind)
	end := s.usage(t)
	r.cpuCalm, r.cpu = middle.gateway(begin), end.gateway(middle)
	r.others = max(middle.others(begin), end.others(middle))
	t.Logf("%-13s %7d times; %v; %d MiB", f.kind, attack.In, r, s.resident(t, "RssAnon")/mib)
	if r.busy.In != r.busy.Attempts || len(r.busy.Errors) > 0 {
		t.Errorf("%s: %d of %d messages came back: %v", f.kind, r.busy.In, r.busy.Attempts, r.busy.Errors)
	}
	return r
}

// weighFlood compares the medians of several rounds.
func weighFlood(t *testing.T, rounds []round) {
	t.Helper()
	if len(rounds) == 0 {
		t.Skip("others use the machine: nothing can be said")
	}
	calm, busy := middling(rounds, func(r round) float64 { return ms(r.calm.P99) }), middling(rounds, func(r round) float64 { return ms(r.busy.P99) })
	before, during := middling(rounds, func(r round) float64 { return ms(r.calm.Median) }), middling(rounds, func(r round) float64 { return ms(r.busy.Median) })
	more := middling(rounds, func(r round) float64 { return r.cpu - r.cpuCalm })
	lo, hi := calm, calm
	for _, r := range rounds {
		lo, hi = min(lo, ms(r.calm.P99)), max(hi, ms(r.calm.P99))
	}
	t.Logf("of %d quiet rounds: median %.1f -> %.1f ms, p99 %.1f (%.1f to %.1f) -> %.1f ms, %.2f times; the flood costs %.2f CPUs",
		len(rounds), before, during, calm, lo, hi, busy, busy/calm, more)
	if busy > 2*calm || busy > 200 {
		t.Errorf("p99 is %.1f ms, want at most twice %.1f ms, and 200 ms", busy, calm)
	}
	if most := float64(runtime.NumCPU()) / 2; more > most {
		t.Errorf("the flood costs %.2f processors, want at most %.1f", more, most)
	}
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func middling(rounds []round, of func(round) float64) float64 {
	var all []float64
	for _, r := range rounds {
		all = append(all, of(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
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

// A usage is the processor time, in seconds, of the gateway and of this test
// with all its processes, of the kernel's own threads and of everybody.
type usage struct {
	at               time.Time
	served, ours     float64
	kernel, everyone float64
}

func (u usage) gateway(since usage) float64 {
	return (u.served - since.served) / u.at.Sub(since.at).Seconds()
}

func (u usage) others(since usage) float64 {
	all := u.everyone - since.everyone - (u.ours - since.ours) - (u.kernel - since.kernel)
	return all / u.at.Sub(since.at).Seconds()
}

const userHZ = 100

// usage counts processes by who started them.
func (s *storm) usage(t *testing.T) usage {
	t.Helper()
	u := usage{at: time.Now()}
	total, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var user, nice, system, idle, iowait, irq, softirq float64
	if _, err := fmt.Sscanf(string(total), "cpu %g %g %g %g %g %g %g", &user, &nice, &system, &idle, &iowait, &irq, &softirq); err != nil {
		t.Fatal(err)
	}
	u.everyone = (user + nice + system + irq + softirq) / userHZ
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	parent, used := map[int]int{}, map[int]float64{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		parent[pid], _ = strconv.Atoi(fields[1])
		for _, f := range fields[11:13] {
			ticks, _ := strconv.ParseFloat(f, 64)
			used[pid] += ticks / userHZ
		}
	}
	const kthreadd = 2
	for pid, spent := range used {
		for p := pid; p > 0; p = parent[p] {
			switch p {
			case s.gateway.Process.Pid:
				u.served += spent
			case os.Getpid():
				u.ours += spent
			case kthreadd:
				u.kernel += spent
			}
		}
	}
	return u
}
