package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// What Publish answers when trying again does not help.
var (
	ErrDenied = errors.New("no rule allows it")
	ErrTopic  = errors.New("not a topic, or too long")
	ErrRetain = errors.New("too many retained messages") // it would be taken without Retain
)

// A publication is one message on its way through the broker. They are reused:
// whoever calls route gives it away.
type publication struct {
	b        *Broker
	msg      storequeue.Message
	origin   *session // the publisher's, for No Local; nil: none
	matches  matches
	live     live
	retained *storequeue.Message // a copy to keep; nil: none
	left     uint64              // of retained.arrivals; 0: none

	// Who is to be told; at most one of the two.
	conn   *conn
	ack    mqtt.Ack
	result chan error

	note [noteSize]byte              // of msg; see ledger
	done func(seq uint64, err error) // committed, bound once
}

func (b *Broker) newPublication() *publication {
	p, ok := b.publications.Get().(*publication)
	if !ok {
		p = &publication{b: b}
		p.done = p.committed
	}
	return p
}

func (p *publication) recycle() {
	p.msg = storequeue.Message{For: p.msg.For[:0]}
	p.matches.reset()
	p.live.reset()
	p.origin, p.retained, p.left, p.conn, p.result = nil, nil, 0, nil, nil
	p.b.publications.Put(p)
}

// publish takes a PUBLISH from the client.
func (c *conn) publish(ctx context.Context, p *mqtt.Publish) error {
	if len(p.SubscriptionIDs) > 0 {
		return violation(mqtt.ProtocolError, "MQTT-3.3.4-6", "a client that sends a subscription identifier")
	}
	topic, err := c.resolve(p)
	if err != nil {
		return err
	}
	if !c.mayPublish(ctx) {
		return errGone
	}
	if p.QoS > 0 {
		if err := c.answers.take(ctx); err != nil {
			return err
		}
	}
	if p.QoS == 2 && c.repeated(p.PacketID) {
		return nil
	}
	if p.QoS > 0 && c.session.expiry > 0 && !c.session.kept {
		if err := c.store(c.session.subs, false); err != nil {
			return fmt.Errorf("store session: %w", err)
		}
	}
	pub := c.b.newPublication()
	setMessage(&pub.msg, p, topic, c.id.Name)
	if code := c.b.verdict(c.id, &pub.msg); code != mqtt.Success {
		pub.recycle()
		return c.refuse(p, code)
	}
	pub.origin = c.session
	if p.QoS > 0 {
		pub.conn = c
		pub.ack = mqtt.Ack{Kind: answerTo(p.QoS), PacketID: p.PacketID}
		if p.QoS == 2 {
			if err := c.receive(pub, p.PacketID); err != nil {
				pub.recycle()
				return err
			}
		}
		c.answers.submit()
	}
	c.b.route(pub)
	return nil
}

// receive notes a QoS 2 packet id as taken, and in the message if the session
// outlives the connection.
func (c *conn) receive(p *publication, id uint16) error {
	s := c.session
	if !s.receive(id, c, max(maxReceived, c.limits.ReceiveMaximum)) {
		return violation(mqtt.ReceiveMaximumExceeded, "MQTT-3.3.4-9", "too many QoS 2 messages without PUBREL")
	}
	if s.expiry > 0 {
		p.msg.Note = appendNote(p.note[:0], s.number, id)
		p.msg.For = append(p.msg.For, storequeue.Mark{Reader: c.b.ledger.reader.ID()})
	}
	return nil
}

// resolve gives a PUBLISH its topic, by name or by alias.
func (c *conn) resolve(p *mqtt.Publish) (string, error) {
	if int(p.TopicAlias) > c.limits.Aliases {
		return "", violation(mqtt.TopicAliasInvalid, "MQTT-3.3.2-9", "a topic alias beyond the maximum that CONNACK named")
	}
	if len(p.Topic) == 0 {
		if p.TopicAlias == 0 || int(p.TopicAlias) > len(c.aliases) || c.aliases[p.TopicAlias-1] == "" {
			return "", violation(mqtt.ProtocolError, "section 3.3.2.3.4", "no topic, and no alias that stands for one")
		}
		return c.aliases[p.TopicAlias-1], nil
	}
	if c.topic != string(p.Topic) {
		c.topic = string(p.Topic)
	}
	if p.TopicAlias > 0 {
		if c.aliases == nil {
			c.aliases = make([]string, c.limits.Aliases)
		}
		c.aliases[p.TopicAlias-1] = c.topic
	}
	return c.topic, nil
}

