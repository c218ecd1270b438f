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
	it, again := c.place(m.Seq, c.prepare(m))
	switch it.stage {
	case finished:
		return true
	case released:
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: it.id}) // [MQTT-4.3.3-7]
		return true
	}
	c.delivery.topic.PacketID, c.delivery.topic.Dup = it.id, again // [MQTT-3.3.1-1]
	return c.transmit(ctx, it.id)
}

// place gives a message its place in the flight, if it has none yet. wanted
// says whether it is to be sent; again, whether it was on an earlier connection.
func (c *conn) place(seq uint64, wanted bool) (it item, again bool) {
	f := &c.session.flight
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	p, isNew := f.find(seq)
	switch {
	case isNew && wanted:
		p = f.begin(seq, c.delivery.topic.QoS)
	case isNew:
		f.skip(seq)
	case p != nil && !wanted && p.qos == 2:
		// The client may have it; only PUBREL frees the packet id on its side.
		p.stage = released
	case p != nil && !wanted:
		f.finish(p)
		p = nil
	}
	if p == nil {
		c.settle()
		return item{stage: finished}, false
	}
	f.transmit(p)
	return *p, !isNew
}

// transmit encodes what prepare made and waits for room in the outbox.
func (c *conn) transmit(ctx context.Context, id uint16) bool {
	d := &c.delivery
	frame, err := mqtt.Append(d.frame[:0], c.version, &d.topic)
	if err != nil || !c.fits(len(frame)) {
		c.finish(id)
		return true
	}
	if d.frame = frame; cap(frame) > maxPooled {
		d.frame = nil
	}
	if !c.out.frameWait(ctx.Done(), frame) {
		return false
	}
	c.b.stats.delivered.Add(1)
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

// progress takes a client's PUBACK, PUBREC or PUBCOMP, and answers PUBREC.
func (c *conn) progress(a *mqtt.Ack) {
	code, release := c.advance(a)
	if release {
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: a.PacketID, Code: code})
	}
}

// advance moves a message along. A refusal ends it like an acknowledgement: the
// client has decided. release says that PUBREL is due.
func (c *conn) advance(a *mqtt.Ack) (code mqtt.ReasonCode, release bool) {
	f := &c.session.flight
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	it := f.byID(a.PacketID)
	accepted := a.Kind == mqtt.PUBREC && !a.Code.Failed()
	switch {
	case it == nil: // section 4.3.3
		return mqtt.PacketIdentifierNotFound, accepted
	case accepted && it.qos == 2:
		it.stage = released
		return mqtt.Success, true
	case a.Kind == mqtt.PUBACK && it.qos == 1, a.Kind == mqtt.PUBREC && it.qos == 2,
		a.Kind == mqtt.PUBCOMP && it.stage == released:
		f.finish(it)
		c.settle()
	}
	return mqtt.Success, false
}

// finish ends a message that cannot be sent to this client.
func (c *conn) finish(id uint16) {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.flight.byID(id); it != nil {
		s.flight.finish(it)
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
