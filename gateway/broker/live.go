package broker

import (
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// live is who gets a message with QoS 0, and the bytes they get. Subscribers
// that get the same bytes share them.
type live struct {
	buf     []byte
	to      []recipient
	shared  [2][2]span // by version and retain flag
	scratch mqtt.Publish
}

type recipient struct {
	c     *conn
	frame span
}

type span struct{ start, end int }

func (l *live) reset() {
	clear(l.to)
	l.to, l.buf = l.to[:0], l.buf[:0]
	if cap(l.buf) > maxPooled {
		l.buf = nil
	}
	l.shared = [2][2]span{}
	l.scratch = mqtt.Publish{Topic: l.scratch.Topic[:0]}
}

// add encodes m for one session, if it is connected.
func (l *live) add(m *storequeue.Message, f *match) {
	c := f.s.conn.Load()
	if c == nil {
		return
	}
	retain := m.Retain && f.retain
	if len(f.ids) > 0 {
		l.to = append(l.to, recipient{c, l.encode(c.version, m, retain, f.ids)})
		return
	}
	frame := &l.shared[index(c.version == mqtt.V5)][index(retain)]
	if frame.end == 0 {
		*frame = l.encode(c.version, m, retain, nil)
	}
	l.to = append(l.to, recipient{c, *frame})
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (l *live) encode(v mqtt.Version, m *storequeue.Message, retain bool, ids []uint32) span {
	start := len(l.buf)
	setPublish(&l.scratch, m, time.Now())
	l.scratch.Retain, l.scratch.SubscriptionIDs = retain, ids
	if b, err := mqtt.Append(l.buf, v, &l.scratch); err == nil { // an empty frame is not sent
		l.buf = b
	}
	return span{start, len(l.buf)}
}

// handOut puts a message into the outboxes of those who get it with QoS 0.
func (b *Broker) handOut(l *live, topic string) {
	for _, r := range l.to {
		frame := l.buf[r.frame.start:r.frame.end]
		if len(frame) == 0 || !r.c.fits(len(frame)) {
			continue
		}
		if !r.c.may(access.Subscribe, topic) {
			b.stats.denied.Add(1)
			continue
		}
		if r.c.out.frame(frame) {
			r.c.sent()
		} else {
			b.stats.droppedSlow.Add(1)
			b.stats.hits.add(r.c.out.decided())
			r.c.traffic.dropped.Add(1)
		}
	}
}
