package config

import (
	"slices"
	"strings"
	"testing"
)

func loadOver(t *testing.T, text string) *Config {
	t.Helper()
	_, c, err := loadFiles(t, map[string]string{"headgate.yaml": "version: 1\ngateway: {id: a, data: /d}\n" + text})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func lines(changes []Change) string {
	var all []string
	for _, c := range changes {
		switch {
		case c.Old == "":
			all = append(all, "+ "+c.Path+": "+c.New)
		case c.New == "":
			all = append(all, "- "+c.Path+": "+c.Old)
		default:
			all = append(all, "~ "+c.Path+": "+c.Old+" → "+c.New)
		}
	}
	return strings.Join(all, "\n")
}

func TestChanges(t *testing.T) {
	const rule = "{allow: publish, who: \"*\", topics: [\"%\"]}"
	rules := func(topics ...string) string {
		var all []string
		for _, topic := range topics {
			all = append(all, strings.ReplaceAll(rule, "%", topic))
		}
		return "access: {rules: [" + strings.Join(all, ", ") + "]}\n"
	}
	shown := func(topic string) string {
		return `access.rules: {allow: [publish], who: "*", topics: [` + topic + "]}"
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"none":       {rules("x", "y"), rules("x", "y"), ""},
		"a value":    {"", "broker: {limits: {connections: 7}}\n", `~ broker.limits.connections: 10000 → 7`},
		"a new rule": {rules("x", "y"), rules("x", "z", "y"), "+ " + shown("z")},
		"a rule less": {
			rules("x", "y", "z"), rules("x", "z"), "- " + shown(`"y"`), // quoted: YAML 1.1 takes y for true
		},
		"rules change places": {rules("x", "z"), rules("z", "x"), "- " + shown("x") + "\n+ " + shown("x")},
		"a rule changes":      {rules("x"), rules("z"), "~ " + shown("x") + " → " + strings.TrimPrefix(shown("z"), "access.rules: ")},
		"a bus": {
			"buses: {one: {url: \"tcp://h\"}}\n", "buses: {two: {url: \"tcp://h\"}}\n",
			"- buses[one].url: \"tcp://h\"\n+ buses[two].url: \"tcp://h\"",
		},
		"a listener": {
			"broker: {listeners: [{address: \"127.0.0.1:1883\", plaintext: true}]}\n",
			"broker: {listeners: [{address: \"127.0.0.1:1883\", plaintext: true, anonymous_as: visitor}]}\n",
			`+ broker.listeners["127.0.0.1:1883"].anonymous_as: visitor`,
		},
		"a plugin's settings": {
			"devices: [{id: d, adapter: opcua, settings: {password: before}}]\n",
			"devices: [{id: d, adapter: opcua, settings: {password: after}}]\n",
			"~ devices[d].settings: (not shown) → (not shown)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Split(lines(loadOver(t, tc.old).Changes(loadOver(t, tc.new))), "\n")
			want := strings.Split(tc.want, "\n")
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), tc.want)
			}
		})
	}
}

// What is adopted and what is left over are the whole difference.
func TestAdopt(t *testing.T) {
	old := loadOver(t, "queue: {max_size: 1GiB}\nadmin: {address: \"127.0.0.1:1\"}\n")
	next := loadOver(t, "queue: {max_size: 3GiB}\nadmin: {address: \"127.0.0.1:2\"}\nbroker: {limits: {connections: 7}, lockout: {failures: 9}}\n"+
		"access: {certificate_name: cn, certificates: [{match: a, roles: [r]}], rules: [{allow: publish, who: \"*\", topics: [\"x\"]}]}\n")
	adopted := old.Adopt(next)
	if len(old.Changes(loadOver(t, "queue: {max_size: 1GiB}\nadmin: {address: \"127.0.0.1:1\"}\n"))) != 0 {
		t.Error("Adopt changed its receiver")
	}
	if adopted.Broker.Limits.Connections != 7 || adopted.Broker.Lockout.Failures != 9 || len(adopted.Access.Rules) != 1 || adopted.Queue.MaxSize != 3<<30 {
		t.Errorf("adopted %+v", adopted)
	}
	if got, want := lines(adopted.Changes(next)), "~ access.certificate_name: san → cn\n~ admin.address: \"127.0.0.1:1\" → \"127.0.0.1:2\""; got != want {
		t.Errorf("left over\n%s\nwant\n%s", got, want)
	}
	if n := len(old.Changes(adopted)); n != 5 {
		t.Errorf("%d changes adopted, want 5: %s", n, lines(old.Changes(adopted)))
	}
}
