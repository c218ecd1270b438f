package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// A gateway whose queue was damaged while it was stopped starts, delivers what
// is left, and says on hg/{gateway}/lost that something is not.
func TestRotIsAnnounced(t *testing.T) {
	rounds := 3
	if os.Getenv("PROVE") != "" {
		rounds = 20
	}
	cloud := newCloud(t, "")
	far := cloud.start(t)
	lost, came := make(chan string, 1000), make(chan string, 10000)
	watch := func() {
		cloud.watch(t, func(m *client.Message) {
			switch topic := strings.TrimPrefix(m.Topic, "sites/site-1/"); {
			case strings.HasSuffix(topic, "/lost"):
				lost <- string(m.Payload)
			case strings.HasPrefix(topic, "plant/"):
				came <- string(m.Payload)
			}
		})
	}
	s := newSite(t, cloud, "")
	told := 0
	for round := range rounds {
		far.stop(t, 10*time.Second)
		g := startGateway(t, s.config)
		backlog(t, s, round)
		if code := g.stop(t, 10*time.Second); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, g.log(t))
		}
		hit := rotSegment(t, filepath.Join(filepath.Dir(s.config), "data", "queue"))
		far = cloud.start(t)
		watch()
		g = startGateway(t, s.config)
		if gone := rotRound(t, came, fmt.Sprintf("%d.", round)); gone > 0 {
			told++
			expectLost(t, lost, gone)
		}
		if t.Failed() {
			t.Fatalf("round %d, %s:\n%s", round, hit, g.log(t))
		}
		g.stop(t, 10*time.Second)
	}
	t.Logf("%d damages, %d of them with loss, each announced", rounds, told)
}

const rotMessages = 40

// backlog has a client publish what waits for the cloud.
func backlog(t *testing.T, s *site, round int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "press", CleanStart: true})
	for i := range rotMessages {
		payload := append(fmt.Appendf(nil, "%d.%d.", round, i), make([]byte, 1500)...)
		if err := cl.Publish(ctx, client.Message{Topic: "plant/a", Payload: payload, QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

// rotSegment zeroes a page of the newest segment in which messages lie.
func rotSegment(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "seg-*.db"))
	if err != nil || len(all) == 0 {
		t.Fatalf("segments %v: %v", all, err)
	}
	path := all[len(all)-1]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		at := rand.IntN(len(b)/4096) * 4096
		if page := b[at : at+4096]; bytes.Contains(page, []byte("plant/a")) {
			clear(page)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("page at %d of %s", at, filepath.Base(path))
		}
	}
}

// rotRound waits until nothing more comes of a round, and returns how many
// messages did not.
func rotRound(t *testing.T, came <-chan string, round string) int {
	t.Helper()
	got := map[string]bool{}
	for len(got) < rotMessages {
		select {
		case p := <-came:
			if strings.HasPrefix(p, round) {
				got[strings.TrimRight(p, "\x00")] = true
			}
		case <-time.After(3 * time.Second):
			if len(got) == 0 {
				t.Error("nothing came")
			}
			return rotMessages - len(got)
		}
	}
	return 0
}

func expectLost(t *testing.T, lost <-chan string, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case text := <-lost:
			var l struct {
				Reason string
				Count  int
			}
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Error(err)
			}
			if l.Reason == "damaged" && l.Count >= n {
				return
			}
		case <-deadline:
			t.Errorf("that %d messages are lost was not announced", n)
			return
		}
	}
}
