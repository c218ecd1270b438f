package config

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// smallTopics is every topic of up to three levels of these.
var smallTopics = func() (all []string) {
	levels := []string{"a", "b", "ab", "c", "abc", "z", "$x"}
	all = slices.Clone(levels)
	for from := 0; len(all) < 400; {
		to := len(all)
		for _, head := range all[from:to] {
			for _, l := range levels {
				all = append(all, head+"/"+l)
			}
		}
		from = to
	}
	return all
}()

func somewhere(filters []string, topic string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return mqtt.Match(f, topic) })
}

// comesBack tries every topic.
func comesBack(send []Route, s int, receive Route) bool {
	return slices.ContainsFunc(smallTopics, func(topic string) bool {
		takes := func(r Route) bool { return somewhere(r.Topics, topic) && !somewhere(r.Except, topic) }
		if slices.IndexFunc(send, takes) != s {
			return false
		}
		far := send[s].Prefix + strings.TrimPrefix(topic, send[s].Strip)
		return far != "" && somewhere(receive.Topics, far)
	})
}

// What comes back is found if there is any, hardly anything else is, and the
// cure that is told cures.
func TestCircles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	filter := func() string {
		f := pick("a", "b", "ab", "c", "+", "$x", "#")
		for f[len(f)-1] != '#' && strings.Count(f, "/") < 2 && r.IntN(3) > 0 {
			f += "/" + pick("a", "b", "ab", "c", "+", "+", "#")
		}
		return f
	}
	rounds := 4_000
	if os.Getenv("PROVE") != "" {
		rounds = 100_000
	}
	found, vain := 0, 0
	for range rounds {
		var send []Route
		for range 1 + r.IntN(2) {
			s := Route{Topics: []string{filter()}, Strip: pick("", "a", "a/", "b/"), Prefix: pick("", "a", "a/", "c/", "b/c/", "$x/")}
			if r.IntN(2) == 0 {
				s.Except = []string{filter()}
			}
			send = append(send, s)
		}
		receive, s := Route{Topics: []string{filter()}}, len(send)-1
		got, want := returning(send, s, receive), comesBack(send, s, receive)
		switch {
		case want && got == "":
			t.Fatalf("not found: %+v, %+v", send, receive)
		case want:
			found++
		case got != "":
			vain++
		}
		for n := 0; got != ""; n++ {
			if n == 10 || mqtt.CheckFilter(got) != nil {
				t.Fatalf("the cure does not cure: except %q in %+v, %+v", got, send, receive)
			}
			send[s].Except = append(send[s].Except, got)
			got = returning(send, s, receive)
		}
	}
	t.Logf("%d circles, and %d found that are none", found, vain)
	if found < rounds/10 || vain > found/20 {
		t.Error("too few, or too many in vain")
	}
}

func TestCircleIsToldWithBothPlaces(t *testing.T) {
	const text = `version: 1
gateway: {id: gw}
northbound:
  - name: cloud
    servers: ["mqtts://one.example.com"]
    ca: a
    certificate: b
    key: c
    send:
      - {topics: ["plant/#", "hg/#"]}
    receive:
      - {topics: ["hg/{gateway}/+/cmd/#"]}
  - name: other
    servers: ["mqtts://two.example.com"]
    ca: a
    certificate: b
    key: c
    receive:
      - {topics: ["plant/set"]}
`
	_, err := loadText("f.yaml", text)
	if err == nil || !strings.Contains(err.Error(), "f.yaml:10:9: what it sends of hg/gw/+/cmd/# comes back by the receive route at f.yaml:12:9") ||
		!strings.Contains(err.Error(), `add except: ["hg/gw/+/cmd/#"] here`) || strings.Contains(err.Error(), "plant/set") {
		t.Errorf("got %v", err)
	}
	cured := strings.Replace(text, `"hg/#"]`, `"hg/#"], except: ["hg/gw/+/cmd/#"]`, 1)
	if _, err := loadText("f.yaml", cured); err != nil {
		t.Errorf("cured: %v", err)
	}
	same := strings.Replace(strings.Replace(cured, "two.ex", "one.ex", 1), "key: c\n    receive", "key: c\n    client_id: other\n    receive", 1)
	if _, err := loadText("f.yaml", same); err == nil || !strings.Contains(err.Error(), "f.yaml:10:9: what it sends of plant/set comes back by the receive route at f.yaml:20:9") {
		t.Errorf("two links to one server: %v", err)
	}
}
