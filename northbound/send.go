package northbound

import (
	"context"
	"encoding/binary"
	"fmt"
	"reflect"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A sender takes messages from the lanes to one connection.
type sender struct {
	*connection
	link  *Link
	after []uint64 // sent up to here, by lane
	turn  int      // counts batches
	pause backoff  // while the server refuses for now
	taken uint64   // by the cloud, at the last pause

	shaped []bool // by lane: it is what waited, and pace decides
	pace   pacer

	aside   int  // messages that were put aside on this connection
	stopped bool // the connection ended while a message waited for its packet id

	wakes       []reflect.SelectCase // of the lanes; then of the end, of answers and of the pace
	props, head []byte               // room to encode in
}

const (
	nextMax  = 256
	share    = 8  // of so many batches one is from a lane that is not the first
	shareMax = 32 // messages of it
)

func newSender(l *Link, c *connection) *sender {
	s := &sender{link: l, connection: c, after: make([]uint64, len(l.lanes)), shaped: make([]bool, len(l.lanes)), pace: newPacer(l.cfg.Rate)}
	for i, lane := range l.lanes {
		s.after[i] = c.window.done(i)
		s.shaped[i] = l.replays(i) || l.cfg.Rate > 0 && len(l.cfg.Live) == 0
		s.wakes = append(s.wakes, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(lane.Wake())})
	}
	for range 3 {
		s.wakes = append(s.wakes, reflect.SelectCase{Dir: reflect.SelectRecv})
	}
	return s
}

// run sends until ctx ends, and then returns nil. What was written has left
// when it returns.
func (s *sender) run(ctx context.Context) error {
	for {
		lane, msgs, err := s.next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", errSource, err)
		}
		s.conn.cork()
		for i := range msgs {
			if !s.admitted(ctx) || i > 0 && len(msgs) > shareMax && s.hurries(lane) {
				break
			}
			if s.send(ctx, lane, &msgs[i]); s.stopped {
				break
			}
			s.after[lane] = msgs[i].Seq
		}
		s.flush()
		if s.window.refused() {
			s.rewind(ctx)
		}
	}
}

// hurries reports whether something came for a lane before this one.
func (s *sender) hurries(lane int) bool {
	for i := range lane {
		if s.link.lanes[i].More(s.after[i]) {
			return true
		}
	}
	return false
}

// next returns messages of one lane, or nothing when a refusal came while it
// waited. It is the first lane that has some. But one batch in eight, a small
// one, is from one of those behind it, by turns: so the first lane does not
// starve them for ever.
func (s *sender) next(ctx context.Context) (lane int, msgs []storequeue.Message, err error) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.window.onRefusal(cancel) {
		return 0, nil, nil
	}
	defer s.window.onRefusal(nil)
	s.turn++
	for wait.Err() == nil {
		held := false
		if n := len(s.after) - 1; n > 0 && s.turn%share == 0 {
			for i := range n {
				lane = 1 + (s.turn/share+i)%n
				if msgs, _, err = s.poll(lane, shareMax); err != nil || len(msgs) > 0 {
					return lane, msgs, err
				}
			}
		}
		for lane = range s.after {
			var later bool
			if msgs, later, err = s.poll(lane, nextMax); err != nil || len(msgs) > 0 {
				return lane, msgs, err
			}
			held = held || later
		}
		s.wait(wait, held)
	}
	return 0, nil, nil
}

// poll asks one lane. later: it may have something whose time has not come.
func (s *sender) poll(lane, most int) (msgs []storequeue.Message, later bool, err error) {
	source := s.link.lanes[lane]
	if s.shaped[lane] {
		if room := s.room(); room <= 0 {
			return nil, source.More(s.after[lane]), nil
		} else if most > room {
			most = room
		}
	}
	msgs, err = source.Poll(s.after[lane], most)
	if err == nil && len(msgs) == 0 && !s.link.replays(lane) {
		s.shaped[lane] = false // it has caught up
	}
	return msgs, false, err
}

