package gateway_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
)

// A way is a route as a person would write it down.
type way struct {
	topics, except []string
	qos            int
	strip, prefix  string
}

// A crossing is a gateway's way to the cloud and back: links, their routes, what
// rules say of them, and lanes.
type crossing struct {
	out, in [2][]way // by link
	laws    []law
	lanes   []string // one filter each; the last is "#"
}

var crossingLinks = [2]string{"x", "y"}

// inbound is where the clouds' names begin that routes receive: if those were
// also sent under them, most configurations would be refused as circles.
const inbound = "in/"

func randomWays(r *rand.Rand, local string, except bool) (all []way) {
	for range r.IntN(3) {
		w := way{qos: r.IntN(2), strip: pick(r, "", "a", "a/", "n/", "$d/"), prefix: pick(r, "", local, local+"/")}
		for range 1 + r.IntN(2) {
			w.topics = append(w.topics, randomFilter(r, []string{"a", "n", "x", "+", "$d", "#", "hg"}, []string{"a", "n", "+", "#", "gw"}))
		}
		if except && r.IntN(2) == 0 {
			w.except = []string{randomFilter(r, []string{"a", "n", "+"}, []string{"a", "n", "x", "+", "other"}) + "/other"}
			w.except[0] = strings.Replace(w.except[0], "/#", "", 1)
		}
		all = append(all, w)
	}
	return all
}

func randomCrossing(r *rand.Rand) crossing {
	var c crossing
	for i := range crossingLinks {
		c.out[i], c.in[i] = randomWays(r, "far", true), randomWays(r, "near", false)
		for _, w := range c.in[i] {
			for k := range w.topics {
				w.topics[k] = inbound + w.topics[k]
			}
		}
		for k := range c.in[i] {
			if c.in[i][k].strip != "" {
				c.in[i][k].strip = inbound + strings.TrimPrefix(c.in[i][k].strip, "$d/")
			}
		}
		c.out[i] = append(c.out[i], way{topics: []string{"a/#"}, qos: 1}) // one there must be
	}
	for range 4 + r.IntN(6) {
		c.laws = append(c.laws, law{allow: r.IntN(4) > 0, who: pick(r, "*", "link:*", "link:x", "link:y", "nobody"),
			actions: [][]string{{"publish"}, {"subscribe"}, {"publish", "subscribe"}}[r.IntN(3)],
			topics:  []string{randomFilter(r, []string{"a", "n", "x", "near", "+", "$d", "#", "hg"}, []string{"a", "n", "+", "#"})}})
	}
	for range r.IntN(3) {
		c.lanes = append(c.lanes, randomFilter(r, []string{"a", "n", "x", "+"}, []string{"a", "n", "x", "+"}))
	}
	c.lanes = append(c.lanes, "#")
	return c
}

func flow(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	return `["` + strings.Join(list, `", "`) + `"]`
}

func (c crossing) yaml() string {
	var b strings.Builder
	b.WriteString("version: 1\ngateway: {id: gw, data: data}\nadmin: {address: \"\"}\naccess:\n  rules:\n")
	for _, l := range c.laws {
		fmt.Fprintf(&b, "    - {%s: [%s], who: %q, topics: %s}\n", map[bool]string{true: "allow", false: "deny"}[l.allow],
			strings.Join(l.actions, ", "), l.who, flow(l.topics))
	}
	b.WriteString("queue:\n  lanes:\n")
	for i, filter := range c.lanes {
		fmt.Fprintf(&b, "    - {name: lane%d, topics: [%q], max_size: 1MiB}\n", i, filter)
	}
	b.WriteString("northbound:\n")
	for i, name := range crossingLinks {
		fmt.Fprintf(&b, "  - name: %s\n    servers: [\"mqtts://%[1]s.example.com\"]\n    ca: a\n    certificate: b\n    key: c\n", name)
		for _, side := range []struct {
			key  string
			ways []way
		}{{"send", c.out[i]}, {"receive", c.in[i]}} {
			if len(side.ways) == 0 {
				continue
			}
			fmt.Fprintf(&b, "    %s:\n", side.key)
			for _, w := range side.ways {
				fmt.Fprintf(&b, "      - {topics: %s, qos: %d, strip: %q, prefix: %q", flow(w.topics), w.qos, w.strip, w.prefix)
				if len(w.except) > 0 {
					fmt.Fprintf(&b, ", except: %s", flow(w.except))
				}
				b.WriteString("}\n")
			}
		}
	}
	return b.String()
}

func anyMatches(filters []string, topic string) bool {
	for _, f := range filters {
		if matchesTopic(strings.Split(f, "/"), strings.Split(topic, "/")) {
			return true
		}
	}
	return false
}

// taken is the oracle's word on which way a topic takes, and its new name.
func taken(ways []way, topic string) (w way, name string, ok bool) {
	for _, w := range ways {
		if !anyMatches(w.topics, topic) || anyMatches(w.except, topic) {
			continue
		}
		name = topic
		if w.strip != "" && strings.Index(topic, w.strip) == 0 {
			name = topic[len(w.strip):]
		}
		return w, w.prefix + name, true
	}
	return way{}, "", false
}

func (c crossing) may(link, action, topic string) bool {
	if action == "publish" && (topic == "$SYS" || strings.HasPrefix(topic, "$SYS/")) {
		return false
	}
	for _, l := range c.laws {
		if l.who != "*" && l.who != "link:*" && l.who != "link:"+link || !strings.Contains(strings.Join(l.actions, " "), action) {
			continue
		}
		if anyMatches(l.topics, topic) {
			return l.allow
		}
	}
	return false
}

