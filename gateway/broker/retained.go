package broker

import (
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
	total share
	by    map[string]share    // by the author's name
	soon  time.Time           // no message expires before; zero: none expires
	seq   uint64              // in the log, of the last one that came
	stale map[string]struct{} // topics of which the queue's state may have something else
	tidy  time.Time           // until then makeRoom need not look again
}

// A share is what some retained messages take.
type share struct {
	count int
	bytes int64
}

// add counts m n times.
func (s share) add(m *storequeue.Message, n int) share {
	if m == nil {
		return s
	}
	return share{s.count + n, s.bytes + int64(n)*weight(m)}
}

// ownShare is how much of the limits one identity may use: a quarter, so that
// no account can keep the others from retaining anything.
const ownShare = 4

// A shelf is one level of topics.
type shelf struct {
	message  *storequeue.Message
	children map[string]*shelf
}

// retainedCost is what a retained message takes in memory beside its bytes.
const retainedCost = 384

func weight(m *storequeue.Message) int64 {
	if m == nil {
		return 0
	}
	n := retainedCost + len(m.Topic) + len(m.Payload) + len(m.ContentType) + len(m.ResponseTopic) + len(m.CorrelationData)
	for _, p := range m.Properties {
		n += len(p.Key) + len(p.Value)
	}
	return int64(n)
}

func (r *retained) size() share {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.total
}

// full tells the limit that keeps from's message out; limitNone: there is room.
// Messages that wait for their commit are not counted, so the limit may be
// passed by those. What is no larger than what it replaces always fits.
func (r *retained) full(from string, m *storequeue.Message) limit {
	l := r.limits.Load()
	r.mu.RLock()
	defer r.mu.RUnlock()
	old := r.root.find(m.Topic)
	if old == nil && len(r.stale) >= 2*l.Retained+foldBatch {
		return limitRetained
	}
	all := r.total.add(old, -1)
	own, before := r.by[from], r.by[from]
	if old != nil && old.From == from {
		own = own.add(old, -1)
	}
	all, own = all.add(m, 1), own.add(m, 1)
	switch {
	case all.exceeds(r.total, l.Retained, l.RetainedBytes):
		return limitRetained
	case own.exceeds(before, (l.Retained+ownShare-1)/ownShare, (l.RetainedBytes+ownShare-1)/ownShare):
		return limitRetainedPerIdentity
	}
	return limitNone
}

// exceeds reports whether s is beyond a limit, and not for having been there
// before.
func (s share) exceeds(before share, count int, bytes int64) bool {
	return s.count > max(count, before.count) || s.bytes > max(bytes, before.bytes)
}

func (s *shelf) find(topic string) *storequeue.Message {
	for level := range strings.SplitSeq(topic, "/") {
		if s = s.children[level]; s == nil {
			return nil
		}
	}
	return s.message
}

// arrived puts a message that the log has at seq.
func (r *retained) arrived(m *storequeue.Message, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq = seq
	if len(m.Payload) > 0 || r.root.find(m.Topic) != nil {
		r.stale[m.Topic] = struct{}{}
	}
	r.put(m)
}

// put keeps m, which nobody changes from now on. An empty payload removes what
// was there [MQTT-3.3.1-6]. mu is held.
func (r *retained) put(m *storequeue.Message) {
	if len(m.Payload) == 0 {
		r.take(m.Topic)
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
	r.book(s.message, -1)
	r.book(m, 1)
	s.message = m
	r.notice(m)
}

// take removes what is on topic. mu is held.
func (r *retained) take(topic string) { r.book(r.root.remove(topic, true), -1) }

// book counts m, which may be nil, n times. mu is held.
func (r *retained) book(m *storequeue.Message, n int) {
	if m == nil {
		return
	}
	r.total = r.total.add(m, n)
	if own := r.by[m.From].add(m, n); own.count > 0 {
		r.by[m.From] = own
	} else {
		delete(r.by, m.From)
	}
}

// notice is called with mu held.
func (r *retained) notice(m *storequeue.Message) {
	if !m.Expires.IsZero() && (r.soon.IsZero() || m.Expires.Before(r.soon)) {
		r.soon = m.Expires
	}
}

// expire removes the messages that are past their expiry.
func (r *retained) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.soon.IsZero() || now.Before(r.soon) {
		return
	}
	r.soon = time.Time{}
	var topics []string
	r.root.all(false, func(m *storequeue.Message) {
		if expired(m, now) {
			topics = append(topics, m.Topic)
		} else {
			r.notice(m)
		}
	})
	for _, topic := range topics {
		r.take(topic)
		r.stale[topic] = struct{}{}
	}
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