// wait returns when one of the lanes may have something, when ctx ends, and, if
// something is held back, when its time may have come.
func (s *sender) wait(ctx context.Context, held bool) {
	ways := s.wakes[len(s.wakes)-3:]
	ways[0].Chan, ways[1].Chan, ways[2].Chan = reflect.ValueOf(ctx.Done()), reflect.Value{}, reflect.Value{}
	if held {
		ways[1].Chan = reflect.ValueOf(s.window.wake)
		if pause := s.pace.pause(time.Now()); pause > 0 {
			t := time.NewTimer(pause)
			defer t.Stop()
			ways[2].Chan = reflect.ValueOf(t.C)
		}
	}
	reflect.Select(s.wakes)
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
func (s *sender) send(ctx context.Context, lane int, m *storequeue.Message) {
	l := s.link
	redo := &l.redo[lane]
	switch redo.verdict(m) {
	case sendDone:
		s.window.add(slot{seq: m.Seq, lane: lane, state: slotDone})
		return
	case sendLeft:
		s.window.add(slot{seq: m.Seq, lane: lane, state: slotLeft})
		return
	}
	if at := l.ledger.find(l.lanes[lane].Name(), m.Seq); at.received {
		s.resume(lane, m.Seq, at.id)
		return
	}
	if code, dead := redo.dead[m.Seq]; dead {
		s.quarantine(lane, m, code)
		return
	}
	if s.putsAside(lane, m.Seq) {
		s.window.add(slot{seq: m.Seq, lane: lane, state: slotAside})
		return
	}
	now := time.Now()
	route := l.find(l.routes.Load().send, m.Topic)
	switch {
	case route == nil || !l.cfg.Leaves(m.Topic):
		l.status.skipped.Add(1)
		s.drop(lane, m, Forbidden, 0)
		return
	case !m.Expires.IsZero() && !now.Before(m.Expires):
		l.status.expired.Add(1)
		s.drop(lane, m, Expired, 0)
		return
	}
	p, err := s.prepare(lane, m, route, now)
	switch {
	case err != nil:
		s.quarantine(lane, m, packets.PubackTopicNameInvalid)
	case p.size() > s.maxSize:
		s.quarantine(lane, m, packets.DisconnectPacketTooLarge)
	case p.qos == 0:
		s.write(&p, s.window.add(slot{seq: m.Seq, lane: lane, state: slotWritten}))
	case p.qos == 1:
		id := redo.ids[m.Seq]
		p.dup = id != 0
		s.write(&p, s.window.add(slot{seq: m.Seq, lane: lane, state: slotSent, id: id, size: p.size()}))
	default:
		s.once(ctx, lane, m, &p)
	}
}

// prepare is the publication as this server takes it.
func (s *sender) prepare(lane int, m *storequeue.Message, route *Route, now time.Time) (publication, error) {
	l := s.link
	p, err := l.publication(m, route, now, s.props)
	s.props = p.props
	if err == nil {
		err = l.wrap(&p, m, l.replays(lane))
	}
	p.retain = p.retain && s.retain
	p.qos = min(p.qos, s.maxQoS)
	if l.replays(lane) {
		p.props = appendText(appendText(append(p.props, propUser), propReplay), "1")
		s.props = p.props
		l.status.replayed.Add(1)
	}
	if s.shaped[lane] {
		s.pace.spend(p.size())
	}
	return p, err
}

func (s *sender) write(p *publication, id uint16) {
	s.alias(p)
	s.head = p.appendHead(s.head[:0], id)
	if s.conn.writePacket(s.head, p.body) == nil {
		s.link.status.sent.Add(1)
	}
}

// alias lets a topic that was sent before on this connection be a number, as far
// as the server takes those. It is done at writing, so that what is sent again
// elsewhere has its whole topic.
func (s *sender) alias(p *publication) {
	if s.maxAlias == 0 {
		return
	}
	n, known := s.aliases[p.topic]
	switch {
	case known:
		p.topic = ""
	case len(s.aliases) >= int(s.maxAlias) || p.size()+aliasSize+1 > s.maxSize:
		return
	default:
		n = uint16(len(s.aliases) + 1)
		s.aliases[p.topic] = n
	}
	p.props = binary.BigEndian.AppendUint16(append(p.props, propTopicAlias), n)
	s.props = p.props
}

// quarantine takes a message out of the way for good.
func (s *sender) quarantine(lane int, m *storequeue.Message, code byte) {
	l := s.link
	l.status.quarantined.Add(1)
	if muted, ok := l.status.quarantineLog.allow(); ok {
		l.log.Error("the cloud will not take a message: taken out of the way", "topic", m.Topic, "seq", m.Seq,
			"bytes", len(m.Payload), "code", codeText(code), "muted", muted)
	}
	s.drop(lane, m, Refused, code)
}

// drop lets the cursor pass a message that was not delivered, and says so.
func (s *sender) drop(lane int, m *storequeue.Message, why Drop, code byte) {
	if s.link.cfg.Dropped != nil {
		s.link.cfg.Dropped(*m, why, code)
	}
	s.window.add(slot{seq: m.Seq, lane: lane, state: slotLeft})
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
	if s.aside > 0 { // what is suspected shall be alone
		s.window.begin()
		s.aside = 0
	}
	for i := range s.after {
		s.after[i] = s.window.done(i)
	}
	s.link.advance(s.window)
	later := s.link.learn(s.window, rest)
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
