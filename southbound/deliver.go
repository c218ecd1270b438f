package southbound

import (
	"context"
	"strings"
	"sync"
	"time"
)

// deliverBatch offers a batch until all of it is accepted, as one message or as
// one for each tag.
func (l *loop) deliverBatch(ctx context.Context, b *Batch) error {
	d := l.device
	encode := appendBatch
	if d.CBOR {
		encode = appendBatchCBOR
	}
	if d.TagTopic == "" {
		l.buf = encode(l.buf[:0], l.seq, b)
		return l.offer(ctx, Message{Topic: l.topic + b.Group, Payload: l.buf, CBOR: d.CBOR}, true)
	}
	return l.deliverTags(ctx, b)
}

// atOnce is how many messages of one batch are offered together, so that one
// commit takes many. Each has a topic of its own, so no order is lost.
const atOnce = 64

func (l *loop) deliverTags(ctx context.Context, b *Batch) error {
	d := l.device
	encode := appendTag
	if d.CBOR {
		encode = appendTagCBOR
	}
	l.buf = l.buf[:0]
	var topics []string
	var ends []int
	for i := range b.Readings {
		st := l.reports.state(b.Readings[i].Tag)
		if st.topic == "" {
			st.topic = tagTopic(d.TagTopic, b.Group, st.tag.Name)
		}
		topics = append(topics, st.topic)
		l.buf = encode(l.buf, l.seq, b, i, st.tag.Unit)
		ends = append(ends, len(l.buf))
	}
	var offering sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	begin := 0
	for i, end := range ends {
		m := Message{Topic: topics[i], Payload: l.buf[begin:end], Retain: d.RetainTag, CBOR: d.CBOR}
		begin = end
		slots <- struct{}{}
		offering.Go(func() {
			defer func() { <-slots }()
			_ = l.offer(ctx, m, i == 0) // ctx says the same
		})
	}
	offering.Wait()
	return ctx.Err()
}

// tagTopic is the topic of one tag. Names that are no topic level are made one;
// the payload has them as they are.
func tagTopic(template, group, tag string) string {
	level := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/+#\x00", r) {
			return '_'
		}
		return r
	}, tag)
	return strings.NewReplacer("{group}", group, "{tag}", level).Replace(template)
}

// deliver offers a message below the device's topic until it is accepted.
func (l *loop) deliver(ctx context.Context, level string, payload []byte, retain bool) error {
	return l.offer(ctx, Message{Topic: l.topic + level, Payload: payload, Retain: retain}, true)
}

// offer hands a message on until it is accepted; its only error is ctx's end.
// Each new reason of a refusal is logged once, if it is to be told.
func (l *loop) offer(ctx context.Context, m Message, tell bool) error {
	again := backoff{min: 100 * time.Millisecond, max: 5 * time.Second}
	reason := ""
	for {
		err := l.device.Publish(ctx, m)
		if err == nil {
			if reason != "" && tell {
				l.log.Info("publishing again")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.device.count(func(st *Stats) { st.Refused++ })
		if text := err.Error(); text != reason {
			reason = text
			if tell {
				l.log.Warn("publish refused, keeping the message and reading no further until it is accepted", "err", err)
			}
		}
		pause(ctx, again.next())
	}
}
