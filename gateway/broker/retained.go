package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// retained is the last retained message of each topic, in memory. On disk it is
// the queue's state plus what the log holds behind the cursor of reader. Safe
// for concurrent use.
type retained struct {
	reader *storequeue.Reader // the broker's own
	limits *atomic.Pointer[Limits]

	arrivals arrivals // of messages on their way to the disk

	mu    sync.RWMutex // covers the fields below
	root  shelf
	count int
	bytes int64
	soon  time.Time // no message expires before; zero: none expires
}

// A shelf is one level of topics.
type shelf struct {
	message  *storequeue.Message
	children map[string]*shelf
}

func weight(m *storequeue.Message) int64 {
	if m == nil {
		return 0
	}
	n := len(m.Topic) + len(m.Payload) + len(m.ContentType) + len(m.ResponseTopic) + len(m.CorrelationData)
	for _, p := range m.Properties {
		n += len(p.Key) + len(p.Value)
	}
	return int64(n)
}

func (r *retained) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count
}

// hasRoom reports whether a message could be kept. Messages that wait for their
// commit are not counted, so the limit may be passed by those.
func (r *retained) hasRoom(m *storequeue.Message) bool {
	l := r.limits.Load()
	r.mu.RLock()
	defer r.mu.RUnlock()
	old := r.root.find(m.Topic)
	if r.bytes-weight(old)+weight(m) > l.RetainedBytes {
		return false
	}
	return old != nil || r.count < l.Retained
}

func (s *shelf) find(topic string) *storequeue.Message {
	for level := range strings.SplitSeq(topic, "/") {
		if s = s.children[level]; s == nil {
			return nil
		}
	}
	return s.message
}

// put keeps m, which nobody changes from now on. An empty payload removes what
// was there [MQTT-3.3.1-6].
func (r *retained) put(m *storequeue.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(m.Payload) == 0 {
		if old := r.root.remove(m.Topic, true); old != nil {
			r.count--
			r.bytes -= weight(old)
		}
		return
	}
	s := &r.root
	for level := range strings.SplitSeq(m.Topic, "/") {
		child := s.children[level]
		if child == nil {
			child = &shelf{}
			if s.children == nil {
				s.children = map[string]*shelf{}
			}
			s.children[level] = child
		}
		s = child
	}
	if s.message == nil {
		r.count++
	}
	r.bytes += weight(m) - weight(s.message)
	s.message = m
	r.notice(m)
}

// notice is called with mu held.
func (r *retained) notice(m *storequeue.Message) {
	if !m.Expires.IsZero() && (r.soon.IsZero() || m.Expires.Before(r.soon)) {
		r.soon = m.Expires
	}
}

// expire removes the messages that are past their expiry and returns their
// topics.
func (r *retained) expire(now time.Time) (topics []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.soon.IsZero() || now.Before(r.soon) {
		return nil
	}
	r.soon = time.Time{}
	r.root.all(false, func(m *storequeue.Message) {
		if expired(m, now) {
			topics = append(topics, m.Topic)
		} else {
			r.notice(m)
		}
	})
	for _, topic := range topics {
		r.count--
		r.bytes -= weight(r.root.remove(topic, true))
	}
	return topics
}

func (s *shelf) remove(rest string, more bool) (old *storequeue.Message) {
	if !more {
		old, s.message = s.message, nil
		return old
	}
	level, rest, more := strings.Cut(rest, "/")
	child := s.children[level]
	if child == nil {
		return nil
	}
	old = child.remove(rest, more)
	if child.message == nil && len(child.children) == 0 {
		delete(s.children, level)
	}
	return old
}

// match returns the messages whose topics match filter. They are shared: read only.
func (r *retained) match(filter string) []*storequeue.Message {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found []*storequeue.Message
	r.root.walk(filter, true, true, func(m *storequeue.Message) { found = append(found, m) })
	return found
}

func (s *shelf) walk(rest string, more, first bool, found func(*storequeue.Message)) {
	if !more {
		if s.message != nil {
			found(s.message)
		}
		return
	}
	level, rest, more := strings.Cut(rest, "/")
	switch level {
	case "#":
		s.all(first, found)
	case "+":
		for name, child := range s.children {
			if !first || !strings.HasPrefix(name, "$") { // [MQTT-4.7.2-1]
				child.walk(rest, more, false, found)
			}
		}
	default:
		if child := s.children[level]; child != nil {
			child.walk(rest, more, false, found)
		}
	}
}

