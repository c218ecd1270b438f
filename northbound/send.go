package northbound

import (
	"context"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A sender takes messages from the source to one connection.
type sender struct {
	*connection
	link  *Link
	after uint64  // sent up to here
	pause backoff // while the server refuses for now
	taken uint64  // by the cloud, at the last pause

	props, head []byte // room to encode in
}

const nextMax = 256

// run sends until ctx ends, and then returns nil. What was written has left
// when it returns.
func (s *sender) run(ctx context.Context) error {
	for {
		msgs, err := s.next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", errSource, err)
		}
		s.conn.cork()
		for i := range msgs {
			if !s.admitted(ctx) {
				break
			}
			s.send(&msgs[i])
			s.after = msgs[i].Seq
		}
		s.flush()
		if s.window.refused() {
			s.rewind(ctx)
		}
	}
}

// next returns nothing when a refusal came while waiting.
func (s *sender) next(ctx context.Context) ([]storequeue.Message, error) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.window.onRefusal(cancel) {
		return nil, nil
	}
	defer s.window.onRefusal(nil)
	msgs, err := s.link.source.Next(wait, s.after, nextMax)
	if wait.Err() != nil {
		return nil, nil
	}
	return msgs, err
}

// admitted waits for room, and says no when a refusal or the end came first.
func (s *sender) admitted(ctx context.Context) bool {
	for !s.window.admits() {
		s.flush()
		if s.window.refused() {
			return false
		}
		if s.window.admits() { // what left by flushing made room
			break
		}
		select {
		case <-s.window.wake:
		case <-ctx.Done():
			return false
		}
	}
	s.conn.cork()
	return ctx.Err() == nil
}

// flush lets everything written leave; what was sent at QoS 0 is done by that.
func (s *sender) flush() {
	if s.conn.uncork() == nil {
		s.link.status.acked.Add(uint64(s.window.flushed()))
		s.link.advance(s.window)
	}
}

// send puts one message on the connection, or leaves it out and counts it. A
// write error ends the connection, and with it the sender.
func (s *sender) send(m *storequeue.Message) {
	l := s.link
	now := time.Now()
	route := l.find(l.cfg.Send, m.Topic)
	switch l.redo.verdict(m) {
	case sendDone:
		s.window.add(m.Seq, slotDone)
		return
	case sendLeft:
		s.window.add(m.Seq, slotLeft)
		return
	case sendNever:
		s.quarantine(m, l.redo.dead[m.Seq])
		return
	}
	switch {
	case route == nil || !l.cfg.Leaves(m.Topic):
		l.status.skipped.Add(1)
		s.drop(m, Forbidden, 0)
		return
	case !m.Expires.IsZero() && !now.Before(m.Expires):
		l.status.expired.Add(1)
		s.drop(m, Expired, 0)
		return
	}
	p, err := l.publication(m, route, now, s.props)
	s.props = p.props
	p.retain = p.retain && s.retain
	switch {
	case err != nil:
		s.quarantine(m, packets.PubackTopicNameInvalid)
	case p.size() > s.maxSize:
		s.quarantine(m, packets.DisconnectPacketTooLarge)
	case p.qos == 0:
		s.write(&p, s.window.add(m.Seq, slotWritten))
	default:
		s.write(&p, s.window.add(m.Seq, slotSent))
	}
}

func (s *sender) write(p *publication, id uint16) {
	s.head = p.appendHead(s.head[:0], id)
	if s.conn.writePacket(s.head, p.body) == nil {
		s.link.status.sent.Add(1)
	}
}

// quarantine takes a message out of the way for good.
func (s *sender) quarantine(m *storequeue.Message, code byte) {
	l := s.link
	l.status.quarantined.Add(1)
	if muted, ok := l.status.quarantineLog.allow(); ok {
		l.log.Error("the cloud will not take a message: taken out of the way", "topic", m.Topic, "seq", m.Seq,
			"bytes", len(m.Payload), "code", codeText(code), "muted", muted)
	}
	s.drop(m, Refused, code)
}

// drop lets the cursor pass a message that was not delivered, and says so.
func (s *sender) drop(m *storequeue.Message, why Drop, code byte) {
	if s.link.cfg.Dropped != nil {
		s.link.cfg.Dropped(*m, why, code)
	}
	s.window.add(m.Seq, slotLeft)
}

// rewind goes back to the oldest message that is not done, once everything
// sent has its answer. If the server asked for time it gets it.
func (s *sender) rewind(ctx context.Context) {
	for s.window.unanswered() > 0 {
		select {
		case <-s.window.wake:
		case <-ctx.Done():
			return
		}
	}
	rest := s.window.reset()
	s.after = s.window.done()
	s.link.advance(s.window)
	later := s.link.redo.take(s.after, rest)
	if later == 0 {
		return
	}
	if taken := s.link.status.acked.Load(); taken > s.taken {
		s.pause.reset()
		s.taken = taken
	}
	s.window.slow()
	s.link.status.note(fmt.Sprintf("the server refuses messages (%s): they wait here; look at its access list, its quota and its log", codeText(later)))
	s.pause.wait(ctx)
}
