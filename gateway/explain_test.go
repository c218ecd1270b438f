package gateway_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
)

// A law is a rule as a person would write it down.
type law struct {
	allow   bool
	actions []string
	who     string
	topics  []string
}

// A citizen is a client and what its user or certificate gives it.
type citizen struct {
	name  string
	roles []string
	cert  bool
}

var citizens = []citizen{
	{"a", nil, false}, {"n", []string{"r"}, false}, {"m.1", []string{"r", "s"}, false},
	{"b-2", []string{"s"}, false}, {"cert-1", []string{"s"}, true}, {"cert-n", []string{"s", "r"}, true},
}

// The oracle: no index, no cache, no cleverness. A filter covers another if every
// topic that is short enough and matches the one matches the other.

func matchesLevels(filter, topic []string) bool {
	if len(filter) > 0 && filter[0] == "#" {
		return true
	}
	if len(filter) == 0 || len(topic) == 0 {
		return len(filter) == len(topic)
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && matchesLevels(filter[1:], topic[1:])
}

func matchesTopic(filter, topic []string) bool {
	if strings.HasPrefix(topic[0], "$") && (filter[0] == "+" || filter[0] == "#") {
		return false
	}
	return matchesLevels(filter, topic)
}

// everyTopic is every topic of one to four levels; no filter names "other".
var everyTopic = func() (all [][]string) {
	levels := []string{"a", "n", "x", "b-2", "m.1", "cert-1", "cert-n", "other"}
	row := [][]string{{"$d"}, {"$SYS"}}
	for _, level := range levels {
		row = append(row, []string{level})
	}
	for range 4 {
		all = append(all, row...)
		var next [][]string
		for _, head := range row {
			for _, level := range levels {
				next = append(next, append(slices.Clone(head), level))
			}
		}
		row = next
	}
	return all
}()

func coversAll(filter, asked []string) bool {
	for _, topic := range everyTopic {
		if matchesTopic(asked, topic) && !matchesTopic(filter, topic) {
			return false
		}
	}
	return true
}

func judge(laws []law, c citizen, action, topic string) bool {
	if rest, ok := strings.CutPrefix(topic, "$share/"); ok && action == "subscribe" {
		_, topic, _ = strings.Cut(rest, "/")
	}
	if action == "publish" && (topic == "$SYS" || strings.HasPrefix(topic, "$SYS/")) {
		return false
	}
	for _, l := range laws {
		role, isRole := strings.CutPrefix(l.who, "@")
		meant := l.who == "*" || l.who == c.name || isRole && slices.Contains(c.roles, role)
		if !meant || !slices.Contains(l.actions, action) {
			continue
		}
		for _, filter := range l.topics {
			filter := strings.Split(strings.ReplaceAll(filter, "{id}", c.name), "/")
			asked := strings.Split(topic, "/")
			if action == "publish" && matchesTopic(filter, asked) || action == "subscribe" && coversAll(filter, asked) {
				return l.allow
			}
		}
	}
	return false
}

func pick(r *rand.Rand, list ...string) string { return list[r.IntN(len(list))] }

func randomFilter(r *rand.Rand, first, levels []string) string {
	parts := []string{pick(r, first...)}
	for parts[len(parts)-1] != "#" && len(parts) < 3 && r.IntN(3) > 0 {
		parts = append(parts, pick(r, levels...))
	}
	if i := slices.Index(parts, "#"); i >= 0 {
		parts = parts[:i+1]
	}
	return strings.Join(parts, "/")
}

func randomLaws(r *rand.Rand) []law {
	var laws []law
	for range 4 + r.IntN(8) {
		l := law{allow: r.IntN(3) > 0, who: pick(r, "*", "@r", "@s", "a", "n", "cert-1", "nobody")}
		l.actions = [][]string{{"publish"}, {"subscribe"}, {"publish", "subscribe"}}[r.IntN(3)]
		for range 1 + r.IntN(2) {
			l.topics = append(l.topics, randomFilter(r, []string{"a", "n", "x", "{id}", "+", "$d", "$SYS", "#"}, []string{"a", "n", "{id}", "+", "#", "+"}))
		}
		laws = append(laws, l)
	}
	return laws
}

// A country is laws in force, for citizens who can prove who they are.
type country struct {
	dir     string
	port    int
	laws    []law
	config  *config.Config
	secrets map[string]access.Secret
}

// found writes the laws as a configuration.
func found(t *testing.T, laws []law) country {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pki.Init(filepath.Join(dir, "pki"), nil); err != nil {
		t.Fatal(err)
	}
	users, err := access.OpenUsers(filepath.Join(dir, "data", "users"), nil)
	if err != nil {
		t.Fatal(err)
	}
	land := country{dir: dir, port: freePort(t), laws: laws, secrets: map[string]access.Secret{}}
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
gateway: {id: country, data: data}
admin: {address: ""}
broker:
  listeners:
    - {address: "127.0.0.1:%d", certificate: pki/broker.crt, key: pki/broker.key, client_ca: pki/ca.crt, client_crl: pki/ca.crl}
access:
  certificates:
    - {match: "cert-*", roles: [s]}
    - {match: "*-n", roles: [r]}
  rules:
`, land.port)
	for _, l := range laws {
		fmt.Fprintf(&b, "    - {%s: [%s], who: %q, topics: [\"%s\"]}\n", map[bool]string{true: "allow", false: "deny"}[l.allow],
			strings.Join(l.actions, ", "), l.who, strings.Join(l.topics, `", "`))
	}
	for _, c := range citizens {
		if c.cert {
			_, _, err = pki.Issue(filepath.Join(dir, "pki"), c.name, pki.ForClient, pki.Options{})
		} else {
			land.secrets[c.name], err = users.AddGenerated(c.name, c.roles)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "headgate.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if land.config, err = config.Load(file); err != nil {
		t.Fatal(err)
	}
	return land
}

func (land country) login(t *testing.T, c citizen) *client.Client {
	t.Helper()
	o := client.Options{Address: fmt.Sprintf("127.0.0.1:%d", land.port), ClientID: c.name, CleanStart: true}
	files := pki.ClientFiles{CA: filepath.Join(land.dir, "pki", "ca.crt")}
	if c.cert {
		files.Certificate, files.Key = filepath.Join(land.dir, "pki", c.name+".crt"), filepath.Join(land.dir, "pki", c.name+".key")
	} else {
		o.Username, o.Password = c.name, land.secrets[c.name]
	}
	var err error
	if o.TLS, err = pki.Client(files)("localhost"); err != nil {
		t.Fatal(err)
	}
	return dial(t, o)
}

// compare asks all three about one triple.
func (land country) compare(t *testing.T, c citizen, cl *client.Client, action access.Action, topic string) (allowed bool) {
	t.Helper()
	want := judge(land.laws, c, action.String(), topic)
	e, err := gateway.ExplainAccess(land.config, c.name, c.cert, action, topic)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer(t, cl, action, topic); got != want || e.Allowed != want {
		t.Errorf("%s %v %s: the oracle says %v, the broker %v, explain %+v, with %+v", c.name, action, topic, want, got, e, land.laws)
	}
	return want
}

// What headgate access explain says, what the broker answers to real packets and
// what the oracle holds is the same.
func TestExplainAgreesWithTheBroker(t *testing.T) {
	countries, each := 2, 25 // of 6 citizens and 2 actions
	if os.Getenv("PROVE") != "" {
		countries, each = 20, 42
	}
	triples, allowed := 0, 0
	for i := range countries {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		land := found(t, randomLaws(r))
		g := startGateway(t, filepath.Join(land.dir, "headgate.yaml"))
		for _, c := range citizens {
			cl := land.login(t, c)
			names, filters := []string{"a", "n", "x", c.name, "other"}, []string{"a", "n", c.name, "+", "#", "other"}
			for range each {
				triples += 2
				if land.compare(t, c, cl, access.Publish, randomFilter(r, append(names, "$d", "$SYS"), names)) {
					allowed++
				}
				first := append(filters, "x", "$d", "$SYS", "+", "$share/g/a", "$share/g/+", "$share/g/$d")
				if land.compare(t, c, cl, access.Subscribe, randomFilter(r, first, filters)) {
					allowed++
				}
			}
			cl.Disconnect()
		}
		g.kill()
	}
	t.Logf("%d triples, %d allowed", triples, allowed)
	if allowed < triples/10 || allowed > triples*9/10 {
		t.Error("nearly all answers are the same: the comparison says little")
	}
}

// answer asks the broker with a real packet.
func answer(t *testing.T, cl *client.Client, action access.Action, topic string) bool {
	t.Helper()
	if action == access.Subscribe {
		codes, err := cl.Subscribe(t.Context(), mqtt.Subscription{Filter: topic})
		if err != nil || codes[0] > 2 && codes[0] != mqtt.UnspecifiedError {
			t.Fatalf("subscribe %s: %v %v", topic, codes, err)
		}
		return codes[0] < 0x80
	}
	err := cl.Publish(t.Context(), client.Message{Topic: topic, QoS: 1})
	if refused := new(client.RefusedError); err != nil && (!errors.As(err, &refused) || refused.Code != mqtt.NotAuthorized) {
		t.Fatalf("publish to %s: %v", topic, err)
	}
	return err == nil
}
