package northbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/eclipse/paho.golang/packets"
	paholog "github.com/eclipse/paho.golang/paho/log"
	pahosession "github.com/eclipse/paho.golang/paho/session"
)

var errProtocol = errors.New("the server broke the MQTT protocol")

// A session is the client's half of an MQTT session, as paho asks for it, for
// one connection. It stores nothing and retransmits nothing: what was sent is
// in the window, and what was not acknowledged is in the queue. Packet ids of
// PUBLISH belong to the window; requests get those from firstRequestID on.
type session struct {
	begin    func(*packets.Connack) (*window, error)
	answered func(code byte) // told of each last answer to a message of the window
	ledger   *ledger
	intake   *intake
	fail     func(error)     // ends the connection
	lost     <-chan struct{} // closed when it ended

	window *window // nil before CONNACK
	conn   io.Writer

	mu       sync.Mutex // covers the fields below
	closed   bool
	lastID   uint16
	requests map[uint16]chan<- packets.ControlPacket
}

const firstRequestID = 65000

// ConAckReceived has nothing to send again, whatever the server remembers.
func (s *session) ConAckReceived(w io.Writer, _ *packets.Connect, ack *packets.Connack) error {
	var err error
	s.conn = w
	s.window, err = s.begin(ack)
	return err
}

// ConnectionLost releases whoever waits for an answer.
func (s *session) ConnectionLost(d *packets.Disconnect) error {
	if d != nil {
		s.fail(&disconnectError{d.ReasonCode, reasonString(d.Properties)})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for id, answer := range s.requests {
		answer <- packets.ControlPacket{} // paho's sign for "none will come"; it has room
		delete(s.requests, id)
	}
	return nil
}

// AddToSession registers a request: SUBSCRIBE, or the PUBLISH of our state.
func (s *session) AddToSession(_ context.Context, p pahosession.Packet, answer chan<- packets.ControlPacket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if len(s.requests) > 100 {
		return errors.New("too many requests wait for an answer")
	}
	for {
		s.lastID = max(s.lastID+1, firstRequestID)
		if s.requests[s.lastID] == nil {
			break
		}
	}
	s.requests[s.lastID] = answer
	p.SetIdentifier(s.lastID)
	return nil
}

func (s *session) reply(p *packets.ControlPacket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer := s.requests[p.PacketID()]; answer != nil {
		delete(s.requests, p.PacketID())
		answer <- *p
	}
}

// plain takes a success of the window that came without any property.
func (s *session) plain(kind byte, id uint16) bool {
	if s.window == nil || id >= firstRequestID {
		return false
	}
	s.take(kind, id, packets.PubackSuccess)
	return true
}

// take is told of each answer to a message of the window.
func (s *session) take(kind byte, id uint16, code byte) {
	switch kind {
	case packets.PUBACK:
		if s.window.answer(id, code) {
			s.answered(code)
		}
	case packets.PUBREC:
		known, refused := s.window.pubrec(id, code)
		switch {
		case refused:
			s.ledger.over(id)
			s.answered(code)
		case !known && code < 0x80: // [MQTT-4.3.3-4]: it wants to hear that we are done with it
			s.note((&packets.Pubrel{PacketID: id, ReasonCode: codeNoSuchID, Properties: &packets.Properties{}}).WriteTo(s.conn))
		}
	case packets.PUBCOMP:
		done, unknown := s.window.pubcomp(id, code)
		switch {
		case done:
			s.ledger.over(id)
			s.answered(packets.PubcompSuccess)
		case unknown:
			s.answered(code)
			if err := s.ledger.lose(id); err != nil {
				s.fail(err)
			}
		}
	}
}

func (s *session) note(_ int64, err error) {
	if err != nil {
		s.fail(err)
	}
}

// PacketReceived is called by the reader for each packet that has an id.
func (s *session) PacketReceived(p *packets.ControlPacket, in chan<- *packets.Publish) error {
	switch c := p.Content.(type) {
	case *packets.Puback:
		if c.PacketID >= firstRequestID {
			s.reply(p)
		} else {
			s.take(packets.PUBACK, c.PacketID, c.ReasonCode)
		}
	case *packets.Pubrec:
		s.take(packets.PUBREC, c.PacketID, c.ReasonCode)
	case *packets.Pubcomp:
		s.take(packets.PUBCOMP, c.PacketID, c.ReasonCode)
	case *packets.Publish:
		if c.PacketID == 0 || c.QoS > 2 { // [MQTT-2.2.1-3] [MQTT-3.3.1-4]
			s.fail(fmt.Errorf("%w: a PUBLISH with QoS %d and packet id %d", errProtocol, c.QoS, c.PacketID))
			return nil
		}
		select {
		case in <- c:
		case <-s.lost:
		}
	case *packets.Pubrel:
		s.intake.release(c.PacketID)
	default:
		s.reply(p)
	}
	return nil
}

// Ack acknowledges a message that was handed on.
func (s *session) Ack(p *packets.Publish) error {
	var err error
	if p.QoS == 2 {
		_, err = (&packets.Pubrec{PacketID: p.PacketID}).WriteTo(s.conn)
	} else {
		_, err = (&packets.Puback{PacketID: p.PacketID}).WriteTo(s.conn)
	}
	return err
}

// Close has nothing to close; paho never calls it.
func (s *session) Close() error { return nil }

// SetErrorLogger and SetDebugLogger: errors go to fail.
func (s *session) SetErrorLogger(paholog.Logger) {}
func (s *session) SetDebugLogger(paholog.Logger) {}

func reasonString(p *packets.Properties) string {
	if p == nil {
		return ""
	}
	return p.ReasonString
}
