package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// subscribe grants what the rules allow. A durable session's subscriptions are
// on disk before SUBACK says so.
func (c *conn) subscribe(ctx context.Context, p *mqtt.Subscribe) error {
	if !c.mayChange(ctx, len(p.Subscriptions)) {
		return errGone
	}
	s := c.session
	subs := maps.Clone(s.subs) // only the holder changes them
	if subs == nil {
		subs = map[string]*subscription{}
	}
	codes := make([]mqtt.ReasonCode, len(p.Subscriptions))
	granted := make([]subscriptionRecord, 0, len(p.Subscriptions))
	for i, want := range p.Subscriptions {
		if i >= max(maxFilters, c.limits.Subscriptions) { // the same filter again and again: nobody needs that
			codes[i] = mqtt.QuotaExceeded
			c.b.stats.hits.add(limitSubscriptions)
			continue
		}
		codes[i] = c.grant(&want, subs)
		if codes[i].Failed() {
			continue
		}
		r := subscriptionRecord{want.Filter, want.QoS, want.NoLocal, want.RetainAsPublished, p.ID}
		granted = append(granted, r)
		subs[want.Filter] = newSubscription(r, nil)
	}
	if err := c.keep(subs, granted); err != nil {
		c.b.log.Error("store subscriptions", "client", s.clientID, "error", err)
		code := mqtt.UnspecifiedError
		if errors.Is(err, storequeue.ErrFull) {
			code = mqtt.QuotaExceeded
		}
		for i := range codes {
			codes[i] = code
		}
		granted = nil
	}
	had := c.replaceSubscriptions(subs, granted)
	if s.reader != nil {
		c.delivery.start(ctx, c)
	}
	c.send(&mqtt.Suback{PacketID: p.PacketID, Codes: codes, ReasonString: c.whyNot(codes)})
	sent := map[string]bool{} // once a packet, however often it has the filter
	for i, want := range p.Subscriptions {
		if codes[i].Failed() || sent[want.Filter] {
			continue
		}
		if want.RetainHandling == 0 || want.RetainHandling == 1 && !had[want.Filter] {
			sent[want.Filter] = true
			c.sendRetained(subs[want.Filter]) // [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
		}
	}
	return nil
}

// notGranted answers a filter that no rule allows. It is the one code for a
// failure that 3.1.1 and 5 share [MQTT-3.9.3-2]; the words go with it in the
// reason string.
const notGranted = mqtt.UnspecifiedError

// whyNot is SUBACK's reason string, for a client that wants one [MQTT-3.1.2-29].
func (c *conn) whyNot(codes []mqtt.ReasonCode) string {
	const text = "not authorized: no rule allows it"
	if !c.wordy || !slices.Contains(codes, notGranted) || c.maxPacket > 0 && c.maxPacket <= len(codes) {
		return ""
	}
	return reason(text, max(c.maxPacket-len(codes), 0))
}

// grant is the SUBACK code for one filter.
func (c *conn) grant(want *mqtt.Subscription, have map[string]*subscription) mqtt.ReasonCode {
	_, filter, shared := mqtt.SplitShared(want.Filter)
	if !shared {
		filter = want.Filter
	}
	if len(want.Filter) > MaxTopic || strings.Count(filter, "/") >= c.limits.TopicLevels {
		c.b.stats.hits.add(limitTopicLevels)
		return mqtt.TopicFilterInvalid
	}
	if mqtt.CheckFilter(want.Filter) != nil {
		return mqtt.TopicFilterInvalid
	}
	if have[want.Filter] == nil {
		if full := c.subscriptionsFull(len(have)); full != limitNone {
			c.b.stats.hits.add(full)
			return mqtt.QuotaExceeded
		}
	}
	if !c.b.access.AllowFilter(c.id, filter) {
		c.b.denied(c.id, access.Subscribe, filter)
		return notGranted
	}
	return mqtt.ReasonCode(want.QoS)
}

// subscriptionsFull tells the limit that keeps a client with that many
// subscriptions from one more.
func (c *conn) subscriptionsFull(have int) limit {
	switch {
	case have >= c.limits.Subscriptions:
		return limitSubscriptions
	case c.b.subs.len() >= c.b.limits.Load().AllSubscriptions:
		return limitSubscriptionsTotal
	}
	return limitNone
}

// keep opens the session's reader if one of granted needs it, and stores what a
// durable session subscribed to. subs get their reader here.
func (c *conn) keep(subs map[string]*subscription, granted []subscriptionRecord) error {
	s := c.session
	if len(granted) == 0 {
		return nil
	}
	open := s.reader == nil && slices.ContainsFunc(granted, func(r subscriptionRecord) bool { return r.QoS > 0 })
	if s.expiry > 0 || s.kept {
		if err := c.store(subs, open); err != nil {
			return err
		}
	} else if open {
		r, err := c.b.queue.TransientReader(s.readerName())
		if err != nil {
			return err
		}
		s.setReader(r)
	}
	for _, r := range granted {
		subs[r.Filter] = newSubscription(r, s.reader)
	}
	return nil
}

