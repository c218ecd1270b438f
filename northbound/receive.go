package northbound

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/headgate-io/headgate/storequeue"
)

// receive hands one message from the cloud on and acknowledges it. paho calls
// it for one message after another, from a goroutine that ends with the
// connection; life ends with it too.
func (l *Link) receive(life context.Context, p paho.PublishReceived, fail func(error)) error {
	if life.Err() != nil {
		return life.Err() // not acknowledged: it comes again
	}
	once := p.Packet.QoS == 2
	if once && l.intake.has(p.Packet.PacketID) {
		return p.Client.Ack(p.Packet)
	}
	m, ok := l.inbound(p.Packet)
	if !ok {
		return p.Client.Ack(p.Packet)
	}
	if once {
		l.intake.mark(&m, p.Packet.PacketID)
	}
	if err := l.cfg.Handle(life, m); err != nil {
		err = fmt.Errorf("hand on a message from %s: %w", p.Packet.Topic, err)
		if life.Err() == nil {
			l.status.note(err.Error())
			l.log.Warn("a message from the cloud cannot be handed on; it will come again", "error", err)
		}
		if l.again.wait(life) { // sending goes on meanwhile
			fail(err)
		}
		return err
	}
	if once {
		l.intake.take(p.Packet.PacketID)
	}
	l.again.reset()
	l.status.received.Add(1)
	return p.Client.Ack(p.Packet)
}

// inbound turns a packet into a local message, or says no to one that must not
// come in.
func (l *Link) inbound(p *paho.Publish) (m storequeue.Message, ok bool) {
	payload, given := l.open(p)
	if l.loops(p.Topic, given) {
		return m, false
	}
	routes := l.routes.Load()
	r := l.find(routes.receive, p.Topic)
	if r == nil || p.Retain && r.Retain == RetainUsual || r.rename(p.Topic) == "" {
		l.status.unwanted.Add(1)
		if muted, ok := l.status.unwantedLog.allow(); ok {
			l.log.Warn("message from the cloud dropped: retained, or of no receive route", "topic", p.Topic, "retained", p.Retain, "muted", muted)
		}
		return m, false
	}
	now := time.Now()
	m = storequeue.Message{
		Time: now, Topic: r.rename(p.Topic), Payload: payload, QoS: p.QoS, Retain: p.Retain && r.Retain == RetainKeep, From: "link:" + l.cfg.Name,
		ContentType: p.Properties.ContentType, CorrelationData: p.Properties.CorrelationData,
		ResponseTopic: l.replyTopic(routes.send, p.Properties.ResponseTopic),
		Text:          p.Properties.PayloadFormat != nil && *p.Properties.PayloadFormat == 1,
	}
	if s := p.Properties.MessageExpiry; s != nil {
		m.Expires = now.Add(time.Duration(*s) * time.Second)
	}
	m.Properties = given
	return m, true
}

// open returns what a packet carries, in an envelope or as it is.
func (l *Link) open(p *paho.Publish) (payload []byte, given []storequeue.Property) {
	payload = p.Payload
	if l.cfg.Enveloped {
		if e, inside, ok := Unwrap(payload); ok {
			payload, given = inside, e.properties()
		}
	}
	for _, u := range p.Properties.User {
		given = append(given, storequeue.Property{Key: u.Key, Value: u.Value})
	}
	return payload, given
}

// maxHops is how many gateways a message may have come through. Each puts its
// hg-id before those of the others, so that they are the way it took.
const maxHops = 4

// loops reports whether a message was here before, or has come through so many
// gateways that something is wrong with their routes.
func (l *Link) loops(topic string, given []storequeue.Property) bool {
	hops := 0
	for _, u := range given {
		if u.Key != propID {
			continue
		}
		if hops++; hops <= maxHops && !strings.HasPrefix(u.Value, l.ownPrefix) {
			continue
		}
		l.status.looped.Add(1)
		if muted, ok := l.status.loopLog.allow(); ok {
			l.log.Warn("a message runs in a circle and is dropped: separate the topics of send and receive", "topic", topic, "hg-id", u.Value, "muted", muted)
		}
		return true
	}
	return false
}
