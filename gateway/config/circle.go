package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// circles reports what a link would send under a name that it, or another link to
// the same server, receives: it would come back. Such a message is dropped when
// it does, by its hg-id, so it would only cost; but one of another gateway with
// the same routes is not ours, and there the two would talk to each other.
func (b *builder) circles() {
	for i, from := range b.config.Northbound {
		for j, to := range b.config.Northbound {
			if i != j && !sharesServer(from, to) {
				continue
			}
			b.circlesOf(i, j)
		}
	}
}

func sharesServer(a, b Link) bool {
	return slices.ContainsFunc(a.Servers, func(s string) bool { return slices.Contains(b.Servers, s) })
}

// circlesOf reports one circle for each pair of a send route of link i and a
// receive route of link j.
func (b *builder) circlesOf(i, j int) {
	send, receive := b.config.Northbound[i].Send, b.config.Northbound[j].Receive
	for s := range send {
		for r := range receive {
			topic := returning(send, s, receive[r])
			if topic == "" || mqtt.Covers(b.config.Commands(), topic) {
				continue
			}
			at := b.file.northbound.items[j].receive.items[r].at
			b.rep.add(b.file.northbound.items[i].send.items[s].at, fmt.Sprintf("add except: [%q] here, or make topics of the two routes narrower", topic),
				"what it sends of %s comes back by the receive route at %s", topic, at)
		}
	}
}

// returning is a filter of local topics that leave by send route s under a name
// that the receive route takes; empty: there are none.
func returning(send []Route, s int, receive Route) string {
	route := send[s]
	for _, far := range receive.Topics {
		for _, near := range before(far, route.Strip, route.Prefix) {
			for _, topics := range route.Topics {
				if route.Prefix == "" && wild(near) && strings.HasPrefix(topics, "$") {
					continue // [MQTT-4.7.2-1]
				}
				both := meet(topics, near)
				if both != "" && !covered(route.Except, both) && !takenBefore(send[:s], both) {
					return widen(both)
				}
			}
		}
	}
	return ""
}

func covered(filters []string, sub string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return mqtt.Covers(f, sub) })
}

// takenBefore reports whether an earlier route takes all of it.
func takenBefore(earlier []Route, topics string) bool {
	return slices.ContainsFunc(earlier, func(r Route) bool {
		return covered(r.Topics, topics) && !slices.ContainsFunc(r.Except, func(e string) bool { return meet(e, topics) != "" })
	})
}

// The patterns below are filters in which one level may be some text and then
// "+", for any end of that level: a prefix need not end with one.

// before lists the patterns of names that match far once strip is taken from
// their front and prefix is put there.
func before(far, strip, prefix string) []string {
	if wild(far) && strings.HasPrefix(prefix, "$") {
		return nil // [MQTT-4.7.2-1]
	}
	rest, ok := behind(far, prefix)
	if !ok {
		return nil
	}
	var names []string
	parent, deep := strings.CutSuffix(strip, "/")
	switch {
	case strip == "" || !strings.HasPrefix(rest, strip): // else it is cut off those
		names = append(names, rest)
	case deep && rest == strip+"#":
		names = append(names, parent)
	}
	switch {
	case strip == "":
	case rest == "#" && !strings.HasSuffix(strip, "/"):
		names = append(names, strip+"+/#")
	default:
		names = append(names, strip+rest)
	}
	return names
}

// behind is the pattern of what may follow prefix in a topic that matches filter.
func behind(filter, prefix string) (rest string, ok bool) {
	for {
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		p, prefixRest, morePrefix := strings.Cut(prefix, "/")
		switch {
		case f == "#":
			return "#", true
		case prefix == "":
			return filter, true
		case !morePrefix && f == "+":
			return filter, true // the end of that level, and what follows
		case !morePrefix:
			return strings.CutPrefix(filter, p)
		case f != "+" && f != p || !moreFilter:
			return "", false
		}
		filter, prefix = filterRest, prefixRest
	}
}

// wild is for filters that do not match what starts with '$' [MQTT-4.7.2-1].
func wild(filter string) bool {
	return strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")
}

// meet is the pattern of topics that match the filter a and the pattern b; empty:
// there are none.
func meet(a, b string) string {
	if wild(a) && strings.HasPrefix(b, "$") {
		return "" // [MQTT-4.7.2-1]
	}
	var levels []string
	for {
		la, ra, moreA := strings.Cut(a, "/")
		lb, rb, moreB := strings.Cut(b, "/")
		switch {
		case la == "#":
			return strings.Join(append(levels, b), "/")
		case lb == "#":
			return strings.Join(append(levels, a), "/")
		}
		level, ok := meetLevel(la, lb)
		if !ok {
			return ""
		}
		levels = append(levels, level)
		switch {
		case !moreA && !moreB, !moreA && rb == "#", !moreB && ra == "#": // "a" and "a/#" share "a"
			return strings.Join(levels, "/")
		case !moreA || !moreB:
			return ""
		}
		a, b = ra, rb
	}
}

// meetLevel takes levels that are text, or text and then "+".
func meetLevel(a, b string) (string, bool) {
	textA, openA := strings.CutSuffix(a, "+")
	textB, openB := strings.CutSuffix(b, "+")
	switch {
	case openA && strings.HasPrefix(textB, textA):
		return b, true
	case openB && strings.HasPrefix(textA, textB):
		return a, true
	}
	return a, a == b
}

// widen makes a filter of a pattern.
func widen(pattern string) string {
	levels := strings.Split(pattern, "/")
	for i, l := range levels {
		if strings.HasSuffix(l, "+") {
			levels[i] = "+"
		}
	}
	return strings.Join(levels, "/")
}
