package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

func TestTakeover(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		first := h.login(v, "alice", "a", durable)
		first.subscribe("a", 1)
		second := h.dial(v)
		if !second.connect("alice", "a", durable).SessionPresent {
			t.Error("session is not present")
		}
		if code := first.expectClosed(); v == mqtt.V5 && code != mqtt.SessionTakenOver {
			t.Errorf("the first was told %v", code)
		}
		h.login(v, "alice", "p").publish("a", "x", 1)
		second.expectMessage("x")

		thief := h.dial(v)
		if code := thief.connect("mallory", "a").Code; code != mqtt.ClientIdentifierNotValid {
			t.Errorf("another identity: %v", code)
		}
		second.ping()
	})
}

func TestSessionEndsWithItsConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		c := h.login(v, "alice", "a")
		c.subscribe("a", 1)
		c.send(&mqtt.Disconnect{})
		c.expectClosed()
		again := h.dial(v)
		if again.connect("alice", "a", durable).SessionPresent {
			t.Error("session is present")
		}
		if n := h.b.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
		again.subscribe("a", 1)
		// Clean Start throws away what a durable session had.
		c = h.dial(v)
		if c.connect("alice", "a").SessionPresent {
			t.Error("session is present after Clean Start")
		}
		c.publish("a", "x", 1)
		c.ping()
		if n := h.b.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}

func TestSessionSurvivesRestart(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		s := h.login(v, "bob", "s", durable)
		s.subscribe("a/#", 1)
		s.subscribe("b", 0)
		s.subscribe("gone", 1)
		s.send(&mqtt.Unsubscribe{PacketID: 1, Filters: []string{"gone", "never"}})
		if a := expect[*mqtt.Unsuback](s); v == mqtt.V5 && (a.Codes[0] != 0 || a.Codes[1] != mqtt.NoSubscriptionExisted) {
			t.Errorf("UNSUBACK %v", a.Codes)
		}
		p := h.login(v, "alice", "p")
		for i := range 10 {
			p.publish("a/1", fmt.Sprint(i), 1)
		}
		s.expectMessage("0")
		for range 9 {
			expect[*mqtt.Publish](s) // and not acknowledged
		}
		s.ping()
		h.restart()
		h.login(v, "alice", "p").publish("a/2", "10", 1)
		h.login(v, "alice", "p").publish("gone", "x", 1)
		thief := h.dial(v)
		if code := thief.connect("mallory", "s").Code; code != mqtt.ClientIdentifierNotValid {
			t.Errorf("another identity after the restart: %v", code)
		}
		s = h.dial(v)
		if !s.connect("bob", "s", durable).SessionPresent {
			t.Fatal("session is not present after the restart")
		}
		for i := range 10 {
			s.expectMessage(fmt.Sprint(i + 1))
		}
		h.login(v, "alice", "p").publish("b", "live", 1)
		s.expectMessage("live")
	})
}

func TestSessionExpiry(t *testing.T) {
	h := open(t, Limits{SessionExpiry: time.Hour})
	c := h.dial(mqtt.V5)
	ack := c.connect("alice", "a", func(r *mqtt.Connect) { r.SessionExpiry = 0xFFFFFFFF })
	if !ack.HasSessionExpiry || ack.SessionExpiry != 3600 {
		t.Errorf("granted %d seconds", ack.SessionExpiry)
	}
	c.subscribe("a", 1)
	c.send(&mqtt.Disconnect{})
	c.expectClosed()
	free := h.login(mqtt.V5, "bob", "b") // the claim on a is over when its table entry is free
	free.ping()
	h.untilFree("a")
	h.b.sweep(time.Now().Add(30 * time.Minute))
	if n := h.b.Stats().Sessions; n != 2 {
		t.Fatalf("%d sessions after half of the time", n)
	}
	h.restart() // when it ends is remembered
	h.b.sweep(time.Now().Add(2 * time.Hour))
	if s := h.b.Stats(); s.Sessions != 0 || s.Subscriptions != 0 {
		t.Errorf("%+v", s)
	}
	for _, r := range h.queue.Stats().Readers {
		if r.Name == "session/alice/a" {
			t.Error("its reader is still there")
		}
	}
	h.restart()
	if n := h.b.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions came back", n)
	}
}

// untilFree waits until no connection holds the session.
func (h *house) untilFree(clientID string) {
	h.b.mu.Lock()
	var free chan struct{}
	if s := h.b.sessions[clientID]; s != nil {
		free = s.free
	}
	h.b.mu.Unlock()
	if free == nil {
		return
	}
	select {
	case <-free:
	case <-time.After(patience):
		h.t.Fatalf("session %s is still held", clientID)
	}
}

func TestDisconnectMayNotProlong(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Disconnect{SessionExpiry: 10, HasSessionExpiry: true})
	if code := c.expectClosed(); code != mqtt.ProtocolError {
		t.Errorf("got %v", code)
	}
}

func TestSameClientIDOfNobodyElse(t *testing.T) {
	h := open(t, Limits{SessionExpiry: time.Minute})
	c := h.login(mqtt.V5, "alice", "shared", durable)
	c.subscribe("a", 1)
	h.login(mqtt.V5, "alice", "p").publish("a", "alice's", 1)
	c.send(&mqtt.Disconnect{})
	c.expectClosed()
	h.untilFree("shared")
	if code := h.dial(mqtt.V5).connect("bob", "shared").Code; code != mqtt.ClientIdentifierNotValid {
		t.Fatalf("while it waits: %v", code)
	}
	h.b.mu.Lock()
	h.b.sessions["shared"].ends = time.Now() // its time is over, the sweep has not come
	h.b.mu.Unlock()
	b := h.dial(mqtt.V5)
	if ack := b.connect("bob", "shared", durable); ack.Code != mqtt.Success || ack.SessionPresent {
		t.Fatalf("after its end: %+v", ack)
	}
	b.ping()
	if n := h.b.Stats().Subscriptions; n != 0 {
		t.Errorf("bob inherited %d subscriptions", n)
	}
}

// Of many that connect at once under one client id, each takes the session from
// the one before it, some even before the CONNACK; the last one keeps it.
func TestManyTakeoversAtOnce(t *testing.T) {
	h := open(t, Limits{})
	const n = 12
	type result struct {
		c    *client
		code mqtt.ReasonCode
	}
	results := make(chan result, n)
	for range n {
		c := h.dial(mqtt.V5)
		go func() {
			c.send(&mqtt.Connect{Version: mqtt.V5, ClientID: "a", SessionExpiry: 60, ReceiveMaximum: 1,
				Username: "alice", UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true})
			p, err := c.read()
			ack, ok := p.(*mqtt.Connack)
			if !ok || err != nil { // taken over first
				results <- result{}
				return
			}
			results <- result{c, ack.Code}
		}()
	}
	var in []*client
	for range n {
		r := <-results
		if r.c != nil {
			in = append(in, r.c)
		}
		if r.code != mqtt.Success {
			t.Errorf("got %v", r.code)
		}
	}
	alive := 0
	for _, c := range in {
		c.nc.Write([]byte{0xc0, 0}) // PINGREQ
		if p, err := c.read(); err == nil && p.Type() == mqtt.PINGRESP {
			alive++
		}
	}
	if alive != 1 {
		t.Errorf("%d connections hold the session", alive)
	}
	if n := h.b.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions", n)
	}
}