// store puts the session on disk with these subscriptions, in one commit. open
// gives it its reader.
func (c *conn) store(subs map[string]*subscription, open bool) error {
	s := c.session
	changes, err := s.record(subs, open || s.reader != nil)
	switch {
	case err != nil:
	case open:
		err = c.b.openReader(s, changes...)
	default:
		err = c.b.queue.SetState(changes...)
	}
	if err == nil {
		s.kept = true
	}
	return err
}

// replaceSubscriptions puts what was granted in force and tells which of the
// filters were subscribed to before.
func (c *conn) replaceSubscriptions(subs map[string]*subscription, granted []subscriptionRecord) (had map[string]bool) {
	if len(granted) == 0 {
		return nil
	}
	s := c.session
	had = map[string]bool{}
	s.mu.Lock()
	old := s.subs
	s.subs = subs
	s.mu.Unlock()
	if len(subs) > 1 {
		s.several.Store(true) // before the index shows the second
	}
	for _, r := range granted {
		had[r.Filter] = old[r.Filter] != nil
		c.b.subs.add(s, subs[r.Filter])
	}
	return had
}

func (c *conn) unsubscribe(ctx context.Context, p *mqtt.Unsubscribe) error {
	if !c.mayChange(ctx, len(p.Filters)) {
		return errGone
	}
	s := c.session
	subs := maps.Clone(s.subs)
	codes := make([]mqtt.ReasonCode, len(p.Filters))
	var removed []*subscription
	for i, f := range p.Filters {
		sub := subs[f]
		if sub == nil {
			codes[i] = mqtt.NoSubscriptionExisted
			continue
		}
		removed = append(removed, sub)
		delete(subs, f)
	}
	if s.kept && len(removed) > 0 {
		if err := c.store(subs, false); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.subs = subs
	s.mu.Unlock()
	for _, sub := range removed {
		c.b.subs.remove(s, sub)
	}
	c.send(&mqtt.Unsuback{PacketID: p.PacketID, Codes: codes})
	return nil
}

// sendRetained sends the retained messages that a new subscription is for. What
// it gets with QoS 1 or 2 goes through the log, like everything else it gets
// with QoS 1 or 2.
func (c *conn) sendRetained(sub *subscription) {
	if sub.group != "" { // section 4.8.2
		return
	}
	c.b.retained.arrivals.wait(c.quit)
	now := time.Now()
	busy := sub.qos > 0 && c.session.reader.Waiting() > maxReplay // or each SUBSCRIBE would add to the log
	for _, k := range c.b.retained.match(sub.match) {
		m := k.message()
		switch {
		case expired(m, now) || !c.may(access.Subscribe, m.Topic) || !c.b.mayStand(m):
		case m.QoS == 0 || sub.qos == 0:
			c.sendRetainedLive(sub, m, now)
		case busy:
			c.b.stats.refused.Add(1)
			c.b.rarely.log(c.b.log.Warn, "retained messages left out: too much waits for this client", "client", c.session.clientID)
		default:
			m.For = []storequeue.Mark{{Reader: sub.reader, QoS: sub.qos, Flags: viaRetained}}
			c.b.queue.Submit(m, c.retainedStored)
		}
	}
}

// sendRetainedLive waits for room: it holds up nobody but this client.
func (c *conn) sendRetainedLive(sub *subscription, m *storequeue.Message, now time.Time) {
	var p mqtt.Publish
	setPublish(&p, m, now)
	p.Retain = true
	if sub.id != 0 {
		p.SubscriptionIDs = []uint32{sub.id}
	}
	frame, err := mqtt.Append(nil, c.version, &p)
	if err == nil && c.fits(len(frame)) && c.out.frameWait(c.quit, frame) {
		c.sent()
	}
}

// retainedStored counts a retained message that found no place in the log.
func (c *conn) retainedStored(_ uint64, err error) {
	if err != nil {
		c.b.stats.refused.Add(1)
	}
}

// mayStand reports whether the author of a retained message may still publish
// there: what was taken from an author does not stay on display.
func (b *Broker) mayStand(m *storequeue.Message) bool {
	return b.access.Allow(b.access.Lookup(m.From), access.Publish, m.Topic)
}

func (c *conn) fits(size int) bool {
	if c.maxPacket > 0 && size > c.maxPacket { // [MQTT-3.1.2-24]
		c.b.stats.droppedLarge.Add(1)
		c.traffic.dropped.Add(1)
		return false
	}
	return true
}
