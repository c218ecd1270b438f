package broker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// A session is what a client id of one identity has with the broker: what it
// subscribed to, and what is in flight. One connection, or the sweep, works on
// it at a time: its holder.
type session struct {
	clientID string
	owner    string // the identity's name
	number   uint64 // in the ledger and its notes; 0: not in there. Changes only while nobody knows it

	conn    atomic.Pointer[conn] // whom live messages go to; nil: nobody
	several atomic.Bool          // it has, or had, more than one subscription

	// Covered by Broker.mu.
	free    chan struct{} // closed and nil when the holder lets go
	holder  *conn         // nil while the sweep holds it
	ends    time.Time     // when nobody holds it
	will    *will         // delayed
	willAt  time.Time
	saved   time.Time // ends, as the queue's state has it
	user    bool      // the owner is known to have a password, not a certificate; changed by the holder
	removed bool      // the owner is no more: it ends when the holder lets go

	// The holder's own.
	expiry time.Duration      // 0: ends with its connection
	kept   bool               // the queue's state has a record of it
	reader *storequeue.Reader // nil until something is subscribed to with QoS 1 or 2; others want mu

	mu       sync.Mutex // covers the fields below; held for moments
	subs     map[string]*subscription
	received map[uint16]*incoming
	flight   flight
}

var (
	errNotOwner    = errors.New("the client id belongs to another identity: choose another one")
	errTooManySess = errors.New("too many sessions: see broker.limits")
)

// key names the session in the queue. Escaped names hold no '/', so no two
// sessions share one.
func (s *session) key() string {
	return url.PathEscape(s.owner) + "/" + url.PathEscape(s.clientID)
}

const readerPrefix = "session/"

func (s *session) readerName() string { return readerPrefix + s.key() }

func (s *session) over(now time.Time) bool { return s.free == nil && !now.Before(s.ends) }

// claim makes the caller the holder of a client id's session, and makes the
// session if there is none. Whoever holds it is closed first; it takes as long
// as that connection's goroutine needs to leave, never as long as its socket.
func (b *Broker) claim(ctx context.Context, clientID, owner string, c *conn) (s *session, existed bool, err error) {
	for {
		b.mu.Lock()
		s = b.sessions[clientID]
		switch {
		case s == nil && b.sessionsFull(owner) != limitNone:
			b.stats.hits.add(b.sessionsFull(owner))
			b.mu.Unlock()
			return nil, false, errTooManySess
		case s == nil:
			s = &session{clientID: clientID, owner: owner, free: make(chan struct{}), holder: c}
			b.admitSession(s)
			b.mu.Unlock()
			return s, false, nil
		case s.owner != owner && !s.over(time.Now()):
			b.mu.Unlock()
			return nil, false, errNotOwner
		case s.free == nil:
			s.free, s.holder = make(chan struct{}), c
			b.mu.Unlock()
			return s, true, nil
		}
		holder, free := s.holder, s.free
		b.mu.Unlock()
		if holder != nil {
			if holder.close(mqtt.SessionTakenOver) {
				c.tellTakeover(holder, clientID)
			}
		}
		select {
		case <-free:
		case <-ctx.Done():
			return nil, false, fmt.Errorf("take over session: %w", ctx.Err())
		}
	}
}

// The following are called with Broker.mu held.

// sessionsFull tells the limit that keeps owner from one more session.
func (b *Broker) sessionsFull(owner string) limit {
	l := b.limits.Load()
	switch {
	case b.owners[owner] >= l.SessionsPerUser:
		return limitSessionsPerIdentity
	case len(b.sessions) >= l.Sessions:
		return limitSessions
	}
	return limitNone
}

func (b *Broker) admitSession(s *session) {
	b.sessions[s.clientID] = s
	b.owners[s.owner]++
}

func (b *Broker) removeSession(s *session) {
	delete(b.sessions, s.clientID)
	if b.owners[s.owner]--; b.owners[s.owner] == 0 {
		delete(b.owners, s.owner)
	}
}

// letGo ends a claim. The session waits for its client until its time is over.
func (b *Broker) letGo(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(s.free)
	s.free, s.holder = nil, nil
	next := s.ends
	if s.will != nil && s.willAt.Before(next) {
		next = s.willAt
	}
	b.sweepBy(next)
}

// sweepBy has the sweep look by then. Broker.mu is held.
func (b *Broker) sweepBy(next time.Time) {
	if !next.Before(b.nextSweep) {
		return
	}
	b.nextSweep = next
	select {
	case b.sooner <- struct{}{}:
	default:
	}
}

// drop ends a claim, and the session with it.
func (b *Broker) drop(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(s.free)
	b.removeSession(s)
}

