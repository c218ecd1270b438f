package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A Rule allows or denies. The first that matches decides; none: refused.
type Rule struct {
	Allow   bool
	Actions []Action
	Who     string   // identity, "@role", "link:NAME", "device:NAME", "device:*", "link:*", or "*"
	Topics  []string // filters; "{id}" stands for the identity's name
}

// Rules is a compiled, immutable list. Safe for concurrent use. A nil *Rules
// refuses everything.
type Rules struct {
	source   []Rule
	clauses  [2][]clause // by Action, in the order of the rules
	expanded *expansions
}

// A clause is what one rule says about one action.
type clause struct {
	rule     int
	allow    bool
	who      subject
	patterns []pattern
}

// A pattern is one filter of a rule.
type pattern struct {
	filter   string
	head     string // every topic the filter matches starts with it
	slot     int    // number of this pattern among those with {id}
	template bool   // has {id}
}

const placeholder = "{id}"

// Compile checks and compiles; its error names the rule by index.
func Compile(rules []Rule) (*Rules, error) {
	r := &Rules{expanded: newExpansions()}
	slots := 0
	for i, rule := range rules {
		who, err := parseWho(rule.Who)
		if err != nil {
			return nil, fmt.Errorf("rule %d: who: %w", i, err)
		}
		c := clause{rule: i, allow: rule.Allow, who: who}
		for j, topic := range rule.Topics {
			p, err := parsePattern(topic)
			if err != nil {
				return nil, fmt.Errorf("rule %d: topics[%d] %q: %w", i, j, topic, err)
			}
			p.slot = slots
			slots++
			c.patterns = append(c.patterns, p)
		}
		if err := r.add(c, rule.Actions); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		rule.Topics, rule.Actions = slices.Clone(rule.Topics), slices.Clone(rule.Actions)
		r.source = append(r.source, rule)
	}
	return r, nil
}

func (r *Rules) add(c clause, actions []Action) error {
	if len(c.patterns) == 0 {
		return errors.New("no topics: name at least one filter")
	}
	if len(actions) == 0 {
		return errors.New("no action: write publish, subscribe or both")
	}
	for i, a := range actions {
		if a > Subscribe {
			return fmt.Errorf("unknown %v: use publish or subscribe", a)
		}
		if !slices.Contains(actions[:i], a) {
			r.clauses[a] = append(r.clauses[a], c)
		}
	}
	return nil
}

func parsePattern(topic string) (pattern, error) {
	bare := strings.ReplaceAll(topic, placeholder, "id")
	if strings.ContainsAny(bare, "{}") {
		return pattern{}, errors.New("only {id} can stand for something here: spell the rest out")
	}
	if err := mqtt.CheckFilter(bare); err != nil {
		return pattern{}, err
	}
	if isShared(bare) {
		return pattern{}, errors.New("a $share subscription is asked about by its filter: write the filter alone")
	}
	return pattern{filter: topic, head: literalHead(topic), template: strings.Contains(topic, placeholder)}, nil
}

// literalHead is the longest text that all topics matching filter start with.
// "a/#" matches "a" too [MQTT-4.7.1-2], so the separator before '#' is not in it.
func literalHead(filter string) string {
	filter = strings.TrimSuffix(strings.TrimSuffix(filter, "#"), "/")
	if i := strings.IndexAny(filter, "+{"); i >= 0 {
		return filter[:i]
	}
	return filter
}

func isShared(filter string) bool {
	return filter == "$share" || strings.HasPrefix(filter, "$share/")
}

// Allow decides about one topic name. A name with wildcards is refused.
func (r *Rules) Allow(id Identity, action Action, topic string) bool {
	if topic == "" || strings.ContainsAny(topic, "+#\x00") {
		return false
	}
	_, allowed := r.decide(&id, action, topic, mqtt.Match)
	return allowed
}

// AllowFilter decides whether id may subscribe to filter at all: an allow rule
// must cover all of it before a deny rule covers all of it. Deliveries are
// asked about one by one with Allow. "$share/group/filter" is asked about as
// filter; a malformed filter is refused.
func (r *Rules) AllowFilter(id Identity, filter string) bool {
	filter, err := bareFilter(filter)
	if err != nil {
		return false
	}
	_, allowed := r.decide(&id, Subscribe, filter, mqtt.Covers)
	return allowed
}

