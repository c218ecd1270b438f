package gateway_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/client"
)

// links gives a site another name and other links: each is a name, and what is
// written of it beside the certificates. They may publish and see plant/#.
func (s *site) links(t *testing.T, id string, cloud *cloud, links map[string]string) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text[:strings.Index(string(text), "northbound:")]), "site-1", id, 1)
	changed = strings.Replace(changed, "  rules:\n", "  rules:\n    - {allow: [publish, subscribe], who: \"*\", topics: [\"plant/#\"]}\n", 1) + "northbound:\n"
	changed = strings.ReplaceAll(changed, "link:cloud", "*")
	for name, more := range links {
		changed += fmt.Sprintf("  - name: %s\n    ca: %s/ca.crt\n    certificate: %[2]s/gw.crt\n    key: %[2]s/gw.key\n    client_id: %[3]s-%[1]s\n%[4]s", name, cloud.dir, id, more)
	}
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tally counts what a watcher of a cloud sees, by topic.
type tally chan string

func (c tally) take(m *client.Message) { c <- m.Topic }

// Two gateways send to each other over one cloud, and the second by a link of
// its own, so that nothing but the hg-ids shows that a message has been here.
func TestTwoGatewaysInACircle(t *testing.T) {
	for name, more := range map[string]string{"MQTT 5": "", "3.1.1 in envelopes": "    protocol: 3.1.1\n    envelope: json\n"} {
		t.Run(name, func(t *testing.T) {
			cloud := newCloud(t, "")
			cloud.start(t)
			more := fmt.Sprintf("    servers: [\"mqtts://localhost:%d\"]\n%s", cloud.port, more)
			a, b := newSite(t, cloud, ""), newSite(t, cloud, "")
			a.links(t, "a", cloud, map[string]string{
				"cloud": more + "    send: [{topics: [\"plant/#\"], prefix: \"a/\"}, {topics: [\"hg/#\"], prefix: \"first/\"}]\n    receive: [{topics: [\"b/#\"], strip: \"b/\"}]\n",
			})
			b.links(t, "b", cloud, map[string]string{
				"in":  more + "    send: [{topics: [\"hg/#\"], prefix: \"second/\"}]\n    receive: [{topics: [\"a/#\"], strip: \"a/\"}]\n",
				"out": more + "    send: [{topics: [\"plant/#\"], prefix: \"b/\"}]\n",
			})
			seen := make(tally, 10_000)
			cloud.watch(t, seen.take)
			startGateway(t, b.config)
			wantOneTurn(t, a, startGateway(t, a.config), seen)
		})
	}
}

// One gateway, two clouds, and a bridge of mosquitto between them that carries
// everything both ways: what went to the first comes back from the second.
func TestTwoCloudsInACircle(t *testing.T) {
	second := newCloud(t, "")
	second.start(t)
	first := newCloud(t, fmt.Sprintf(`connection bridge
address localhost:%d
bridge_protocol_version mqttv50
bridge_cafile %[2]s/ca.crt
bridge_certfile %[2]s/watcher.crt
bridge_keyfile %[2]s/watcher.key
topic # both 1`, second.port, second.dir))
	first.start(t)
	s := newSite(t, first, "")
	s.links(t, "a", first, map[string]string{
		"one": fmt.Sprintf("    servers: [\"mqtts://localhost:%d\"]\n    send: [{topics: [\"plant/#\"], prefix: \"a/\"}, {topics: [\"hg/#\"], prefix: \"first/\"}]\n", first.port),
	})
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "  - {name: two, client_id: a-two, ca: %s/ca.crt, certificate: %[1]s/gw.crt, key: %[1]s/gw.key, servers: [\"mqtts://localhost:%d\"], send: [{topics: [\"hg/#\"], prefix: \"second/\"}], receive: [{topics: [\"a/#\"], strip: \"a/\"}]}\n",
		second.dir, second.port)
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := make(tally, 10_000)
	second.watch(t, seen.take)
	wantOneTurn(t, s, startGateway(t, s.config), seen)
}

// wantOneTurn publishes at a, and wants each message to go round once: g, which
// is a's gateway, drops it when it is back, and a cloud sees it once on each topic.
func wantOneTurn(t *testing.T, a *site, g *process, seen tally) {
	t.Helper()
	const n = 50
	for up := map[string]bool{}; !up["first"] || !up["second"]; { // its links have subscribed
		name, state, _ := strings.Cut(<-seen, "/hg/")
		up[name] = up[name] || strings.HasSuffix(state, "/state")
	}
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", a.plain), CleanStart: true})
	acked := make(chan error, n)
	for i := range n {
		cl.PublishAsync(client.Message{Topic: fmt.Sprint("plant/", i), Payload: []byte("x"), QoS: 1}, func(err error) { acked <- err })
	}
	for range n {
		if err := <-acked; err != nil {
			t.Fatal(err)
		}
	}
	looped := func() (sum uint64) {
		for _, l := range a.status(t, g).Links {
			sum += l.Looped
		}
		return sum
	}
	waitFor(t, func() bool { return looped() == n })
	counts := map[string]int{}
	for len(seen) > 0 {
		if topic := <-seen; strings.Contains(topic, "plant/") {
			counts[topic]++
		}
	}
	for topic, c := range counts {
		if c != 1 {
			t.Errorf("%s was seen %d times", topic, c)
		}
	}
	if len(counts) < n || looped() != n {
		t.Errorf("%d topics seen, %d looped", len(counts), looped())
	}
}
