package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// A subscription is one filter of one session. It does not change once it is
// in the index; subscribing again puts another in its place.
type subscription struct {
	filter string // as it was asked for
	match  string // without "$share/group/"
	group  string // of a shared subscription, else empty

	qos               byte // granted
	noLocal           bool
	retainAsPublished bool
	id                uint32 // 0: none
	reader            storequeue.ReaderID
}

func newSubscription(r subscriptionRecord, reader *storequeue.Reader) *subscription {
	s := &subscription{
		filter: r.Filter, match: r.Filter, qos: r.QoS,
		noLocal: r.NoLocal, retainAsPublished: r.RetainAsPublished, id: r.ID,
	}
	if group, rest, ok := mqtt.SplitShared(r.Filter); ok {
		s.group, s.match = group, rest
	}
	if reader != nil && s.qos > 0 {
		s.reader = reader.ID()
	}
	return s
}

// Flags of a mark: why the message is for the session.
const (
	viaPlain    byte = 1 << iota // a subscription of its own
	viaShared                    // it was the group's turn
	viaRetained                  // the retained message for a new subscription
	viaItself                    // the session published it
)

// subscriptions finds who subscribed to a topic: a tree with a level of the
// filter on each edge. Safe for concurrent use.
type subscriptions struct {
	mu    sync.RWMutex // covers everything below; lookups far outnumber changes
	root  node
	count int
}

type node struct {
	children map[string]*node // "+" and "#" are levels like others: no topic has them
	plain    map[*session]*subscription
	groups   map[string]*group
}

// A group is a shared subscription: each message goes to one member.
type group struct {
	members []member
	next    atomic.Uint32
}

type member struct {
	s   *session
	sub *subscription
}

func (t *subscriptions) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.count
}

// add puts sub into the index, in the place of the session's earlier one with
// the same filter.
func (t *subscriptions) add(s *session, sub *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &t.root
	for level := range strings.SplitSeq(sub.match, "/") {
		child := n.children[level]
		if child == nil {
			child = &node{}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	if n.put(s, sub) {
		t.count++
	}
}

func (n *node) put(s *session, sub *subscription) (added bool) {
	if sub.group == "" {
		if n.plain == nil {
			n.plain = map[*session]*subscription{}
		}
		_, had := n.plain[s]
		n.plain[s] = sub
		return !had
	}
	g := n.groups[sub.group]
	if g == nil {
		g = &group{}
		if n.groups == nil {
			n.groups = map[string]*group{}
		}
		n.groups[sub.group] = g
	}
	for i := range g.members {
		if g.members[i].s == s {
			g.members[i].sub = sub
			return false
		}
	}
	g.members = append(g.members, member{s, sub})
	return true
}

// remove takes the session's subscription with that filter out, and branches
// that lead nowhere with it.
func (t *subscriptions) remove(s *session, sub *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.root.remove(sub.match, true, s, sub) {
		t.count--
	}
}

func (n *node) remove(rest string, more bool, s *session, sub *subscription) (removed bool) {
	if !more {
		return n.drop(s, sub)
	}
	level, rest, more := strings.Cut(rest, "/")
	child := n.children[level]
	if child == nil {
		return false
	}
	removed = child.remove(rest, more, s, sub)
	if len(child.children) == 0 && len(child.plain) == 0 && len(child.groups) == 0 {
		delete(n.children, level)
	}
	return removed
}

func (n *node) drop(s *session, sub *subscription) (removed bool) {
	if sub.group == "" {
		_, had := n.plain[s]
		delete(n.plain, s)
		return had
	}
	g := n.groups[sub.group]
	if g == nil {
		return false
	}
	kept := g.members[:0]
	for _, m := range g.members {
		if m.s != s {
			kept = append(kept, m)
		}
	}
	removed = len(kept) < len(g.members)
	clear(g.members[len(kept):])
	g.members = kept
	if len(kept) == 0 {
		delete(n.groups, sub.group)
	}
	return removed
}

// match adds to m everybody who gets a message on topic; origin is the session
// that published it.
func (t *subscriptions) match(topic string, origin *session, m *matches) {
	m.origin = origin
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.root.walk(topic, true, topic[0] != '$', m) // [MQTT-4.7.2-1]
}

func (n *node) walk(rest string, more, wild bool, m *matches) {
	if hash := n.children["#"]; hash != nil && wild {
		hash.collect(m) // also when it stands for no level [MQTT-4.7.1-2]
	}
	if !more {
		n.collect(m)
		return
	}
	level, rest, more := strings.Cut(rest, "/")
	if child := n.children[level]; child != nil {
		child.walk(rest, more, true, m)
	}
	if plus := n.children["+"]; plus != nil && wild {
		plus.walk(rest, more, true, m)
	}
}

func (n *node) collect(m *matches) {
	for s, sub := range n.plain {
		m.add(s, sub, viaPlain)
	}
	for _, g := range n.groups {
		turn := g.turn()
		m.add(turn.s, turn.sub, viaShared)
	}
}

// turn is the next member of the group that is connected. When none is, the
// next one with a durable session keeps the message, if it is one that waits.
func (g *group) turn() *member {
	first := int(g.next.Add(1)-1) % len(g.members)
	for i := range g.members {
		mb := &g.members[(first+i)%len(g.members)]
		if mb.s.conn.Load() != nil {
			return mb
		}
	}
	return &g.members[first]
}

// matches gathers who gets a message, each session once [MQTT-3.3.4-2]. It is
// reused from message to message.
type matches struct {
	found  []match
	where  map[*session]int // index in found, once there are many
	origin *session
	any    bool // somebody subscribed, if only the publisher with No Local
}

type match struct {
	s      *session
	reader storequeue.ReaderID
	qos    byte // the highest granted
	flags  byte
	retain bool // as published
	ids    []uint32
}

const manyMatches = 8

func (m *matches) reset() {
	clear(m.found)
	m.found, m.origin, m.any = m.found[:0], nil, false
	clear(m.where)
}

func (m *matches) add(s *session, sub *subscription, flag byte) {
	m.any = true
	if s == m.origin {
		if sub.noLocal { // [MQTT-3.8.3-3]
			return
		}
		flag |= viaItself
	}
	f := m.of(s)
	if f.qos < sub.qos {
		f.qos = sub.qos
	}
	if sub.reader != 0 {
		f.reader = sub.reader
	}
	f.flags |= flag
	f.retain = f.retain || sub.retainAsPublished
	if sub.id != 0 {
		f.ids = append(f.ids, sub.id)
	}
}

// of returns the session's match, a new one if it has none yet. A session with
// one subscription has none.
func (m *matches) of(s *session) *match {
	if s.several.Load() {
		if i, ok := m.index(s); ok {
			return &m.found[i]
		}
	}
	m.found = append(m.found, match{s: s})
	return &m.found[len(m.found)-1]
}

// index finds the session in found, and if it is not there expects it to be
// appended.
func (m *matches) index(s *session) (i int, ok bool) {
	if len(m.found) < manyMatches {
		for i := range m.found {
			if m.found[i].s == s {
				return i, true
			}
		}
		return 0, false
	}
	if m.where == nil {
		m.where = map[*session]int{}
	}
	if len(m.where) == 0 {
		for i := range m.found {
			m.where[m.found[i].s] = i
		}
	}
	if i, ok = m.where[s]; !ok {
		m.where[s] = len(m.found)
	}
	return i, ok
}
