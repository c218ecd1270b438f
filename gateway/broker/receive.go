package broker

import (
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// An incoming is a QoS 2 message between its PUBLISH and its PUBREL: it was
// handed to the queue once and is not again, however often it is sent
// [MQTT-4.3.3-10].
type incoming struct {
	stored bool
	conn   *conn // the last one that sent it: whom to answer
}

// receive notes a QoS 2 packet id as taken.
func (s *session) receive(id uint16, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == nil {
		s.received = map[uint16]*incoming{}
	}
	s.received[id] = &incoming{conn: c}
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

// release answers PUBREL with PUBCOMP and forgets the packet id.
func (c *conn) release(a *mqtt.Ack) error {
	in := c.session.forget(a.PacketID)
	code := mqtt.Success
	switch {
	case in == nil:
		code = mqtt.PacketIdentifierNotFound
	case !in.stored:
		return violation(mqtt.ProtocolError, "MQTT-4.3.3-4", "PUBREL before PUBREC")
	case in.conn == c && c.version == mqtt.V5:
		c.answers.free()
	}
	c.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: a.PacketID, Code: code})
	return nil
}

// forget removes a packet id whose message is stored, and returns what it was.
func (s *session) forget(id uint16) *incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.received[id]
	if in == nil {
		return nil
	}
	if in.stored {
		delete(s.received, id)
	}
	was := *in
	return &was
}
