package broker

import (
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// ends is when the queue's state lets a session end; "": it is connected.
func (h *house) ends(key string) (at string) {
	h.t.Helper()
	err := h.queue.State(bucketEnds, func(k string, v []byte) error {
		if k == key {
			at = string(v)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return at
}

// A session that came back is not one that left, as soon as CONNACK says so:
// after a crash it would end too early.
func TestReturningIsOnDisk(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a", durable)
	c.subscribe("a", 1)
	c.nc.Close()
	h.untilFree("a")
	h.b.sweep(time.Now())
	if h.ends("alice/a") == "" {
		t.Fatal("that it left is not on disk")
	}
	h.login(mqtt.V5, "alice", "a", durable)
	if at := h.ends("alice/a"); at != "" {
		t.Errorf("it is connected, but on disk it ends at %s", at)
	}
}

// What could not be written is written the next time.
func TestSweepRemembersWhatWasWritten(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a", durable)
	c.subscribe("a", 1)
	s := h.b.sessions["a"]
	h.close()
	if err := h.b.saveEnds([]unsavedEnd{{s, time.Now()}}); err == nil {
		t.Fatal("a closed queue took it")
	}
	if !s.saved.IsZero() {
		t.Error("it counts as written")
	}
}

// A shorter session_expiry holds for sessions that are away, and for those that
// leave later; a delayed will comes with the end.
func TestShorterSessionExpiry(t *testing.T) {
	h := open(t, Limits{})
	alice := h.login(mqtt.V5, "alice", "a")
	alice.subscribe("will", 1)
	leave := func(id string) *client {
		c := h.login(mqtt.V5, "bob", id, durable, func(r *mqtt.Connect) {
			r.Will = &mqtt.Will{Topic: "will", Payload: []byte(id), QoS: 1, Delay: 3000}
		})
		c.subscribe("x", 1)
		return c
	}
	leave("away").nc.Close()
	h.untilFree("away")
	here := leave("here")
	h.b.sweep(time.Now()) // the next one is far
	h.b.SetLimits(Limits{SessionExpiry: time.Second})
	alice.expectMessage("away")
	h.untilGone("away")
	here.ping()
	here.nc.Close()
	alice.expectMessage("here")
	h.untilGone("here")

	leave("restart").nc.Close()
	h.untilFree("restart")
	h.b.sweep(time.Now())
	h.config.Limits.SessionExpiry = time.Second
	h.restart()
	h.untilGone("restart")
}
