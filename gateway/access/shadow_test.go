package access

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestShadowed(t *testing.T) {
	both := []Action{Publish, Subscribe}
	rules := []Rule{
		{Allow: true, Actions: both[:1], Who: "*", Topics: []string{"a/#"}},
		{Actions: both[:1], Who: "link:*", Topics: []string{"a/b", "a"}},                    // shadowed
		{Actions: both, Who: "anna", Topics: []string{"a/b"}},                               // decides subscriptions
		{Allow: true, Actions: both[1:], Who: "anna", Topics: []string{"a/b"}},              // shadowed by the one before
		{Allow: true, Actions: both, Who: "@r", Topics: []string{"p/{id}/#", "q/+"}},        // first to speak of it
		{Allow: true, Actions: both[1:], Who: "@r", Topics: []string{"p/{id}/x", "q/{id}"}}, // shadowed
		{Allow: true, Actions: both, Who: "@r", Topics: []string{"p/x/#"}},                  // only x has it already
		{Actions: both, Who: "@r", Topics: []string{"p/{id}/x"}},                            // all is denied to odd names
		{Actions: both[:1], Who: "*", Topics: []string{"#"}},
		{Actions: both[:1], Who: "gate", Topics: []string{"$SYS/x"}}, // '#' does not speak of it
		{Actions: both[:1], Who: "device:*", Topics: []string{"x"}},  // shadowed
		{Actions: both[:1], Who: "*", Topics: []string{"+"}},         // shadowed
	}
	if _, err := Compile(rules); err != nil {
		t.Fatal(err)
	}
	want := map[int]int{1: 0, 3: 2, 5: 4, 10: 8, 11: 8}
	if got := Shadowed(rules); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Shadowed(slices.Repeat(rules[:1], maxShadowTopics+1)); got != nil {
		t.Errorf("too many rules are compared: %v", got)
	}
}

// Whatever is asked, a rule that is said never to decide does not.
func TestShadowedNeverDecide(t *testing.T) {
	pick := rand.New(rand.NewPCG(1, 2))
	one := func(of []string) string { return of[pick.IntN(len(of))] }
	who := []string{"*", "@r", "anna", "link:*", "link:x"}
	topics := []string{"#", "+", "a", "a/#", "a/+", "+/+", "+/#", "a/b", "{id}/#", "a/{id}", "a/anna", "$x/#", "$x/{id}", "$x", "/#", "/", "${id}/#"}
	asked := []string{"a", "a/b", "a/anna", "anna", "anna/b", "$x", "$x/anna", "$anna", "/", "/a", "a/b/c", "#", "+", "a/#", "+/+", "$x/#", "a/+", "/#", "link:x/a"}
	ids := []Identity{{Name: "anna"}, {Name: "anna", Roles: []string{"r"}}, {Name: "b", Roles: []string{"r"}}, {Name: "link:x"}, {Name: "odd/name"}, {Name: "$odd", Roles: []string{"r"}}}
	found := 0
	for range 2000 {
		var list []Rule
		for range 6 {
			list = append(list, Rule{
				Allow: pick.IntN(2) == 0, Actions: []Action{Publish, Subscribe}[pick.IntN(2):], Who: one(who), Topics: []string{one(topics), one(topics)},
			})
		}
		shadowed, rules := Shadowed(list), mustCompile(t, list...)
		found += len(shadowed)
		for _, id := range ids {
			for _, topic := range asked {
				for _, action := range []Action{Publish, Subscribe} {
					if d := rules.Explain(id, action, topic); d.Rule >= 0 {
						if _, said := shadowed[d.Rule]; said {
							t.Fatalf("rule %d decides %v of %q on %s: %+v", d.Rule, action, id.Name, topic, list)
						}
					}
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d rules were shadowed", found)
	}
}
