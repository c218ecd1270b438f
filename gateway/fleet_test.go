package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A fleet is many gateways, each a process of its own, linked to one cloud.
type fleet struct {
	cloud    *cloud
	gateways []*process
	ports    []int // where each takes messages without TLS
}

// newFleet starts n gateways one after the other.
func newFleet(t *testing.T, c *cloud, n int) *fleet {
	t.Helper()
	program := headgate(t)
	if os.Getenv("PROVE") != "" { // the race detector costs memory of its own
		bin, err := shipped()
		if err != nil {
			t.Fatal(err)
		}
		program = filepath.Join(bin, "shipped")
	}
	f := &fleet{cloud: c}
	for i := range n {
		dir, port := t.TempDir(), freePort(t)
		text := fmt.Sprintf(`version: 1
gateway: {id: fleet-%d, data: data}
admin: {address: ""}
broker:
  listeners:
    - {address: "127.0.0.1:%d", plaintext: true, anonymous_as: local}
access:
  rules:
    - {allow: publish, who: "local", topics: ["plant/#"]}
    - {allow: subscribe, who: "link:cloud", topics: ["plant/#"]}
northbound:
  - name: cloud
    servers: ["mqtts://localhost:%d"]
    ca: %[4]s/ca.crt
    certificate: %[4]s/gw.crt
    key: %[4]s/gw.key
    send:
      - {topics: ["plant/#"], qos: 1, prefix: "sites/{gateway}/"}
`, i, port, c.port, c.dir)
		config := filepath.Join(dir, "headgate.yaml")
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f.gateways = append(f.gateways, startProgram(t, []string{program, "run", "--config", config}))
		f.ports = append(f.ports, port)
	}
	return f
}

// publish sends a message a second to each gateway until ctx ends.
func (f *fleet) publish(ctx context.Context, t *testing.T, rec *record) *sync.WaitGroup {
	var publishers sync.WaitGroup
	for i, port := range f.ports {
		name := fmt.Sprintf("press-%d", i)
		cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", port), ClientID: name, Version: mqtt.V5, CleanStart: true})
		publishers.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for number := 1; ; number++ {
				id := fmt.Sprintf("%s/%d", name, number)
				cl.PublishAsync(client.Message{Topic: "plant/" + name, Payload: []byte(id + " x"), QoS: 1}, func(err error) {
					if err == nil {
						rec.promise(id)
					}
				})
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return &publishers
}

var connectLine = regexp.MustCompile(`(?m)^([0-9]+): New client connected from \S+ as (fleet-[0-9]+) `)

// watchOn looks on at the cloud in one session until ctx ends, through every loss of
// its connection.
func (c *cloud) watchOn(ctx context.Context, t *testing.T, rec *record) *sync.WaitGroup {
	o := client.Options{
		Address: fmt.Sprintf("127.0.0.1:%d", c.port), TLS: c.tls(t, "watcher"), ClientID: "watcher", Version: mqtt.V5,
		SessionExpiry: 3600, ReceiveMaximum: 1000, KeepAlive: time.Minute,
		OnMessage: func(m *client.Message) error { rec.take(m); return nil },
	}
	var watcher sync.WaitGroup
	watcher.Go(func() {
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for ctx.Err() == nil {
			if cl, err := client.Dial(ctx, o); err == nil {
				cl.Subscribe(ctx, mqtt.Subscription{Filter: "#", QoS: 1})
				select {
				case <-cl.Done():
				case <-ctx.Done():
					cl.Disconnect()
				}
			}
			select {
			case <-again.C:
			case <-ctx.Done():
			}
		}
	})
	return &watcher
}

// connects returns how many gateways the cloud has seen, and how many connected
// in each second from the first one on.
func connects(t *testing.T, far *process) (gateways int, seconds []int) {
	t.Helper()
	seen := make(map[string]bool)
	first := 0
	for _, m := range connectLine.FindAllStringSubmatch(far.log(t), -1) {
		at, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = at
		}
		for len(seconds) <= at-first {
			seconds = append(seconds, 0)
		}
		seconds[at-first]++
		seen[m[2]] = true
	}
	return len(seen), seconds
}

// waitConnected returns once all gateways are at the cloud.
func (f *fleet) waitConnected(t *testing.T, far *process, within time.Duration) []int {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, seconds := connects(t, far)
		if n == len(f.gateways) {
			return seconds
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v %d of %d gateways are connected; in each second: %v", within, n, len(f.gateways), seconds)
		}
	}
}

// resident is what all gateways hold in memory, in bytes.
func (f *fleet) resident(t *testing.T) int {
	t.Helper()
	sum := 0
	for _, g := range f.gateways {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", g.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
		if err != nil {
			t.Fatal(err)
		}
		sum += pages * os.Getpagesize()
	}
	return sum
}

// The cloud of a fleet is stopped and comes back: all gateways return, not at
// once, and nothing that one of them acknowledged is lost.
func TestFleet(t *testing.T) {
	n, away := 5, 2*time.Second
	if os.Getenv("PROVE") != "" {
		n, away = 200, 20*time.Second
	}
	// Killed, mosquitto would lose what it acknowledged.
	c := newCloud(t, "persistence true\npersistence_location "+t.TempDir()+"/\n")
	far := c.start(t)
	rec := newRecord()
	looking, look := context.WithCancel(t.Context())
	watcher := c.watchOn(looking, t, rec)
	t.Cleanup(watcher.Wait)
	t.Cleanup(look)
	f := newFleet(t, c, n)
	f.waitConnected(t, far, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	publishers := f.publish(ctx, t, rec)
	t.Cleanup(publishers.Wait)
	t.Cleanup(cancel)

	far.stop(t, 30*time.Second)
	select {
	case <-time.After(away): // how long the outage lasts is what is tried
	case <-f.gateways[0].done:
		t.Fatalf("a gateway ended by itself:\n%s", f.gateways[0].log(t))
	}
	began := time.Now()
	far = c.start(t)
	seconds := f.waitConnected(t, far, 2*time.Minute)
	back := time.Since(began)
	cancel()
	publishers.Wait()
	drained(t, rec, 2*time.Minute)
	for _, fault := range rec.faults {
		t.Error(fault)
	}
	acked, arrived, repeats := rec.counts()
	t.Logf("%d gateways, %d MiB each: all are back %v after the cloud, connects in each second: %v", n, f.resident(t)/n/mib, back.Round(100*time.Millisecond), seconds)
	t.Logf("%d messages acknowledged, %d arrived, %d repeats", acked, arrived, repeats)
	if acked < n*int(away/time.Second) {
		t.Errorf("only %d messages were acknowledged: the test did not test", acked)
	}
	if peak := slices.Max(seconds); n > 20 && peak > n/4 {
		t.Errorf("%d of %d gateways connected in the same second: they are not spread", peak, n)
	}
}
