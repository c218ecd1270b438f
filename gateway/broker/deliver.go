package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// A delivery is the goroutine that sends a session, out of the log, what it
// gets with QoS 1 and 2. There is one while a connection holds a session that
// has a reader.
type delivery struct {
	stop func()        // nil: not started
	wake chan struct{} // room for one: a place in the client's window became free
	done sync.WaitGroup

	topic mqtt.Publish // reused
	frame []byte
}

// batch is how many messages are asked of the log at a time, at most.
const batch = 64

// start begins delivering; end, or the connection's closing, ends it.
func (d *delivery) start(ctx context.Context, c *conn) {
	if d.stop != nil {
		return
	}
	ctx, d.stop = context.WithCancel(ctx)
	d.wake = make(chan struct{}, 1)
	d.done.Go(func() {
		defer c.survive()
		c.deliver(ctx)
	})
}

// end waits until the delivery is over. It waits for no socket.
func (d *delivery) end() {
	if d.stop != nil {
		d.stop()
		d.done.Wait()
	}
}

// deliver begins with what is not acknowledged, so that a new connection sees
// first what the last one left open.
func (c *conn) deliver(ctx context.Context) {
	c.farewell()
	reader := c.session.reader
	after := reader.Acked()
	for {
		free := c.freeWindow(ctx)
		if free == 0 {
			return
		}
		msgs, err := reader.Next(ctx, after, min(free, batch))
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, storequeue.ErrClosed) {
				c.b.log.Error("read the log for a session", "client", c.session.clientID, "error", err)
				c.close(mqtt.UnspecifiedError)
			}
			return
		}
		for i := range msgs {
			if !c.forward(ctx, &msgs[i]) {
				return
			}
			after = msgs[i].Seq
		}
	}
}

// freeWindow waits until the client may be sent more, and says how much.
func (c *conn) freeWindow(ctx context.Context) int {
	s := c.session
	for {
		s.mu.Lock()
		free := c.window - s.flight.open
		s.mu.Unlock()
		if free > 0 {
			return free
		}
		select {
		case <-c.delivery.wake:
		case <-c.quit:
			return 0
		case <-ctx.Done():
			return 0
		}
	}
}

// forward sends one message of the log, or notes why it need not. It reports
// false when the connection is over.
func (c *conn) forward(ctx context.Context, m *storequeue.Message) bool {
	wanted := c.prepare(m)
	it, again, busy := c.place(m, wanted)
	for busy { // its packet id is that of an older message, which is rare
		select {
		case <-c.delivery.wake:
		case <-c.quit:
			return false
		case <-ctx.Done():
			return false
		}
		it, again, busy = c.place(m, wanted)
	}
	switch it.stage {
	case published:
		c.delivery.topic.PacketID, c.delivery.topic.Dup = it.id, again // [MQTT-3.3.1-1]
		if !c.transmit(ctx, &it, again) {
			return false
		}
		if c.b.delivered != nil && !again {
			c.b.delivered(time.Since(m.Time))
		}
	case released:
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: it.id}) // [MQTT-4.3.3-6]
	}
	return true
}

// place gives a message its place in the flight, if it has none yet. wanted
// says whether it is to be sent; again, whether it may have been before; busy,
// that its packet id is in use.
func (c *conn) place(m *storequeue.Message, wanted bool) (it item, again, busy bool) {
	s := c.session
	f := &s.flight
	s.mu.Lock()
	defer s.mu.Unlock()
	p, isNew := f.find(m.Seq)
	again = !isNew || m.Seq <= c.b.before
	if isNew {
		qos := min(m.QoS, markOf(m, s.reader.ID()).QoS)
		recorded := f.isRecorded(m.Seq)
		switch {
		case !wanted && !recorded && !(again && qos == 2):
			f.skip(m.Seq)
		case f.byID(packetID(m.Seq)) != nil:
			return item{}, false, true
		default:
			p = f.begin(m.Seq, qos)
		}
		if recorded {
			p.stage = released
		}
	}
	if p != nil && !wanted && p.stage == published {
		c.retract(p, again)
	}
	if p == nil || p.stage == finished {
		c.settle()
		return item{stage: finished}, false, false
	}
	f.transmit(p)
	return *p, again, false
}

// retract ends a message that is not to be sent any more. A client that may
// have it with QoS 2 gets PUBREL: only that frees the packet id on its side.
// The session's lock is held.
func (c *conn) retract(p *item, again bool) {
	if p.qos == 2 && again {
		c.recorded(p)
		return
	}
	c.session.flight.finish(p)
}

// recorded moves a message to PUBREL, which waits for the ledger if the session
// is in there. The session's lock is held.
func (c *conn) recorded(p *item) {
	s, seq := c.session, p.seq
	if s.number == 0 {
		p.stage = released
		return
	}
	p.stage = received
	s.flight.record(seq)
	c.b.ledger.commit(s, func() { s.released(seq) })
}

