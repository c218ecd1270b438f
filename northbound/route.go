package northbound

import (
	"slices"
	"strings"
)

// A Route says which topics pass and under what name. Placeholders are already
// replaced. Topics and Except are filters on the name before renaming; Strip
// is taken from its front, then Prefix is put there.
type Route struct {
	Topics, Except []string
	QoS            byte // at most
	Retain         Retain
	Strip, Prefix  string
}

// Retain says what becomes of retained messages.
type Retain byte

// The three ways.
const (
	RetainUsual Retain = iota // sent as they are; of what the cloud had retained before, nothing is taken
	RetainKeep                // they stay retained on the other side
	RetainClear               // they pass as if they were not
)

// qos is that of requests: subscriptions, and our own state.
func (r *Route) qos() byte { return min(r.QoS, 1) }

func (r *Route) sendQoS() byte { return min(r.QoS, 2) }

// takes reports whether the route applies to a topic.
func (r *Route) takes(match func(filter, topic string) bool, topic string) bool {
	for _, f := range r.Topics {
		if !match(sharedFilter(f), topic) {
			continue
		}
		for _, e := range r.Except {
			if match(e, topic) {
				return false
			}
		}
		return true
	}
	return false
}

// sharedFilter is the filter inside "$share/group/filter" [MQTT-4.8.2].
func sharedFilter(f string) string {
	if rest, ok := strings.CutPrefix(f, "$share/"); ok {
		_, f, _ = strings.Cut(rest, "/")
	}
	return f
}

func (r *Route) rename(topic string) string {
	return r.Prefix + strings.TrimPrefix(topic, r.Strip)
}

// original undoes rename.
func (r *Route) original(topic string) (string, bool) {
	rest, ok := strings.CutPrefix(topic, r.Prefix)
	return r.Strip + rest, ok
}

// Find tells which of the routes takes a topic, the first that does or -1, and
// its name on the other side.
func Find(routes []Route, match func(filter, topic string) bool, topic string) (i int, name string) {
	i = slices.IndexFunc(routes, func(r Route) bool { return r.takes(match, topic) })
	if i < 0 {
		return i, ""
	}
	return i, routes[i].rename(topic)
}

// routing is what a link has for routes at a time.
type routing struct{ send, receive []Route }

// find returns the first route that takes a topic, or nil.
func (l *Link) find(routes []Route, topic string) *Route {
	for i := range routes {
		if routes[i].takes(l.cfg.Match, topic) {
			return &routes[i]
		}
	}
	return nil
}

// Wants reports whether a send route takes a topic, and at which QoS it would
// be sent. It is pure and does not allocate. Access rules are asked elsewhere.
func (l *Link) Wants(topic string) (qos byte, ok bool) {
	r := l.find(l.routes.Load().send, topic)
	if r == nil {
		return 0, false
	}
	return r.sendQoS(), true
}

// SetRoutes replaces the routes. What waits goes by the new ones. A connection
// is replaced, as with Reconnect, so that its subscriptions and its will fit.
func (l *Link) SetRoutes(send, receive []Route) {
	old := l.routes.Swap(&routing{send, receive})
	l.staleMu.Lock()
	for i := range old.receive {
		for _, f := range old.receive[i].Topics {
			if !subscribes(receive, f, old.receive[i].Retain) {
				l.stale[f] = true
			}
		}
	}
	l.staleMu.Unlock()
	l.Reconnect()
}

// subscribes reports whether the routes subscribe to exactly f.
func subscribes(routes []Route, f string, retain Retain) bool {
	return slices.ContainsFunc(routes, func(r Route) bool { return r.Retain == retain && slices.Contains(r.Topics, f) })
}

// replyTopic translates a response topic: what is published there on this side
// must come out on the other side under the name that was asked for. back are
// the routes that an answer takes. A name that none of them yields stays.
func (l *Link) replyTopic(back []Route, topic string) string {
	if topic == "" {
		return ""
	}
	for i := range back {
		if t, ok := back[i].original(topic); ok && back[i].rename(t) == topic && l.find(back, t) == &back[i] {
			return t
		}
	}
	return topic
}