// refusal says why id may not publish to topic; Success: it may.
func (b *Broker) refusal(id access.Identity, topic string) mqtt.ReasonCode {
	if len(topic) > MaxTopic || strings.Count(topic, "/") >= b.limits.Load().TopicLevels {
		b.stats.hits.add(limitTopicLevels)
		return mqtt.TopicNameInvalid
	}
	if mqtt.CheckTopic(topic) != nil {
		return mqtt.TopicNameInvalid
	}
	if access.ServerOnly(topic) || !b.access.Allow(id, access.Publish, topic) {
		b.denied(id, access.Publish, topic)
		return mqtt.NotAuthorized
	}
	return mqtt.Success
}

// verdict is refusal for a message: one to retain needs room as well. One with
// QoS 0 that finds none goes on, and is not retained [MQTT-3.3.1-7].
func (b *Broker) verdict(from access.Identity, m *storequeue.Message) mqtt.ReasonCode {
	if code := b.refusal(from, m.Topic); code != mqtt.Success {
		return code
	}
	if m.Retain && len(m.Payload) > 0 {
		if full := b.retainedFull(from.Name, m); full != limitNone {
			b.stats.refused.Add(1)
			b.stats.retainedRefused.Add(1)
			b.stats.hits.add(full)
			b.rarely.log(b.log.Warn, "too much is retained: refused, or with QoS 0 not retained; see broker.limits",
				"identity", from.Name, "topic", m.Topic, "limit", limitNames[full])
			if m.QoS > 0 {
				return mqtt.QuotaExceeded
			}
			m.Retain = false
		}
	}
	b.stats.received.Add(1)
	return mqtt.Success
}

func (b *Broker) denied(id access.Identity, action access.Action, topic string) {
	b.stats.denied.Add(1)
	b.tell(slog.LevelWarn, eventDenied, "denied: no rule allows it", "identity", id.Name, "action", action.String(), "topic", short(topic))
}

// refuse answers a PUBLISH that is not taken. QoS 0 has no answer and is
// dropped. 3.1.1 has no negative acknowledgement, and a positive one would be a
// lie, so the connection ends [MQTT-3.3.5-2].
func (c *conn) refuse(p *mqtt.Publish, code mqtt.ReasonCode) error {
	switch {
	case code == mqtt.TopicNameInvalid:
		return violation(code, "MQTT-3.3.2-2", "a topic that is malformed or has too many levels")
	case p.QoS == 0:
		return nil
	case c.version == mqtt.V311:
		c.close(code)
		return errGone
	}
	c.answers.free()
	c.answers.now(mqtt.Ack{Kind: answerTo(p.QoS), PacketID: p.PacketID, Code: code})
	return nil
}

func answerTo(qos byte) mqtt.Type {
	if qos == 2 {
		return mqtt.PUBREC
	}
	return mqtt.PUBACK
}

