package access

import (
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// maxShadowTopics is up to how many topics of rules Shadowed compares, each
// with each: so many take a fraction of a second.
const maxShadowTopics = 2000

// Shadowed finds rules that can never decide, since earlier ones speak of all
// they do. It returns their indexes, each with that of an earlier rule that
// stands in its way. What it does not find may be shadowed all the same: it
// compares topic with topic, and beyond 2000 of them nothing. The rules must
// compile.
func Shadowed(rules []Rule) map[int]int {
	topics := 0
	for _, r := range rules {
		topics += len(r.Topics)
	}
	if topics > maxShadowTopics {
		return nil
	}
	found := make(map[int]int)
	for i := range rules {
		if by := shadowOf(rules, i); by >= 0 {
			found[i] = by
		}
	}
	return found
}

// shadowOf is -1 if rule i may decide.
func shadowOf(rules []Rule, i int) int {
	by := -1
	for _, action := range rules[i].Actions {
		for _, topic := range rules[i].Topics {
			if !rules[i].Allow && strings.Contains(topic, placeholder) {
				return -1 // it denies everything to names that {id} cannot stand for
			}
			by = slices.IndexFunc(rules[:i], func(r Rule) bool {
				return slices.Contains(r.Actions, action) && includes(r.Who, rules[i].Who) && slices.ContainsFunc(r.Topics, func(earlier string) bool {
					return mqtt.Covers(asName(earlier), asName(topic))
				})
			})
			if by < 0 {
				return -1
			}
		}
	}
	return by
}

// asName lets one name stand for {id}: both rules are asked about the same one,
// and it is a level or a part of it like all others.
func asName(topic string) string { return strings.ReplaceAll(topic, placeholder, "\x01") }

// includes reports whether a rule for who is asked about everybody that one for
// other is asked about: "*", "link:*" and "device:*" speak of more than one.
func includes(who, other string) bool {
	prefix, all := strings.CutSuffix(who, "*")
	return who == other || all && strings.HasPrefix(other, prefix)
}
