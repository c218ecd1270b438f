package broker

import (
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// A will is what is said for a client that went without a word.
type will struct {
	from   access.Identity
	msg    storequeue.Message
	expiry time.Duration // of the message, from when it is sent; 0: none
	delay  time.Duration
}

// newWill takes over w's bytes: a CONNECT belongs to whoever read it.
func newWill(from access.Identity, w *mqtt.Will) *will {
	p := &mqtt.Publish{QoS: w.QoS, Retain: w.Retain, Payload: w.Payload, Properties: w.Properties}
	p.HasMessageExpiry = false
	n := &will{from: from, delay: time.Duration(w.Delay) * time.Second}
	if w.HasMessageExpiry {
		n.expiry = time.Duration(w.MessageExpiry) * time.Second
	}
	setMessage(&n.msg, p, w.Topic, from.Name)
	return n
}

// publishWill sends a will if its author is still somebody, and may, with the
// roles of now, publish there.
func (b *Broker) publishWill(w *will) {
	from, ok := b.access.Current(w.from)
	if !ok || b.verdict(from, &w.msg) != mqtt.Success {
		return
	}
	p := b.newPublication()
	marks := p.msg.For[:0]
	p.msg = w.msg
	p.msg.For = marks
	p.msg.Time = time.Now()
	if w.expiry > 0 {
		p.msg.Expires = time.Now().Add(w.expiry)
	}
	b.route(p)
}
