package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A trail is what a broker logs.
type trail struct {
	mu   sync.Mutex // covers text
	text bytes.Buffer
}

func (tr *trail) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.Write(b)
}

func (tr *trail) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// events returns what is told of one event, oldest first.
func (tr *trail) events(t testing.TB, name string) []map[string]any {
	t.Helper()
	var all []map[string]any
	d := json.NewDecoder(strings.NewReader(tr.String()))
	for {
		var e map[string]any
		err := d.Decode(&e)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if e["event"] == name {
			all = append(all, e)
		}
	}
}

// openTrail is open for a broker that logs into the trail, with the lockout and
// the passwords of real users left to the gate.
func openTrail(t *testing.T, limits Limits) (*house, *trail) {
	h := open(t, limits)
	h.close()
	tr := &trail{}
	h.config.Logger = slog.New(slog.NewJSONHandler(tr, nil))
	h.start()
	return h, tr
}

func TestTrail(t *testing.T) {
	h, tr := openTrail(t, Limits{})
	h.gate.SetRules(rules(t, rule(false, "*", both, "no/#"), rule(true, "*", both, "#")))
	first := h.login(mqtt.V5, "alice", "a", durable)
	first.publish("no/a\nevent=connect", "x", 0)
	first.ping()
	second := h.login(mqtt.V311, "alice", "a")
	first.expectClosed()
	second.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "no/#"}}})
	expect[*mqtt.Suback](second)
	second.send(&mqtt.Disconnect{})
	second.expectClosed()
	third := h.login(mqtt.V5, "bob", "b")
	third.nc.Close()
	h.untilFree("b")
	h.dial(mqtt.V5).connect("alice", "evil\nid")
	wrong := h.dial(mqtt.V5)
	wrong.connect("alice", "w", func(req *mqtt.Connect) { req.Password = []byte("canary") })
	h.close() // everything is told

	log := tr.String()
	if strings.Contains(log, "canary") || strings.Contains(log, "secret") {
		t.Errorf("a password is in the log:\n%s", log)
	}
	type want struct {
		event string
		is    map[string]any
	}
	for i, w := range []want{
		{eventConnect, map[string]any{"client": "a", "identity": "alice", "proof": "password", "mqtt": "5", "session_present": false}},
		{eventDenied, map[string]any{"identity": "alice", "action": "publish", "topic": "no/a\nevent=connect"}},
		{eventDenied, map[string]any{"identity": "alice", "action": "subscribe", "topic": "no/#"}},
		{eventTakeover, map[string]any{"client": "a", "identity": "alice", "from": "127.0.0.1"}},
		{eventConnect, map[string]any{"client": "a", "mqtt": "3.1.1"}},
		{eventDisconnect, map[string]any{"client": "a", "by": "server", "code": "session taken over"}},
		{eventDisconnect, map[string]any{"client": "a", "by": "client"}},
		{eventDisconnect, map[string]any{"client": "b", "by": "network"}},
		{eventRefused, map[string]any{"client": "evil\nid"}},
		{eventLoginFailed, map[string]any{"client": "w", "reason": "bad_credentials", "remote": "127.0.0.1"}},
	} {
		if !has(tr.events(t, w.event), w.is) {
			t.Errorf("%d: no %s with %v in\n%s", i, w.event, w.is, log)
		}
	}
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("a line that is none of ours: %s", line)
		}
	}
}

func has(events []map[string]any, want map[string]any) bool {
	for _, e := range events {
		all := true
		for k, v := range want {
			all = all && e[k] == v
		}
		if all {
			return true
		}
	}
	return false
}

// However much is denied, the log is short and its counts are exact.
func TestTrailCountsWhatItLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trail{}
		b := &Broker{log: slog.New(slog.NewJSONHandler(tr, nil)), told: throttle{burst: 100, rate: 10}}
		ctx, cancel := context.WithCancel(t.Context())
		go b.leftOutLoop(ctx)
		const rounds, each = 100, 10_000
		for range rounds {
			for range each {
				b.denied(access.Identity{Name: "mallory"}, access.Publish, "x")
			}
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(leftOutPause)
		cancel()
		synctest.Wait()
		told, left := len(tr.events(t, eventDenied)), 0.0
		for _, e := range tr.events(t, eventLeftOut) {
			if e["of"] != eventDenied {
				t.Errorf("left out of %v", e["of"])
			}
			left += e["count"].(float64)
		}
		if told+int(left) != rounds*each {
			t.Errorf("%d told and %.0f left out of %d", told, left, rounds*each)
		}
		if told > 100+10*30 {
			t.Errorf("%d lines in 30 s", told)
		}
	})
}

func TestTrailOfLockout(t *testing.T) {
	h, tr := openTrail(t, Limits{})
	h.b.access = h.gate // without users every password is wrong
	for range 6 {
		h.dial(mqtt.V5).connect("alice", "a")
	}
	if n := len(tr.events(t, eventLockout)); n != 1 {
		t.Errorf("%d lockouts told, want 1:\n%s", n, tr)
	}
	if got := tr.events(t, eventLoginFailed); len(got) != 6 || got[4]["reason"] != "bad_credentials" || got[5]["reason"] != "locked" {
		t.Errorf("failed logins %v", got)
	} else if got[0]["user"] != "alice" || got[5]["user"] != "alice" {
		t.Errorf("not told who failed: %v", got)
	}
	h.dial(mqtt.V5).connect("in the wrong field", "b") // a password, may be
	got := tr.events(t, eventLoginFailed)
	if _, told := got[6]["user"]; told || strings.Contains(tr.String(), "wrong field") {
		t.Errorf("what is no user's name is told: %v", got[6])
	}
	if got := loginReason(fmt.Errorf("refuse: %w", access.ErrCertificate)).String(); got != "certificate" {
		t.Errorf("a certificate that names nobody: %s", got)
	}
}

func TestTrailOfExpiry(t *testing.T) {
	h, tr := openTrail(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a", func(req *mqtt.Connect) { req.CleanStart, req.SessionExpiry = false, 1 })
	c.subscribe("a", 1)
	c.send(&mqtt.Disconnect{})
	c.expectClosed()
	h.login(mqtt.V5, "bob", "b").publish("a", "x", 1)
	deadline := time.Now().Add(patience)
	for len(tr.events(t, eventExpired)) == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("not told:\n%s", tr)
		}
		conn, err := net.Dial("tcp", h.addr) // something that takes a moment
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if !has(tr.events(t, eventExpired), map[string]any{"client": "a", "identity": "alice", "waiting": 1.0}) {
		t.Errorf("the trail is\n%s", tr)
	}
}
