package broker

import (
	"reflect"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// Recheck asks, after users, roles or certificates have changed, who each client
// is now, and closes the connections of those who are somebody else or nobody,
// or whose certificate its listener would not take any more. Their sessions
// stay; they may log in again. Those of users who were removed end, connected
// or not. Changed rules need no Recheck.
func (b *Broker) Recheck() {
	b.retained.untidy()
	for _, c := range b.connections() {
		if !c.greeted.Load() {
			continue
		}
		b.recheck(c)
	}
	b.endRemoved()
}

func (b *Broker) recheck(c *conn) {
	now, ok := b.access.Current(c.id)
	if !ok && c.id.IsUser() && b.access.Removed(c.id.Name) {
		b.mu.Lock()
		c.session.removed = true
		b.mu.Unlock()
	}
	if !ok || !reflect.DeepEqual(now, c.id) || !c.trusted() {
		c.close(mqtt.AdministrativeAction)
	}
}

// endRemoved ends the sessions of users who were removed: nobody will come for
// what waits there, and their client ids are free for others.
func (b *Broker) endRemoved() {
	removed := map[string]bool{}
	b.mu.Lock()
	for _, s := range b.sessions {
		if s.user {
			removed[s.owner] = false
		}
	}
	b.mu.Unlock()
	for name := range removed {
		removed[name] = b.access.Removed(name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if !s.user || !removed[s.owner] {
			continue
		}
		s.removed = true
		if s.holder == nil { // else detach sees to it
			s.ends, s.will = time.Time{}, nil
			b.sweepBy(s.ends)
		}
	}
}
