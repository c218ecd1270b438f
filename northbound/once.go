package northbound

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// Exactly once at QoS 2: a packet id stands for one message until the cloud has
// said PUBCOMP, over crashes and connections; what the cloud has received is on
// disk before PUBREL leaves.

// release answers PUBREC with PUBREL, after a commit that all share that came
// while the one before was being written. It ends with life.
func (l *Link) release(life context.Context, c *connection) {
	for {
		select {
		case <-c.window.commit:
		case <-life.Done():
			return
		}
		ids := c.window.takeReceived()
		if len(ids) == 0 {
			continue
		}
		if err := l.persist(life, func() error { return l.ledger.receive(ids) }); err != nil {
			c.fail(err)
			return
		}
		c.window.release(ids)
		var out []byte
		for _, id := range ids {
			out = appendPubrel(out, id)
		}
		if c.conn.writePacket(out, nil) != nil {
			return
		}
	}
}

func appendPubrel(dst []byte, id uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, packets.PUBREL<<4|2, 2), id)
}

// persist tries until the disk has room, or ctx ends. Any other error is one of
// the queue.
func (l *Link) persist(ctx context.Context, write func() error) error {
	for {
		err := write()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, storequeue.ErrFull):
			return fmt.Errorf("%w: %w", errSource, err)
		}
		l.status.note("QoS 2 towards the cloud waits: " + err.Error())
		if !pauseFor(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// once sends a message at QoS 2, or goes on with its handshake. It may wait for
// packet ids, and does not send when the connection ends meanwhile.
func (s *sender) once(ctx context.Context, lane int, m *storequeue.Message, p *publication) {
	at, ok := s.identify(ctx, lane, m.Seq)
	if !ok {
		s.stopped = true
		return
	}
	p.dup = at.dup
	s.link.ledger.sent(at.id)
	s.write(p, s.window.add(slot{seq: m.Seq, lane: lane, state: slotSent2, id: at.id, size: p.size()}))
}

// resume goes on with a message that the cloud has received, whatever rules and
// routes say by now: it is there.
func (s *sender) resume(lane int, seq uint64, id uint16) {
	s.window.add(slot{seq: seq, lane: lane, state: slotReleased, id: id, resumed: true})
	s.head = appendPubrel(s.head[:0], id)
	_ = s.conn.writePacket(s.head, nil) // an error ends the connection
}

// identify returns a message's packet id. It says no when the connection ends.
func (s *sender) identify(ctx context.Context, lane int, seq uint64) (standing, bool) {
	g, name := s.link.ledger, s.link.lanes[lane].Name()
	want := block{lane: name, live: lane < len(s.link.cfg.Live), first: seq}
	for {
		if at := g.find(name, seq); at.id != 0 {
			return at, true
		}
		s.flush()
		var stale []uint16
		free := false
		err := s.link.persist(ctx, func() (err error) {
			stale, free, err = g.reserve(want, s.link.settled)
			return err
		})
		if errors.Is(err, errSource) {
			s.fail(err)
		}
		if err != nil {
			return standing{}, false
		}
		if !free && !pauseFor(ctx, blockWait) { // cursors are written many times a second
			return standing{}, false
		}
		s.conn.cork()
		s.head = s.head[:0]
		for _, id := range stale {
			s.head = appendPubrel(s.head, id)
		}
		if s.conn.writePacket(s.head, nil) != nil {
			return standing{}, false
		}
	}
}

const blockWait = 20 * time.Millisecond

// settled says of a lane whether all of a range is done on disk. A lane that is
// gone needs nothing.
func (l *Link) settled(lane string, first, last uint64) bool {
	for _, s := range l.lanes {
		if s.Name() == lane {
			return s.Settled(first, last)
		}
	}
	return true
}
