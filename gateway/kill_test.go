package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A record is what publishers were promised and what the cloud got.
type record struct {
	mu      sync.Mutex
	acked   map[string]bool // "publisher/number" → PUBACK received
	arrived map[string]bool
	ids     map[string]string // hg-id → message
	last    map[string]int    // publisher, and stream → highest number that arrived first
	repeats int
	faults  []string

	replayed int // by live_first
}

func newRecord() *record {
	return &record{acked: map[string]bool{}, arrived: map[string]bool{}, ids: map[string]string{}, last: map[string]int{}}
}

func (r *record) promise(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[name] = true
}

// take notes an arrival. Repeats carry the hg-id of what they repeat; what is
// left without them must rise per publisher.
func (r *record) take(m *client.Message) {
	if !strings.Contains(m.Topic, "/plant/") {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id, name := hgID(m), string(m.Payload[:strings.IndexByte(string(m.Payload), ' ')])
	if first, ok := r.ids[id]; ok {
		r.repeats++
		if first != name {
			r.fault("hg-id %s stands for %s and for %s", id, first, name)
		}
		return
	}
	r.ids[id] = name
	publisher, number, _ := strings.Cut(name, "/")
	n, err := strconv.Atoi(number)
	if err != nil || id == "" {
		r.fault("strange message %q with hg-id %q", name, id)
	}
	if property(m, "hg-replay") == "1" { // a stream of its own
		r.replayed++
		publisher += " replayed"
	}
	if n <= r.last[publisher] { // publishers count up and never send a number again
		r.fault("%s came after number %d, %s", name, r.last[publisher], publisher)
	}
	r.last[publisher] = n
	r.arrived[name] = true
}

func (r *record) fault(format string, args ...any) {
	if len(r.faults) < 20 {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	}
}

func (r *record) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for name := range r.acked {
		if !r.arrived[name] {
			out = append(out, name)
		}
	}
	return out
}

func (r *record) counts() (acked, arrived, repeats int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acked), len(r.arrived), r.repeats
}

// publish keeps one connection busy at rate messages/s until stop closes,
// through every death of the gateway. Numbers rise and are never used again.
func publish(ctx context.Context, address, publisher string, rate int, rec *record) {
	payload := strings.Repeat("x", 80)
	number := 0
	for ctx.Err() == nil {
		cl, err := client.Dial(ctx, client.Options{Address: address, ClientID: publisher, Version: mqtt.V5, CleanStart: true, KeepAlive: time.Minute})
		if err != nil {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		tick := time.NewTicker(10 * time.Millisecond)
		for alive := true; alive; {
			for range rate / 100 {
				number++
				name := fmt.Sprintf("%s/%d", publisher, number)
				cl.PublishAsync(client.Message{Topic: "plant/" + publisher, Payload: []byte(name + " " + payload), QoS: 1}, func(err error) {
					if err == nil {
						rec.promise(name)
					}
				})
			}
			select {
			case <-tick.C:
			case <-cl.Done():
				alive = false
			case <-ctx.Done():
				cl.Disconnect()
				alive = false
			}
		}
		tick.Stop()
	}
}

// The gateway is killed at random moments under 5,000 QoS 1 messages a second
// from 4 connections, while the cloud comes and goes. Whatever was acknowledged
// arrives, once after repeats are removed, in order.
func TestKill9(t *testing.T) {
	rounds := 4
	if os.Getenv("PROVE") != "" {
		rounds = 100
	}
	cloud := newCloud(t, "persistence true\npersistence_location "+t.TempDir()+"/\n")
	far := cloud.start(t)
	s := newSite(t, cloud, "")
	rec := newRecord()
	cloud.watch(t, rec.take)
	s.killAgain(t, rec, kills{rounds: rounds, rate: 1250, least: 100, spread: 1200}, func(round int) {
		switch {
		case round%3 == 2 && round < rounds: // the cloud is away for a round
			far.stop(t, 10*time.Second) // killed, mosquitto would lose what it acknowledged
		case round%3 == 0 && round > 0:
			far = cloud.start(t)
			cloud.watch(t, rec.take)
		}
	})
}

// Kills are how often a gateway is killed, and under what.
type kills struct {
	rounds, rate  int // rate: messages a second of each of four publishers
	least, spread int // milliseconds that it lives
}

// killAgain kills the gateway at random moments; before does what comes first in
// each round, and at the end, when it has a last life. Then all that was
// acknowledged has arrived, and nothing else was wrong.
func (s *site) killAgain(t *testing.T, rec *record, k kills, before func(round int)) (acked, arrived, repeats int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for i := range 4 {
		publishers.Go(func() {
			publish(ctx, fmt.Sprintf("127.0.0.1:%d", s.plain), fmt.Sprintf("press-%d", i), k.rate, rec)
		})
	}
	for round := range k.rounds {
		g := startGateway(t, s.config)
		before(round)
		select {
		case <-time.After(time.Duration(k.least+rand.IntN(k.spread)) * time.Millisecond):
		case <-g.done:
			t.Fatalf("round %d: the gateway ended by itself:\n%s", round, g.log(t))
		}
		g.kill()
	}
	cancel()
	publishers.Wait()
	before(k.rounds)
	startGateway(t, s.config)
	drained(t, rec, time.Minute)
	for _, f := range rec.faults {
		t.Error(f)
	}
	acked, arrived, repeats = rec.counts()
	t.Logf("%d rounds: %d acknowledged, %d arrived, %d repeats", k.rounds, acked, arrived, repeats)
	if acked < k.rounds*100 {
		t.Errorf("only %d messages were acknowledged: the test did not test", acked)
	}
	return acked, arrived, repeats
}

// drained waits until everything promised has arrived.
func drained(t *testing.T, rec *record, patience time.Duration) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := rec.missing()
		if len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("%d acknowledged messages never arrived, %v among them", len(missing), missing[:min(5, len(missing))])
			return
		}
	}
}