// bareFilter checks a filter and takes a share group off.
func bareFilter(filter string) (string, error) {
	if err := mqtt.CheckFilter(filter); err != nil {
		return "", err
	}
	if _, rest, ok := mqtt.SplitShared(filter); ok {
		filter = rest
	}
	return filter, nil
}

// Speaks reports whether a rule allows id anything anywhere. Without one, all
// it does is refused.
func (r *Rules) Speaks(id Identity) bool {
	for _, clauses := range r.clauses {
		for i := range clauses {
			if clauses[i].allow && clauses[i].who.is(&id) {
				return true
			}
		}
	}
	return false
}

// decide finds the first clause that speaks of topic; -1 if there is none.
func (r *Rules) decide(id *Identity, action Action, topic string, match func(filter, topic string) bool) (rule int, allowed bool) {
	if r == nil || id.Name == "" || action > Subscribe {
		return -1, false
	}
	clauses := r.clauses[action]
	for i := range clauses {
		c := &clauses[i]
		if c.who.is(id) && r.speaksOf(c, id.Name, topic, match) {
			return c.rule, c.allow
		}
	}
	return -1, false
}

func (r *Rules) speaksOf(c *clause, name, topic string, match func(filter, topic string) bool) bool {
	for i := range c.patterns {
		p := &c.patterns[i]
		filter := p.filter
		if p.template && !canExpand(name) {
			if c.allow {
				continue
			}
			return true
		}
		if !strings.HasPrefix(topic, p.head) {
			continue
		}
		if p.template {
			filter = r.expanded.get(p, name)
		}
		if match(filter, topic) {
			return true
		}
	}
	return false
}

// ServerOnly reports whether no client may publish there, whatever the rules
// say: what the server says of itself, and what would read as a shared
// subscription. Other topics that start with '$' need a rule that names the '$':
// a filter that starts with a wildcard is not for them [MQTT-4.7.2-1].
func ServerOnly(topic string) bool {
	first, _, _ := strings.Cut(topic, "/")
	return first == "$SYS" || first == "$share"
}

// A Decision is what becomes of a request, with the reason.
type Decision struct {
	Allowed bool
	Rule    int    // index of the one that decides, -1: none matched, or none is asked
	Why     string // a clause, with that rule for its subject if there is one
}

// Explain is ServerOnly and Allow or, where topic has wildcards, AllowFilter, in
// words.
func (r *Rules) Explain(id Identity, action Action, topic string) Decision {
	match, asked := mqtt.Match, "the topic"
	if strings.ContainsAny(topic, "+#") || action == Subscribe && isShared(topic) {
		if action == Publish {
			return Decision{Rule: -1, Why: "a topic to publish to has no wildcards"}
		}
		match, asked = mqtt.Covers, "all of the filter"
	}
	bare := topic
	var err error
	if asked == "the topic" {
		err = mqtt.CheckTopic(topic)
	} else {
		bare, err = bareFilter(topic)
	}
	if err != nil {
		return Decision{Rule: -1, Why: fmt.Sprintf("refused before any rule: %v", err)}
	}
	if action == Publish && ServerOnly(topic) {
		return Decision{Rule: -1, Why: "no client may publish there, whatever the rules say"}
	}
	rule, allowed := r.decide(&id, action, bare, match)
	return Decision{Allowed: allowed, Rule: rule, Why: r.sentence(id.Name, rule, action, asked)}
}

func (r *Rules) sentence(name string, rule int, action Action, asked string) string {
	if rule < 0 {
		return fmt.Sprintf("no rule lets %q %v here, so it is refused; add an allow rule under access.rules", name, action)
	}
	s := r.source[rule]
	verb := "denies"
	if s.Allow {
		verb = "allows"
	}
	topics := strings.Join(s.Topics, ", ")
	if !s.Allow && strings.Contains(topics, placeholder) && !canExpand(name) {
		return fmt.Sprintf("%s %v to %q: {id} in [%s] cannot stand for this name, so everything is denied", verb, action, s.Who, topics)
	}
	return fmt.Sprintf("%s %v to %q: [%s] covers %s", verb, action, s.Who, topics, asked)
}
