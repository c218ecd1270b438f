package broker

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

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

// and is both together.
func (s share) and(k kept) share { return share{s.count + 1, s.bytes + k.weight} }

// less is what is left without k, which may be none.
func (s share) less(k kept) share {
	if k.none() {
		return s
	}
	return share{s.count - 1, s.bytes - k.weight}
}

// A kept is a message at rest; zero: none. A hundred thousand of them are that
// many objects for the collector of garbage, and not five times as many. Nobody
// changes one.
type kept struct {
	body    []byte // as storequeue.AppendMessage writes it
	from    string // shared by all of one author's
	weight  int64
	expires int64 // Unix milliseconds; 0: never
}

func (k kept) none() bool { return k.body == nil }

// message returns the caller's own.
func (k kept) message() *storequeue.Message {
	m, err := storequeue.DecodeMessage(k.body)
	if err != nil {
		panic(fmt.Sprintf("retained message: %v", err)) // it was encoded here
	}
	return &m
}

// ownShare is how much of the limits one identity may use: a quarter, so that
// no account can keep the others from retaining anything.
const ownShare = 4

// A shelf is one level of topics.
type shelf struct {
	message  kept
	children map[string]*shelf
}

// retainedCost is what a retained message takes in memory beside its bytes.
const retainedCost = 384

func weight(m *storequeue.Message) int64 {
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
	old, new := r.root.find(m.Topic), kept{weight: weight(m)}
	if old.none() && len(r.stale) >= 2*l.Retained+foldBatch {
		return limitRetained
	}
	all, own, before := r.total.less(old), r.by[from], r.by[from]
	if old.from == from {
		own = own.less(old)
	}
	all, own = all.and(new), own.and(new)
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

func (s *shelf) find(topic string) kept {
	for level := range strings.SplitSeq(topic, "/") {
		if s = s.children[level]; s == nil {
			return kept{}
		}
	}
	return s.message
}

// arrived puts a message that the log has at seq.
func (r *retained) arrived(m *storequeue.Message, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq = seq
	if len(m.Payload) > 0 || !r.root.find(m.Topic).none() {
		r.stale[m.Topic] = struct{}{}
	}
	r.put(m)
}

// put keeps a copy of m. An empty payload removes what
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
			s.children[strings.Clone(level)] = child
		}
		s = child
	}
	r.leave(s.message)
	s.message = r.join(m)
	r.notice(s.message)
}

// take removes what is on topic. mu is held.
func (r *retained) take(topic string) { r.leave(r.root.remove(topic, true)) }

// join counts m and returns it as it is kept. mu is held.
func (r *retained) join(m *storequeue.Message) kept {
	body := storequeue.AppendMessage(make([]byte, 0, len(m.Topic)+len(m.From)+len(m.Payload)+32), m)
	k := kept{body: slices.Clip(body), from: unique.Make(m.From).Value(), weight: weight(m)}
	if !m.Expires.IsZero() {
		k.expires = m.Expires.UnixMilli()
	}
	r.total, r.by[m.From] = r.total.and(k), r.by[m.From].and(k)
	return k
}

// leave counts one less. mu is held.
func (r *retained) leave(k kept) {
	if k.none() {
		return
	}
	r.total = r.total.less(k)
	if own := r.by[k.from].less(k); own.count > 0 {
		r.by[k.from] = own
	} else {
		delete(r.by, k.from)
	}
}

// notice is called with mu held.
func (r *retained) notice(k kept) {
	if at := time.UnixMilli(k.expires); k.expires != 0 && (r.soon.IsZero() || at.Before(r.soon)) {
		r.soon = at
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
	r.root.all(false, func(k kept) {
		if k.expires != 0 && now.UnixMilli() >= k.expires {
			topics = append(topics, k.message().Topic)
		} else {
			r.notice(k)
		}
	})
	for _, topic := range topics {
		r.take(topic)
		r.stale[topic] = struct{}{}
	}
}

func (s *shelf) remove(rest string, more bool) (old kept) {
	if !more {
		old, s.message = s.message, kept{}
		return old
	}
	level, rest, more := strings.Cut(rest, "/")
	child := s.children[level]
	if child == nil {
		return kept{}
	}
	old = child.remove(rest, more)
	if child.message.none() && len(child.children) == 0 {
		delete(s.children, level)
	}
	return old
}

// match returns the messages whose topics match filter.
func (r *retained) match(filter string) []kept {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found []kept
	r.root.walk(filter, true, true, func(k kept) { found = append(found, k) })
	return found
}

func (s *shelf) walk(rest string, more, first bool, found func(kept)) {
	if !more {
		if !s.message.none() {
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

func (s *shelf) all(first bool, found func(kept)) {
	if !s.message.none() {
		found(s.message)
	}
	for name, child := range s.children {
		if !first || !strings.HasPrefix(name, "$") {
			child.all(false, found)
		}
	}
}
