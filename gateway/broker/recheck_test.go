package broker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// staff are users with passwords, in a file.
type staff struct {
	*access.Users
	secrets map[string]access.Secret
}

// openStaff is open where only these users get in.
func openStaff(t *testing.T, limits Limits, names ...string) (*house, *staff) {
	t.Helper()
	h := open(t, limits)
	h.close()
	users, err := access.OpenUsers(filepath.Join(t.TempDir(), "users"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &staff{users, map[string]access.Secret{}}
	for _, name := range names {
		if s.secrets[name], err = users.AddGenerated(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.access = access.NewGate(access.Config{}, users, everything(t), nil)
	h.start()
	return h, s
}

// as gives a CONNECT the user's password.
func (s *staff) as(name string) func(*mqtt.Connect) {
	return func(r *mqtt.Connect) { r.Password = s.secrets[name] }
}

func (s *staff) remove(t *testing.T, name string) {
	t.Helper()
	if err := s.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// The sessions of a user who is removed end, with what waits for them; his will
// is not heard and his client ids are free. Who is disabled keeps his.
func TestRemovedUserLeavesNothing(t *testing.T) {
	h, staff := openStaff(t, Limits{}, "alice", "bob", "carol")
	will := func(r *mqtt.Connect) { r.Will = &mqtt.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Delay: 600} }
	for user, id := range map[string]string{"bob": "away", "carol": "carol"} {
		c := h.login(mqtt.V5, user, id, staff.as(user), durable, will)
		c.subscribe("a", 1)
		c.nc.Close()
		h.untilFree(id)
	}
	here := h.login(mqtt.V5, "bob", "here", staff.as("bob"), durable, will)
	here.subscribe("a", 2)
	alice := h.login(mqtt.V5, "alice", "a", staff.as("alice"))
	alice.subscribe("will", 1)
	alice.publish("a", "x", 1)

	staff.remove(t, "bob")
	if err := staff.SetDisabled("carol", true); err != nil {
		t.Fatal(err)
	}
	h.b.Recheck()
	if code := here.expectClosed(); code != mqtt.AdministrativeAction {
		t.Errorf("bob was told %v", code)
	}
	h.untilGone("away")
	h.untilGone("here")
	for _, r := range h.queue.Stats().Readers {
		if r.Name == "session/bob/away" || r.Name == "session/bob/here" {
			t.Errorf("%s holds the log", r.Name)
		}
	}
	h.b.mu.Lock()
	kept := h.b.sessions["carol"]
	lives := kept != nil && time.Until(kept.ends) > time.Minute
	h.b.mu.Unlock()
	if !lives {
		t.Error("carol, disabled, lost her session")
	}
	h.login(mqtt.V5, "alice", "away", staff.as("alice"), durable).publish("will", "alice's", 1)
	alice.expectMessage("alice's")
}

// A user who was removed while the gateway did not run has nothing when it
// starts. Of older records nobody knows what their owner is: they stay.
func TestRemovedBeforeTheStart(t *testing.T) {
	h, staff := openStaff(t, Limits{}, "bob", "dave")
	for user, id := range map[string]string{"bob": "b", "dave": "old"} {
		c := h.login(mqtt.V5, user, id, staff.as(user), durable)
		c.subscribe("a", 1)
		c.nc.Close()
		h.untilFree(id)
	}
	h.b.mu.Lock()
	old := h.b.sessions["old"]
	old.user = false
	h.b.mu.Unlock()
	changes, err := old.record(old.subs, true)
	if err == nil {
		err = h.queue.SetState(changes...)
	}
	if err != nil {
		t.Fatal(err)
	}
	staff.remove(t, "bob")
	staff.remove(t, "dave")
	h.restart()
	h.untilGone("b")
	if h.b.Stats().Sessions != 1 {
		t.Error("a session of an owner of whom nobody knows what he is ended")
	}
}

// What an older version wrote of a session is completed when its owner comes.
func TestOlderSessionLearnsItsOwner(t *testing.T) {
	h, staff := openStaff(t, Limits{}, "bob")
	c := h.login(mqtt.V5, "bob", "b", staff.as("bob"), durable)
	c.subscribe("a", 1)
	c.nc.Close()
	h.untilFree("b")
	h.b.mu.Lock()
	h.b.sessions["b"].user = false
	h.b.mu.Unlock()
	h.login(mqtt.V5, "bob", "b", staff.as("bob"), durable).ping()
	h.restart()
	h.b.mu.Lock()
	known := h.b.sessions["b"].user
	h.b.mu.Unlock()
	if !known {
		t.Error("the record does not say that bob is a user")
	}
}
