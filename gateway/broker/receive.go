package broker

import (
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// An incoming is a QoS 2 message between its PUBLISH and its PUBREL: it was
// handed to the queue once and is not again, however often it is sent
// [MQTT-4.3.3-10].
type incoming struct {
	stored   bool
	noted    bool  // the ledger has it, or will have it with its message
	released bool  // PUBREL came; the ledger is striking it out
	conn     *conn // the last one that sent it: whom to answer; nil: none since the gateway started
	last     *conn // the last one that sent PUBREL
}

// receive notes a QoS 2 packet id as taken, unless there are more than most.
func (s *session) receive(id uint16, c *conn, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.received) >= most {
		return false
	}
	if s.received == nil {
		s.received = map[uint16]*incoming{}
	}
	s.received[id] = &incoming{conn: c, noted: s.expiry > 0}
	return true
}

// stored notes the queue's verdict and returns whom to tell; nil: nobody.
func (s *session) stored(id uint16, stored bool) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.received[id]
	if in == nil {
		return nil
	}
	if !stored {
		delete(s.received, id)
	}
	in.stored = stored
	return in.conn
}

// again notes that c sent the packet id once more. here says whether its
// message is here already; counted, whether it has a place in c's window.
func (s *session) again(id uint16, c *conn) (here, stored, counted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.received[id]
	if in == nil {
		return false, false, false
	}
	counted = in.conn == c || c.version == mqtt.V311
	in.conn = c
	return true, in.stored, counted
}

// repeated reports whether the packet id is one whose message is here already,
// and answers as before.
func (c *conn) repeated(id uint16) bool {
	here, stored, counted := c.session.again(id, c)
	if counted {
		c.answers.free()
	}
	if stored {
		c.answers.now(mqtt.Ack{Kind: mqtt.PUBREC, PacketID: id})
	}
	return here
}

// release forgets the packet id of a PUBREL and answers PUBCOMP: once the
// ledger has forgotten it too, if it is there.
func (c *conn) release(a *mqtt.Ack) error {
	s, id := c.session, a.PacketID
	was, known := s.release(id, c)
	switch {
	case !known:
		c.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: id, Code: mqtt.PacketIdentifierNotFound})
	case !was.stored:
		return violation(mqtt.ProtocolError, "MQTT-4.3.3-4", "PUBREL before PUBREC")
	case !was.noted:
		s.complete(id)
	case !was.released:
		c.b.ledger.commit(s, func() { s.complete(id) })
	}
	return nil
}

// release notes a PUBREL from c for a message that is stored, and returns what
// was known of it.
func (s *session) release(id uint16, c *conn) (was incoming, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.received[id]
	if in == nil {
		return incoming{}, false
	}
	was = *in
	if in.stored {
		in.released, in.last = true, c
	}
	return was, true
}

// complete forgets a packet id and tells who sent the last PUBREL for it.
func (s *session) complete(id uint16) {
	s.mu.Lock()
	in := s.received[id]
	delete(s.received, id)
	s.mu.Unlock()
	if in == nil { // the session was wiped meanwhile
		return
	}
	if in.conn == in.last && in.last.version == mqtt.V5 {
		in.last.answers.free() // before the client can know, and send the next
	}
	in.last.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: id})
}