// released sends PUBREL for a message whose PUBREC is on disk, unless another
// connection is about to [MQTT-4.3.3-4].
func (s *session) released(seq uint64) {
	var to *conn
	var id uint16
	s.mu.Lock()
	if it, _ := s.flight.find(seq); it != nil && it.stage == received {
		it.stage = released
		id = it.id
		if it.sent {
			to = s.conn.Load()
		}
	}
	s.mu.Unlock()
	if to != nil {
		to.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: id})
	}
}

// transmit encodes what prepare made and waits for room in the outbox.
func (c *conn) transmit(ctx context.Context, it *item, again bool) bool {
	d := &c.delivery
	frame, err := mqtt.Append(d.frame[:0], c.version, &d.topic)
	if err != nil || !c.fits(len(frame)) {
		c.drop(it.seq, again)
		return true
	}
	if d.frame = frame; cap(frame) > maxPooled {
		d.frame = nil
	}
	if !c.out.frameWait(ctx.Done(), frame) {
		return false
	}
	c.sent()
	return true
}

// prepare makes the PUBLISH for the session of m and reports whether it is to
// be sent. The granted QoS is that of the moment of publication; subscription
// identifiers and Retain As Published are those of now, and what no
// subscription of now is for is not sent.
func (c *conn) prepare(m *storequeue.Message) bool {
	s, p := c.session, &c.delivery.topic
	now := time.Now()
	if expired(m, now) {
		c.b.stats.droppedExpired.Add(1)
		return false
	}
	if !c.may(access.Subscribe, m.Topic) {
		c.b.denied(c.id, access.Subscribe, m.Topic)
		return false
	}
	mark := markOf(m, s.reader.ID())
	if mark.Flags&viaRetained != 0 && !c.b.mayStand(m) {
		c.b.stats.denied.Add(1)
		return false
	}
	setPublish(p, m, now)
	p.QoS = min(m.QoS, mark.QoS)
	p.Retain = mark.Flags&viaRetained != 0
	return c.subscribed(p, m, mark.Flags) && p.QoS > 0
}

// subscribed puts into p what the session's subscriptions of now say about m,
// and reports whether there is one for it.
func (c *conn) subscribed(p *mqtt.Publish, m *storequeue.Message, flags byte) (found bool) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	for _, sub := range c.session.subs {
		if !sub.wants(m.Topic, flags) {
			continue
		}
		found = true
		p.Retain = p.Retain || m.Retain && sub.retainAsPublished // [MQTT-3.3.1-13]
		if sub.id != 0 {
			p.SubscriptionIDs = append(p.SubscriptionIDs, sub.id) // [MQTT-3.3.4-4]
		}
	}
	return found
}

// wants reports whether the subscription is one that the flags of a mark mean.
func (sub *subscription) wants(topic string, flags byte) bool {
	if sub.noLocal && flags&viaItself != 0 {
		return false
	}
	via := viaPlain | viaRetained
	if sub.group != "" {
		via = viaShared
	}
	return flags&via != 0 && mqtt.Match(sub.match, topic)
}

func markOf(m *storequeue.Message, id storequeue.ReaderID) storequeue.Mark {
	for _, mark := range m.For {
		if mark.Reader == id {
			return mark
		}
	}
	return storequeue.Mark{}
}

// progress takes a client's PUBACK, PUBREC or PUBCOMP, and answers PUBREC, if
// need be later.
func (c *conn) progress(a *mqtt.Ack) {
	code, release := c.advance(a)
	if release {
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: a.PacketID, Code: code})
	}
}

// advance moves a message along. A refusal ends it like an acknowledgement: the
// client has decided. release says that PUBREL is due now.
func (c *conn) advance(a *mqtt.Ack) (code mqtt.ReasonCode, release bool) {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.flight.byID(a.PacketID)
	accepted := a.Kind == mqtt.PUBREC && !a.Code.Failed()
	switch {
	case it == nil: // section 4.3.3
		return mqtt.PacketIdentifierNotFound, accepted
	case accepted && it.qos == 2:
		if it.stage == published {
			c.recorded(it)
		}
		return mqtt.Success, it.stage == released
	case a.Kind == mqtt.PUBACK && it.qos == 1, a.Kind == mqtt.PUBREC && it.qos == 2,
		a.Kind == mqtt.PUBCOMP && it.stage == released:
		if it.stage == released && s.number != 0 {
			c.b.ledger.touch(s)
		}
		s.flight.finish(it)
		c.settle()
	}
	return mqtt.Success, false
}

// drop ends a message that cannot be sent to this client.
func (c *conn) drop(seq uint64, again bool) {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if it, _ := s.flight.find(seq); it != nil && it.stage == published {
		c.retract(it, again)
		c.settle()
	}
}

// settle moves the reader over what is finished. The session's lock is held.
func (c *conn) settle() {
	if seq, ok := c.session.flight.settle(); ok {
		c.session.reader.Ack(seq)
	}
	select {
	case c.delivery.wake <- struct{}{}:
	default:
	}
}