func (c crossing) lane(topic string) string {
	for i, filter := range c.lanes {
		if topic != "hg/gw/lost" && (filter == "#" || anyMatches([]string{filter}, topic)) {
			return fmt.Sprintf("lane%d", i)
		}
	}
	return ""
}

// step is what the oracle expects of a link, as one line; empty: nothing passes.
func (c crossing) step(link int, topic string, fromCloud bool) string {
	ways, action, lane := c.out[link], "subscribe", c.lane(topic)
	if fromCloud {
		ways, action, lane = c.in[link], "publish", ""
	}
	w, name, ok := taken(ways, topic)
	asked := topic
	if fromCloud {
		asked = name
	}
	if !ok || fromCloud && name == "" || !c.may(crossingLinks[link], action, asked) {
		return ""
	}
	return fmt.Sprintf("%s %d %s", lane, w.qos, name)
}

func stepLine(s gateway.RouteStep) string {
	if !s.Passes {
		return ""
	}
	return fmt.Sprintf("%s %d %s", s.Lane, s.QoS, s.Name)
}

// What headgate route explain says, for which links and lanes a gateway stores a
// message, and what the oracle holds is the same.
func TestRouteExplainAgrees(t *testing.T) {
	crossings, each := 20, 60
	if os.Getenv("PROVE") != "" {
		crossings, each = 150, 200
	}
	asked, out, in, onward := 0, 0, 0, 0
	for i, loaded := 0, 0; loaded < crossings && i < 50*crossings; i++ {
		r := rand.New(rand.NewPCG(uint64(i), 11))
		c := randomCrossing(r)
		file := filepath.Join(t.TempDir(), "headgate.yaml")
		if err := os.WriteFile(file, []byte(c.yaml()), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(file)
		if err != nil {
			continue // a route that cannot match, or a circle: refused
		}
		loaded++
		g, err := gateway.New(cfg, gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range each {
			topic := strings.Join(everyTopic[r.IntN(len(everyTopic))], "/")
			if r.IntN(20) == 0 {
				topic = pick(r, "hg/gw/lost", "a/", "/a", "n//x", "a")
			}
			asked++
			out += c.compareOut(t, cfg, g, topic)
			n, more := c.compareIn(t, cfg, g, inbound+topic)
			in, onward = in+n, onward+more
		}
		g.Close()
	}
	t.Logf("%d topics: %d leave, %d come in, %d of them go on", asked, out, in, onward)
	if asked < crossings*each || out < asked/10 || in < asked/20 || onward < asked/100 {
		t.Error("too few pass: the test did not test")
	}
}

func (c crossing) compareOut(t *testing.T, cfg *config.Config, g *gateway.Gateway, topic string) (passed int) {
	t.Helper()
	e, err := gateway.ExplainRoute(cfg, topic, false)
	if err != nil {
		t.Fatal(err)
	}
	marks := map[string]string{}
	for i, name := range crossingLinks {
		want := c.step(i, topic, false)
		if strings.HasSuffix(want, " ") { // stored, and quarantined as its name is none
			marks[name], want = want[:len(want)-1], ""
		}
		if got := stepLine(e.Links[i]); got != want {
			t.Errorf("%s over %s: explained %q, the oracle says %q: %+v\n%s", topic, name, got, want, e.Links[i], c.yaml())
		}
		if want != "" {
			passed++
			marks[name] = want[:strings.LastIndexByte(want, ' ')]
		}
	}
	if got := g.Marks(topic, "local"); !maps.Equal(got, marks) {
		t.Errorf("%s is stored for %v, the oracle says %v\n%s", topic, got, marks, c.yaml())
	}
	if e.Passes != (passed > 0) {
		t.Errorf("%s passes: %v, by %d links", topic, e.Passes, passed)
	}
	return passed
}

func (c crossing) compareIn(t *testing.T, cfg *config.Config, g *gateway.Gateway, topic string) (passed, onward int) {
	t.Helper()
	e, err := gateway.ExplainRoute(cfg, topic, true)
	if err != nil {
		t.Fatal(err)
	}
	for i, link := range crossingLinks {
		want := c.step(i, topic, true)
		if got := stepLine(e.Links[i]); got != want {
			t.Errorf("%s from %s: explained %q, the oracle says %q: %+v\n%s", topic, link, got, want, e.Links[i], c.yaml())
		}
		if want == "" {
			continue
		}
		passed++
		name, other := e.Links[i].Name, 1-i
		on := ""
		for _, s := range e.Links[i].Onward {
			on += s.Link + " " + stepLine(s)
		}
		expected := c.step(other, name, false)
		if expected != "" {
			onward++
			if strings.HasSuffix(expected, " ") {
				continue
			}
			expected = crossingLinks[other] + " " + expected
		}
		if on != expected {
			t.Errorf("%s from %s goes on as %q, the oracle says %q\n%s", topic, link, on, expected, c.yaml())
		}
		if marks := g.Marks(name, "link:"+link); len(marks) > 1 || len(marks) == 1 != (on != "") {
			t.Errorf("%s from %s is stored for %v, explained %q\n%s", topic, link, marks, on, c.yaml())
		}
	}
	return passed, onward
}
