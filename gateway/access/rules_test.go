package access

import (
	"fmt"
	"strings"
	"testing"
)

func mustCompile(t testing.TB, rules ...Rule) *Rules {
	t.Helper()
	r, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func allow(who string, a Action, topics ...string) Rule {
	return Rule{Allow: true, Actions: []Action{a}, Who: who, Topics: topics}
}

func deny(who string, a Action, topics ...string) Rule {
	return Rule{Actions: []Action{a}, Who: who, Topics: topics}
}

var (
	press    = Identity{Name: "press-1", Roles: []string{"sensor"}}
	cloud    = Identity{Name: "link:cloud"}
	operator = Identity{Name: "operator", Roles: []string{"human", "staff"}}
)

func TestAllow(t *testing.T) {
	site := []Rule{
		deny("link:cloud", Subscribe, "plant/private/#"),
		allow("@sensor", Publish, "plant/{id}/#", "x-{id}/+"),
		{Allow: true, Actions: []Action{Publish, Subscribe}, Who: "operator", Topics: []string{"plant/#", "cmd/#"}},
		allow("link:*", Subscribe, "plant/#"),
		allow("device:*", Publish, "hg/{id}/#"),
		deny("*", Subscribe, "free/secret"),
		allow("*", Subscribe, "free/#"),
	}
	rules := mustCompile(t, site...)
	for _, c := range []struct {
		id     Identity
		action Action
		topic  string
		want   bool
	}{
		{press, Publish, "plant/press-1/temp", true},
		{press, Publish, "plant/press-1", true}, // the parent of '#'
		{press, Publish, "plant/press-12/temp", false},
		{press, Publish, "x-press-1/a", true},
		{press, Publish, "x-press-1/a/b", false},
		{press, Subscribe, "plant/press-1/temp", false},
		{Identity{Name: "press-1"}, Publish, "plant/press-1/temp", false}, // no role
		{operator, Publish, "plant", true},
		{operator, Subscribe, "cmd/x", true},
		{operator, Publish, "other", false},
		{cloud, Subscribe, "plant/a", true},
		{cloud, Subscribe, "plant/private/a", false},
		{cloud, Publish, "plant/a", false},
		{Identity{Name: "device:boiler"}, Publish, "hg/device:boiler/fast", true},
		{Identity{Name: "device"}, Publish, "hg/device/fast", false},
		{press, Subscribe, "free/x", true},
		{press, Subscribe, "free/secret", false},
		{Identity{}, Subscribe, "free/x", false},
		{press, Action(7), "free/x", false},
		{press, Subscribe, "free/+", false}, // not a topic name
		{press, Subscribe, "free/\x00", false},
		{press, Subscribe, "", false},
	} {
		if got := rules.Allow(c.id, c.action, c.topic); got != c.want {
			t.Errorf("Allow(%v, %v, %q) = %v", c.id, c.action, c.topic, got)
		}
	}
}

func TestNothingIsAllowedWithoutRules(t *testing.T) {
	for name, r := range map[string]*Rules{"nil": nil, "zero": new(Rules), "empty": mustCompile(t)} {
		if r.Allow(press, Publish, "a") || r.AllowFilter(press, "#") || r.Explain(press, Publish, "a").Allowed {
			t.Errorf("%s rules allow", name)
		}
	}
}

func TestDollarTopics(t *testing.T) {
	rules := mustCompile(t, allow("*", Subscribe, "#", "$app/+"), allow("*", Publish, "{id}/#"))
	for topic, want := range map[string]bool{"$SYS/x": false, "$app/x": true, "a": true, "$": false} {
		if got := rules.Allow(press, Subscribe, topic); got != want {
			t.Errorf("Allow(%q) = %v", topic, got)
		}
	}
	for filter, want := range map[string]bool{
		"#": true, "+/x": true, "$SYS/#": false, "$app/x": true, "$app/#": false,
		"$share/g/a/#": true, "$share/g/$SYS/#": false, "$share/g/#": true, "$share/g/$app/+": true,
		"$share": false, "$share/": false, "$share//x": false, "$share/g/": false, "$share/g+/x": false,
		"$share/g/$share/h/x": false, "$SHARE/g/x": false, "a/#/b": false, "": false, "a\x00": false,
	} {
		if got := rules.AllowFilter(press, filter); got != want {
			t.Errorf("AllowFilter(%q) = %v", filter, got)
		}
	}
	if rules.Allow(Identity{Name: "$SYS"}, Publish, "$SYS/x") {
		t.Error("a name with '$' opened the system topics")
	}
}

func TestAllowFilter(t *testing.T) {
	rules := mustCompile(t,
		deny("@sensor", Subscribe, "hr/pay/#"),
		allow("@sensor", Subscribe, "hr/+", "hr/#"),
		deny("@sensor", Subscribe, "#"),
		allow("@sensor", Subscribe, "late"),
	)
	for filter, want := range map[string]bool{
		"hr/#":       true, // a part is denied, and refused at delivery
		"hr/+":       true,
		"hr/pay/#":   false,
		"hr/pay/a":   false,
		"hr/+/a":     true,
		"#":          false,
		"+/#":        false,
		"late":       false, // all of it was denied before
		"hr/pay/#/x": false,
	} {
		if got := rules.AllowFilter(press, filter); got != want {
			t.Errorf("AllowFilter(%q) = %v", filter, got)
		}
	}
	if !rules.Allow(press, Subscribe, "hr/x") || rules.Allow(press, Subscribe, "hr/pay/x") {
		t.Error("deliveries under hr/# are not asked one by one")
	}
}

// Whatever the name, it never widens an allow, and never narrows a deny.
func TestNamesThatWouldChangeAFilter(t *testing.T) {
	rules := mustCompile(t, deny("*", Publish, "own/{id}/locked"), allow("*", Publish, "own/{id}/#"), allow("*", Publish, "pub/#"))
	for _, name := range []string{"+", "#", "a/#", "a/b", "a+", "\x00", "a\x00b", "/", "$SYS"} {
		id := Identity{Name: name}
		for _, topic := range []string{"own/a/x", "own/a/b/locked", "own/" + name + "/x", "pub/x"} {
			if rules.Allow(id, Publish, topic) {
				t.Errorf("%q may publish %q", name, topic)
			}
		}
	}
	for _, name := range []string{".*", "[a-z]", "-", "%i", "{id}", "a b"} {
		id := Identity{Name: name}
		if rules.Allow(id, Publish, "own/a/x") || !rules.Allow(id, Publish, "own/"+name+"/x") {
			t.Errorf("%q is more than its own text in a filter", name)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	good := allow("*", Publish, "a")
	for want, rule := range map[string]Rule{
		"rule 1: who: \"press-*\" is nobody":  allow("press-*", Publish, "a"),
		"rule 1: who: \"\" is nobody":         allow("", Publish, "a"),
		"rule 1: who: \"@\" is not a role":    allow("@", Publish, "a"),
		"rule 1: who: \"link:\" is nobody":    allow("link:", Publish, "a"),
		"rule 1: who: \"device:a/b\" is":      allow("device:a/b", Publish, "a"),
		"rule 1: no topics":                   allow("*", Publish),
		"rule 1: no action":                   {Who: "*", Topics: []string{"a"}},
		"rule 1: unknown action(9)":           allow("*", 9, "a"),
		"rule 1: topics[1] \"a/#/b\"":         allow("*", Publish, "a", "a/#/b"),
		"only {id} can stand for something":   allow("*", Publish, "hg/{gateway}/#"),
		"write the filter alone":              allow("*", Subscribe, "$share/g/a"),
		"topics[0] \"a{id}#\"":                allow("*", Publish, "a{id}#"),
		"topics[0] \"\"":                      allow("*", Publish, ""),
		"topics[0] \"{id\": only {id} can st": allow("*", Publish, "{id"),
	} {
		if _, err := Compile([]Rule{good, rule}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Compile: %v, want %q", err, want)
		}
	}
}

func TestCompileKeepsNothingOfTheCaller(t *testing.T) {
	list := []Rule{allow("*", Publish, "a")}
	rules := mustCompile(t, list...)
	list[0].Topics[0], list[0].Actions[0] = "b", Subscribe
	if d := rules.Explain(press, Publish, "a"); !d.Allowed || !strings.Contains(d.Why, "[a]") {
		t.Errorf("Explain = %+v", d)
	}
}

func TestExplain(t *testing.T) {
	rules := mustCompile(t, deny("*", Publish, "own/{id}/x"), allow("@sensor", Publish, "own/{id}/#"), allow("*", Subscribe, "a/#"))
	for _, c := range []struct {
		id     Identity
		action Action
		topic  string
		want   Decision
	}{
		{press, Publish, "own/press-1/y", Decision{true, 1, `allows publish to "@sensor": [own/{id}/#] covers the topic`}},
		{press, Publish, "own/press-1/x", Decision{false, 0, `denies publish to "*"`}},
		{press, Publish, "other", Decision{false, -1, "no rule lets \"press-1\" publish here"}},
		{press, Publish, "$SYS/x", Decision{false, -1, "whatever the rules say"}},
		{press, Publish, "own/#", Decision{false, -1, "no wildcards"}},
		{press, Subscribe, "a/+", Decision{true, 2, "covers all of the filter"}},
		{press, Subscribe, "$share/g/a", Decision{true, 2, "covers all of the filter"}},
		{press, Subscribe, "a/b", Decision{true, 2, "covers the topic"}},
		{press, Subscribe, "a/#/b", Decision{false, -1, "refused before any rule"}},
		{press, Subscribe, "", Decision{false, -1, "refused before any rule"}},
		{Identity{Name: "a/b"}, Publish, "z", Decision{false, 0, "cannot stand for this name, so everything is denied"}},
	} {
		got := rules.Explain(c.id, c.action, c.topic)
		if got.Allowed != c.want.Allowed || got.Rule != c.want.Rule || !strings.Contains(got.Why, c.want.Why) {
			t.Errorf("Explain(%v, %v, %q) = %+v, want %+v", c.id, c.action, c.topic, got, c.want)
		}
	}
}

func TestExpansionsAreBounded(t *testing.T) {
	rules := mustCompile(t, allow("*", Publish, "{id}/#"))
	for i := range 3 * expansionShards * expansionsInShard {
		name := fmt.Sprint("n", i)
		if !rules.Allow(Identity{Name: name}, Publish, name+"/x") {
			t.Fatal(name)
		}
	}
	total := 0
	for i := range rules.expanded.shards {
		total += len(rules.expanded.shards[i].filters)
	}
	if total > expansionShards*expansionsInShard {
		t.Errorf("%d expansions kept", total)
	}
}

func hundredRules(t testing.TB) *Rules {
	var list []Rule
	for i := range 98 {
		list = append(list, allow([]string{"*", "@sensor", "user-9"}[i%3], Publish, fmt.Sprintf("area-%d/+/x/#", i), fmt.Sprintf("line-%d/{id}/#", i)))
	}
	list = append(list, deny("@sensor", Publish, "plant/+/secret"), allow("@sensor", Publish, "plant/{id}/#"))
	return mustCompile(t, list...)
}

func TestAllowDoesNotAllocate(t *testing.T) {
	rules := hundredRules(t)
	n := testing.AllocsPerRun(100, func() {
		if !rules.Allow(press, Publish, "plant/press-1/temp") || rules.Allow(press, Publish, "nowhere/press-1/temp") {
			t.Fatal("wrong answer")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	rules := hundredRules(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !rules.Allow(press, Publish, "plant/press-1/temp") {
				b.Error("refused")
			}
		}
	})
}
