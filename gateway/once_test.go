package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
)

// sendAtQoS2 changes the site's route.
func (s *site) sendAtQoS2(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "qos: 1, prefix", "qos: 2, prefix", 1))
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The gateway is killed at random moments while it sends at QoS 2 to a cloud
// that keeps its session: whatever was acknowledged arrives exactly once, in
// order, and no consumer has to drop anything.
func TestKill9QoS2(t *testing.T) {
	rounds := 3
	if os.Getenv("PROVE") != "" {
		rounds = 50
	}
	cloud := newCloud(t, "")
	cloud.start(t)
	s := newSite(t, cloud, "")
	s.sendAtQoS2(t)
	rec := newRecord()
	cloud.watch(t, rec.take)
	ctx, cancel := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for i := range 4 {
		publishers.Go(func() {
			publish(ctx, fmt.Sprintf("127.0.0.1:%d", s.plain), fmt.Sprintf("press-%d", i), 500, rec)
		})
	}
	for round := range rounds {
		g := startGateway(t, s.config)
		select {
		case <-time.After(time.Duration(300+rand.IntN(1200)) * time.Millisecond):
		case <-g.done:
			t.Fatalf("round %d: the gateway ended by itself:\n%s", round, g.log(t))
		}
		g.kill()
	}
	cancel()
	publishers.Wait()
	startGateway(t, s.config)
	drained(t, rec, time.Minute)
	for _, f := range rec.faults {
		t.Error(f)
	}
	acked, arrived, repeats := rec.counts()
	t.Logf("%d rounds: %d acknowledged, %d arrived, %d repeats", rounds, acked, arrived, repeats)
	if repeats > 0 {
		t.Errorf("%d messages came more than once", repeats)
	}
	if acked < rounds*100 {
		t.Errorf("only %d messages were acknowledged: the test did not test", acked)
	}
}

// check says when a session that ends with its connection takes exactly once away.
func TestWarningOfQoS2WithoutSession(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "    session_expiry: 0\n")
	s.sendAtQoS2(t)
	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if w := gateway.Warnings(cfg); len(w) != 1 || !strings.Contains(w[0], "session_expiry") {
		t.Errorf("warnings %q", w)
	}
}