// Publish is for everybody inside the gateway: devices, links, the gateway
// itself. It passes the same rules and the same path as a client's PUBLISH; nil
// means on disk. Marks that m has are kept, before those that it gets. If ctx ends first the message may still be stored. m's bytes
// are not kept. It may be called as soon as New has returned.
func (b *Broker) Publish(ctx context.Context, from access.Identity, m storequeue.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.QoS > 2 {
		return fmt.Errorf("publish to %q: QoS %d: choose 0, 1 or 2", m.Topic, m.QoS)
	}
	switch b.verdict(from, &m) {
	case mqtt.Success:
	case mqtt.TopicNameInvalid:
		return fmt.Errorf("publish to %.200q: %w: at most %d levels (see broker.limits) and %d bytes", m.Topic, ErrTopic, b.limits.Load().TopicLevels, MaxTopic)
	case mqtt.QuotaExceeded:
		return fmt.Errorf("publish to %q: %w: see broker.limits", m.Topic, ErrRetain)
	default:
		return fmt.Errorf("publish to %q as %s: %w: add it under access.rules", m.Topic, from.Name, ErrDenied)
	}
	p := b.newPublication()
	marks := p.msg.For[:0]
	p.msg = m
	p.msg.From, p.msg.For = from.Name, append(marks, m.For...)
	result := make(chan error, 1)
	p.result = result
	b.route(p)
	select {
	case err := <-result:
		if err != nil {
			return fmt.Errorf("publish to %q: %w", m.Topic, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// route decides who gets the message, and stores it or hands it out. The
// message's bytes are not needed after it returns.
func (b *Broker) route(p *publication) {
	m := &p.msg
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	if m.Retain {
		p.left = b.retained.arrivals.depart() // before match: who is not found there will wait for it
	}
	b.subs.match(m.Topic, p.origin, &p.matches)
	for i := range p.matches.found {
		f := &p.matches.found[i]
		if f.qos == 0 || m.QoS == 0 {
			p.live.add(m, f)
		} else {
			m.For = append(m.For, storequeue.Mark{Reader: f.reader, QoS: f.qos, Flags: f.flags})
		}
	}
	if b.outbound != nil {
		b.outbound(m)
	}
	if p.conn != nil && p.conn.version == mqtt.V5 && !p.matches.any && len(m.For) == 0 {
		p.ack.Code = mqtt.NoMatchingSubscribers
	}
	if m.Retain {
		p.retained = clone(m)
		m.For = append(m.For, storequeue.Mark{Reader: b.retained.reader.ID(), QoS: m.QoS})
	}
	if m.QoS == 0 && len(m.For) == 0 && p.result == nil {
		b.handOut(&p.live, m.Topic)
		p.recycle()
		return
	}
	b.queue.Submit(m, p.done)
}

// committed is called in the log's order by the committer, which it must not
// hold up: all it does is put things into memory.
func (p *publication) committed(seq uint64, err error) {
	b := p.b
	if err == nil && p.retained != nil { // before its publisher can know, and ask for it
		b.retained.arrived(p.retained, seq)
	}
	if p.conn != nil {
		p.conn.answer(p, seq, err)
	}
	switch {
	case err == nil:
		b.handOut(&p.live, p.msg.Topic)
	case errors.Is(err, storequeue.ErrFull):
		b.stats.refused.Add(1)
		b.rarely.log(b.log.Error, "queue is full: messages are refused; see queue.max_size, and max_size of its lanes", "error", err)
	}
	if p.left > 0 {
		b.retained.arrivals.arrive(p.left)
	}
	if p.result != nil {
		p.result <- err
	}
	p.recycle()
}

// answer acknowledges what is on disk, and nothing else. A full queue is said
// in MQTT 5; a 3.1.1 client loses its connection, so that it sends again.
func (c *conn) answer(p *publication, seq uint64, err error) {
	ack := &p.ack
	if err != nil {
		if c.version != mqtt.V5 || !errors.Is(err, storequeue.ErrFull) {
			ack = nil
		} else {
			ack.Code = mqtt.QuotaExceeded
		}
	}
	to := c
	if p.msg.QoS == 2 {
		to = p.origin.stored(p.ack.PacketID, err == nil)
		if p.msg.Note != nil && err == nil {
			c.b.ledger.note(p.origin, seq)
		}
	}
	if p.msg.QoS == 1 || c.version == mqtt.V311 || err != nil {
		c.answers.free() // before the client can know, and send the next
	}
	if to == c {
		c.answers.commit(ack)
	} else {
		c.answers.commit(nil)
		to.answerOther(ack)
	}
	if ack == nil {
		c.close(mqtt.UnspecifiedError)
	}
	if err == nil && c.b.acknowledged != nil {
		c.b.acknowledged(time.Since(p.msg.Time))
	}
}

// answerOther answers a message that came over an older connection and was sent
// again on c; nil: not at all.
func (c *conn) answerOther(ack *mqtt.Ack) {
	switch {
	case c == nil:
	case ack == nil:
		c.close(mqtt.UnspecifiedError)
	default:
		if ack.Code.Failed() {
			c.answers.free()
		}
		c.answers.now(*ack)
	}
}
