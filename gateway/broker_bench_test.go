package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sideBySide is what Headgate and mosquitto are both put through. Nothing may
// get lost: QoS 0 is published no faster than it arrives.
var sideBySide = []struct {
	name  string
	shape shape
}{
	{"QoS 0, 4 → 1", shape{publishers: 4, subscribers: 1, messages: 600_000, window: 1600}},
	{"QoS 1, 4 → 1 durable", shape{publishers: 4, subscribers: 1, qos: 1, durable: true, messages: 200_000, window: 64}},
	{"QoS 1, 4 → 1 clean", shape{publishers: 4, subscribers: 1, qos: 1, messages: 200_000, window: 64}},
	{"QoS 0, 1 → 100", shape{publishers: 1, subscribers: 100, messages: 15_000, window: 64}},
	{"QoS 0, 4 → 1, 4,000/s", shape{publishers: 4, subscribers: 1, messages: 8_000, window: 1600, rate: 4000}},
	{"QoS 1, 4 → 1 clean, 4,000/s", shape{publishers: 4, subscribers: 1, qos: 1, messages: 8_000, window: 64, rate: 4000}},
	{"QoS 0, 1 → 100, 200/s", shape{publishers: 1, subscribers: 100, messages: 400, window: 64, rate: 200}},
}

const benchRounds = 5

// BenchmarkBroker puts the local broker beside mosquitto: each in a process of
// its own, in plaintext over loopback, one after the other in rounds, with the
// same clients. Headgate acknowledges QoS 1 after fsync and asks its rules about
// every delivery; mosquitto acknowledges from memory and has no rules. Run it
// with -benchtime 1x.
func BenchmarkBroker(b *testing.B) {
	brokers := [2]struct {
		name  string
		start func(testing.TB) (*process, int)
	}{{"headgate", startPlain}, {"mosquitto", startMosquitto}}
	table := fmt.Sprintf("\n%-29s %-10s %10s %7s %10s %10s %9s %9s %7s\n", "", "", "messages/s", "times", "broker µs", "clients µs", "p50 ms", "p99 ms", "MB")
	for _, s := range sideBySide {
		var rounds [2][]outcome
		b.Run(s.name, func(b *testing.B) {
			var servers [2]*process
			var ports [2]int
			for i := range brokers {
				servers[i], ports[i] = brokers[i].start(b)
			}
			for b.Loop() {
				for range benchRounds {
					for i := range brokers {
						rounds[i] = append(rounds[i], measure(b, servers[i], ports[i], s.shape))
					}
				}
			}
		})
		if len(rounds[0]) == 0 {
			continue // left out by -bench
		}
		theirs := middle(rounds[1])
		for i := range brokers {
			o := middle(rounds[i])
			table += fmt.Sprintf("%-29s %-10s %10.0f %7.2f %10.2f %10.2f %9.2f %9.2f %7.0f\n", s.name, brokers[i].name,
				o.rate, o.rate/theirs.rate, o.broker, o.clients, o.p50, o.p99, o.memory)
		}
	}
	fmt.Println(table)
}

// An outcome is one round of one broker.
type outcome struct {
	rate            float64 // messages that arrived, a second
	broker, clients float64 // processor time for each, µs
	p50, p99        float64 // from being sent to having arrived, ms
	memory          float64 // the most that the broker has had resident so far, MB
}

// middle is the median of each figure.
func middle(all []outcome) outcome {
	of := func(figure func(outcome) float64) float64 {
		values := make([]float64, len(all))
		for i, o := range all {
			values[i] = figure(o)
		}
		return median(values)
	}
	return outcome{
		rate:    of(func(o outcome) float64 { return o.rate }),
		broker:  of(func(o outcome) float64 { return o.broker }),
		clients: of(func(o outcome) float64 { return o.clients }),
		p50:     of(func(o outcome) float64 { return o.p50 }),
		p99:     of(func(o outcome) float64 { return o.p99 }),
		memory:  of(func(o outcome) float64 { return o.memory }),
	}
}

func measure(t testing.TB, server *process, port int, s shape) outcome {
	l := newLoad(t, port, s)
	defer l.close()
	broker, clients := server.processorTime(t), ownTime(t)
	took := l.run()
	broker, clients = server.processorTime(t)-broker, ownTime(t)-clients
	n := float64(l.received)
	each := func(d time.Duration) float64 { return d.Seconds() * 1e6 / n }
	return outcome{
		rate: n / took.Seconds(), broker: each(broker), clients: each(clients),
		p50: l.percentile(0.5).Seconds() * 1e3, p99: l.percentile(0.99).Seconds() * 1e3, memory: server.peakMemory(t),
	}
}

// processorTime is what the process has used so far, in steps of 10 ms.
func (p *process) processorTime(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int // utime and stime, fields 14 and 15 of proc_pid_stat(5)
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (10 * time.Millisecond)
}

// peakMemory is the most that the process has had resident, in MB.
func (p *process) peakMemory(t testing.TB) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kb float64
	if _, err := fmt.Sscan(after, &kb); err != nil {
		t.Fatal(err)
	}
	return kb / 1000
}

func ownTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// startPlain starts a gateway that serves loopback and nothing else.
func startPlain(t testing.TB) (*process, int) {
	t.Helper()
	config, port := plainConfig(t)
	return startGateway(t, config), port
}

func plainConfig(t testing.TB) (config string, port int) {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config = filepath.Join(dir, "headgate.yaml")
	text := fmt.Sprintf(`version: 1
gateway: {id: site-1, data: data}
admin: {address: ""}
broker:
  listeners:
    - {address: "127.0.0.1:%d", plaintext: true, anonymous_as: local}
access:
  rules:
    - {allow: [publish, subscribe], who: local, topics: ["plant/#"]}
`, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, port
}

// startMosquitto starts one that drops nothing and delays nothing.
func startMosquitto(t testing.TB) (*process, int) {
	t.Helper()
	port := freePort(t)
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf(`listener %d 127.0.0.1
user root
allow_anonymous true
max_queued_messages 0
max_inflight_messages 1000
set_tcp_nodelay true
`, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "/usr/sbin/mosquitto", "-c", conf)
	waitListening(t, p, port)
	return p, port
}