// attach gives a connection its session [MQTT-3.1.2-4] [MQTT-3.1.2-5].
func (b *Broker) attach(ctx context.Context, c *conn, req *mqtt.Connect) (present bool, err error) {
	s, existed, err := b.claim(ctx, req.ClientID, c.id.Name, c)
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	stale := existed && (req.CleanStart || s.owner != c.id.Name || !time.Now().Before(s.ends))
	late := s.will
	s.will = nil
	b.mu.Unlock()
	if stale {
		if late != nil { // the old session ends here
			b.publishWill(late)
		}
		if err := b.wipe(s); err != nil {
			b.letGo(s)
			return false, err
		}
		s = b.replace(s, c)
	}
	c.session = s
	s.mu.Lock()
	s.flight.resume()
	s.mu.Unlock()
	return existed && !stale, b.renew(c, req.SessionExpiry)
}

// renew gives the session the time that its client asks for now, in seconds,
// and says on disk that it has not left.
func (b *Broker) renew(c *conn, asked uint32) error {
	s := c.session
	before, number := s.expiry, s.number
	s.expiry = b.expiry(asked)
	switch {
	case s.expiry > 0 && s.number == 0:
		s.number = newNumber()
	case s.expiry == 0 && !s.kept:
		s.number = 0
	}
	b.mu.Lock()
	saved, news := s.saved, s.user != c.id.IsUser()
	s.user = c.id.IsUser()
	b.mu.Unlock()
	changed := s.expiry != before || s.number != number
	if !s.kept || !changed && !news && saved.IsZero() {
		return nil
	}
	err := c.store(s.subs, false)
	switch {
	case err == nil:
		b.mu.Lock()
		s.saved = time.Time{}
		b.mu.Unlock()
	case !changed && errors.Is(err, storequeue.ErrFull):
		return nil // the sweep tries again
	}
	return err
}

// replace puts a new session in the place of one that was wiped, under the same
// claim.
func (b *Broker) replace(old *session, c *conn) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &session{clientID: old.clientID, owner: c.id.Name, free: old.free, holder: c}
	b.removeSession(old)
	b.admitSession(s)
	return s
}

// expiry is how long a session lasts that asks for n seconds.
func (b *Broker) expiry(n uint32) time.Duration {
	return min(time.Duration(n)*time.Second, b.limits.Load().SessionExpiry)
}

// detach is the connection's end of attach. It publishes the will, now or
// later, and ends the session or lets it wait.
func (b *Broker) detach(c *conn) {
	s := c.session
	s.conn.CompareAndSwap(c, nil)
	w := c.will
	switch {
	case c.code == mqtt.ServerShuttingDown: // the client did not go: we did
		w = nil
	case c.code == mqtt.AdministrativeAction && !c.trusted(): // its certificate has no voice any more
		w = nil
	}
	if w != nil && (w.delay == 0 || s.expiry == 0) {
		b.publishWill(w)
		w = nil
	}
	if s.expiry == 0 {
		err := b.wipe(s)
		if err == nil {
			b.drop(s)
			return
		}
		b.log.Error("end session: trying again", "client", s.clientID, "error", err)
	}
	now := time.Now()
	b.mu.Lock()
	s.expiry = min(s.expiry, b.limits.Load().SessionExpiry)
	s.ends = now.Add(s.expiry)
	if s.removed {
		s.ends, w = now, nil
	}
	if w != nil {
		s.will, s.willAt = w, now.Add(min(w.delay, s.expiry))
	}
	b.mu.Unlock()
	b.letGo(s)
}

// wipe takes a session out of everything that knows it but the table of
// sessions. The holder calls it.
func (b *Broker) wipe(s *session) error {
	s.mu.Lock()
	subs := s.subs
	s.subs, s.received, s.flight = nil, nil, flight{}
	s.mu.Unlock()
	for _, sub := range subs {
		b.subs.remove(s, sub)
	}
	var changes []storequeue.Change
	if s.kept {
		changes = gone(s)
	}
	var err error
	switch {
	case s.reader != nil:
		err = b.queue.Forget(s.reader, changes...)
	case s.kept:
		err = b.queue.SetState(changes...)
	}
	if err != nil {
		return err
	}
	s.setReader(nil)
	s.kept = false
	if s.number != 0 {
		b.ledger.touch(s)
	}
	return nil
}

// openReader gives a durable session its place in the log, in one commit with
// what else is to be said about it.
func (b *Broker) openReader(s *session, changes ...storequeue.Change) error {
	r, err := b.queue.Reader(s.readerName(), changes...)
	if err == nil {
		s.setReader(r)
	}
	return err
}

// setReader is for the holder.
func (s *session) setReader(r *storequeue.Reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reader = r
}

// may asks the rules in force now.
func (c *conn) may(action access.Action, topic string) bool {
	return c.b.access.Allow(c.id, action, topic)
}
