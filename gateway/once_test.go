package gateway_test

import (
	"os"
	"strings"
	"testing"

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
	k := kills{rounds: rounds, rate: 500, least: 300, spread: 1200}
	if _, _, repeats := s.killAgain(t, rec, k, func(int) {}); repeats > 0 {
		t.Errorf("%d messages came more than once", repeats)
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