func (s *shelf) all(first bool, found func(*storequeue.Message)) {
	if s.message != nil {
		found(s.message)
	}
	for name, child := range s.children {
		if !first || !strings.HasPrefix(name, "$") {
			child.all(false, found)
		}
	}
}

type retainedRecord struct {
	Time        time.Time             `json:"time"`
	Payload     []byte                `json:"payload"`
	QoS         byte                  `json:"qos,omitempty"`
	From        string                `json:"from"`
	Expires     time.Time             `json:"expires,omitzero"`
	ContentType string                `json:"content_type,omitempty"`
	Response    string                `json:"response_topic,omitempty"`
	Correlation []byte                `json:"correlation_data"`
	Text        bool                  `json:"text,omitempty"`
	Properties  []storequeue.Property `json:"properties,omitempty"`
}

func retainedChange(m *storequeue.Message) (storequeue.Change, error) {
	c := storequeue.Change{Bucket: bucketRetained, Key: m.Topic}
	if len(m.Payload) == 0 {
		return c, nil
	}
	var err error
	c.Value, err = json.Marshal(retainedRecord{
		Time: m.Time, Payload: m.Payload, QoS: m.QoS, From: m.From, Expires: m.Expires,
		ContentType: m.ContentType, Response: m.ResponseTopic, Correlation: m.CorrelationData,
		Text: m.Text, Properties: m.Properties,
	})
	return c, err
}

func (r *retainedRecord) message(topic string) *storequeue.Message {
	return &storequeue.Message{
		Topic: topic, Time: r.Time, Payload: r.Payload, QoS: r.QoS, Retain: true, From: r.From, Expires: r.Expires,
		ContentType: r.ContentType, ResponseTopic: r.Response, CorrelationData: r.Correlation,
		Text: r.Text, Properties: r.Properties,
	}
}

// restoreRetained loads the queue's state and replays what the log has behind
// it. It writes nothing: a full disk must not keep the house from starting.
func (b *Broker) restoreRetained() (err error) {
	r := &b.retained
	r.limits = &b.limits
	if r.reader, err = b.queue.Reader("retained"); err != nil {
		return err
	}
	err = b.queue.State(bucketRetained, func(topic string, v []byte) error {
		var rec retainedRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return fmt.Errorf("retained message on %q: %w", topic, err)
		}
		r.put(rec.message(topic))
		return nil
	})
	for after := r.reader.Acked(); err == nil; {
		var msgs []storequeue.Message
		if msgs, err = r.reader.Poll(after, foldBatch); len(msgs) == 0 {
			break
		}
		for i := range msgs {
			r.put(&msgs[i])
		}
		after = msgs[len(msgs)-1].Seq
	}
	return err
}

const foldBatch = 256

// foldLoop moves retained messages from the log into the queue's state, where
// memory has them already, and removes those that expire from both, until ctx
// ends. Nobody else writes retained messages to the state.
func (b *Broker) foldLoop(ctx context.Context) {
	for {
		err := errors.Join(b.clearExpired(time.Now()), b.fold(ctx))
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, storequeue.ErrClosed), errors.Is(err, storequeue.ErrFailed):
			return
		default: // a full disk: the log keeps them meanwhile
			b.log.Error("store retained messages: trying again", "error", err)
			if !wait(ctx, maxSweep) {
				return
			}
		}
	}
}

// clearExpired forgets what has expired. One of them may still be in the log
// alone; it is then stored once more, and removed after the next start.
func (b *Broker) clearExpired(now time.Time) error {
	topics := b.retained.expire(now)
	if len(topics) == 0 {
		return nil
	}
	changes := make([]storequeue.Change, len(topics))
	for i, topic := range topics {
		changes[i] = storequeue.Change{Bucket: bucketRetained, Key: topic}
	}
	return b.queue.SetState(changes...)
}

// fold moves one batch, waiting for its first message for a while.
func (b *Broker) fold(ctx context.Context) error {
	reader := b.retained.reader
	patient, cancel := context.WithTimeout(ctx, maxSweep)
	defer cancel()
	msgs, err := reader.Next(patient, reader.Acked(), foldBatch)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if err != nil {
		return err
	}
	changes := make([]storequeue.Change, len(msgs))
	for i := range msgs {
		if changes[i], err = retainedChange(&msgs[i]); err != nil {
			return err
		}
	}
	return reader.Checkpoint(msgs[len(msgs)-1].Seq, changes...)
}
