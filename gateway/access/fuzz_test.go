package access

import (
	"slices"
	"strings"
	"testing"
)

// The oracle answers Allow and AllowFilter in the most obvious way: it spells
// every filter out, matches level by level, and finds out what a filter covers
// by trying every short topic.

func oracleMatch(filter, topic []string) bool {
	switch {
	case len(filter) == 1 && filter[0] == "#":
		return true
	case len(topic) == 0:
		return len(filter) == 0
	case len(filter) == 0:
		return false
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && oracleMatch(filter[1:], topic[1:])
}

func oracleMatches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	return oracleMatch(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

// universe is every topic of up to four of these levels; "z" is in no filter.
var universe = func() []string {
	levels := []string{"a", "b", "n", "z", "$s", ""}
	last, all := levels, levels[:5]
	for range 3 {
		var next []string
		for _, head := range last {
			for _, level := range levels {
				next = append(next, head+"/"+level)
			}
		}
		last = next
		all = append(slices.Clip(all), next...)
	}
	return all
}()

func oracleCovers(filter, sub string) bool {
	for _, topic := range universe {
		if oracleMatches(sub, topic) && !oracleMatches(filter, topic) {
			return false
		}
	}
	return true
}

func oracle(rules []Rule, id Identity, action Action, topic string, covers func(string, string) bool) bool {
	for _, r := range rules {
		who := r.Who == "*" || r.Who == id.Name ||
			strings.HasPrefix(r.Who, "@") && slices.Contains(id.Roles, r.Who[1:])
		if !who || !slices.Contains(r.Actions, action) {
			continue
		}
		for _, filter := range r.Topics {
			if strings.Contains(filter, "{id}") && strings.ContainsAny(id.Name, "+#/$\x00") {
				if r.Allow {
					continue
				}
				return false
			}
			if covers(strings.ReplaceAll(filter, "{id}", id.Name), topic) {
				return r.Allow
			}
		}
	}
	return false
}

// choices turns fuzzed bytes into decisions.
type choices struct{ data []byte }

func (c *choices) pick(list ...string) string { return list[c.below(len(list))] }

func (c *choices) below(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *choices) filter() string {
	levels := []string{c.pick("a", "b", "{id}", "+", "#", "$s", "")}
	for levels[len(levels)-1] != "#" && len(levels) < 3 && c.below(3) > 0 {
		levels = append(levels, c.pick("a", "b", "{id}", "+", "#", "+", "#", ""))
	}
	if f := strings.Join(levels, "/"); f != "" {
		return f
	}
	return "a"
}

func (c *choices) rule() Rule {
	r := Rule{Allow: c.below(3) > 0, Who: c.pick("*", "n", "@r", "@s", "b"), Topics: []string{c.filter()}}
	r.Actions = [][]Action{{Publish}, {Subscribe}, {Publish, Subscribe}}[c.below(3)]
	if c.below(2) == 1 {
		r.Topics = append(r.Topics, c.filter())
	}
	return r
}

func FuzzAllow(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 2, 0, 2, 3, 1, 4, 5, 6, 1, 2, 0, 0, 1, 2, 3, 4, 2, 1, 0, 2, 2, 1})
	f.Add([]byte("deny part of it, allow the rest, and then some more of everything"))
	f.Add([]byte("\x05\x02\x00\x02\x02\x04\x00\x00\x01\x00\x04\x02\x00\x02\x01\x04\x02\x02"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &choices{data}
		id := Identity{Name: c.pick("n", "a", "b", "$s", "a/b", "+", "#", "n\x00"), Roles: strings.Fields(c.pick("", "r", "s", "r s"))}
		var list []Rule
		for range c.below(6) {
			list = append(list, c.rule())
		}
		rules, err := Compile(list)
		if err != nil {
			t.Fatalf("%v: %v", list, err)
		}
		action := Action(c.below(2))
		for range 4 {
			topic := universe[(c.below(256)<<8|c.below(256))%len(universe)]
			if got, want := rules.Allow(id, action, topic), oracle(list, id, action, topic, oracleMatches); got != want {
				t.Fatalf("Allow(%q, %v, %q) = %v, want %v by %+v", id, action, topic, got, want, list)
			}
		}
		filter := strings.ReplaceAll(c.filter(), "{id}", "n")
		if got, want := rules.AllowFilter(id, filter), oracle(list, id, Subscribe, filter, oracleCovers); got != want {
			t.Fatalf("AllowFilter(%q, %q) = %v, want %v by %+v", id, filter, got, want, list)
		}
		if d := rules.Explain(id, Subscribe, filter); d.Allowed != rules.AllowFilter(id, filter) && strings.ContainsAny(filter, "+#") {
			t.Fatalf("Explain(%q, %q) = %+v", id, filter, d)
		}
	})
}
