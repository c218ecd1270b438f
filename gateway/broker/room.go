package broker

import (
	"bytes"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/storequeue"
)

// tidyFor is how long after makeRoom it is not worth looking again, unless who
// may do what has changed.
const tidyFor = 10 * time.Second

// retainedFull tells the limit that keeps from's message from being retained;
// limitNone: there is room, perhaps after making some.
func (b *Broker) retainedFull(from string, m *storequeue.Message) limit {
	full := b.retained.full(from, m)
	if full != limitNone && b.makeRoom(time.Now()) {
		full = b.retained.full(from, m)
	}
	return full
}

// makeRoom removes the retained messages that nobody is shown, because their
// author may no longer publish there, and reports whether there were any. Until
// room is needed they stay: a rule that is given back shows them again.
func (b *Broker) makeRoom(now time.Time) bool {
	r := &b.retained
	r.mu.Lock()
	if now.Before(r.tidy) {
		r.mu.Unlock()
		return false
	}
	r.tidy = now.Add(tidyFor)
	all := make([]kept, 0, r.total.count)
	r.root.all(false, func(k kept) { all = append(all, k) })
	r.mu.Unlock()

	authors := map[string]access.Identity{}
	hidden := map[string]kept{}
	for _, k := range all {
		m := k.message()
		author, known := authors[m.From]
		if !known {
			author = b.access.Lookup(m.From)
			authors[m.From] = author
		}
		if !b.access.Allow(author, access.Publish, m.Topic) {
			hidden[m.Topic] = k
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, k := range hidden {
		if bytes.Equal(r.root.find(topic).body, k.body) { // not replaced meanwhile
			r.take(topic)
			r.stale[topic] = struct{}{}
		}
	}
	return len(hidden) > 0
}

// untidy has makeRoom look again.
func (r *retained) untidy() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tidy = time.Time{}
}
