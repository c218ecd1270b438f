package gateway_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// commandRoutes are for a site: commands come in under names of its own, and no
// rule lets it have those for others.
const commandRoutes = `    receive:
      - {topics: ["sites/{gateway}/cmd/#", "sites/{gateway}/other/#"], qos: 1, strip: "sites/{gateway}/", prefix: "plant/"}
`

const commandRule = `{allow: publish, who: "link:cloud", topics: ["plant/cmd/#"]}`

func commandSite(t *testing.T, cloud *cloud) (*site, <-chan string) {
	t.Helper()
	s := newSite(t, cloud, commandRoutes)
	s.edit(t, localRule, "- "+commandRule+"\n    "+localRule, `["plant/#", "hg/#"], qos: 1,`, `["plant/#", "hg/#"], qos: 1, strip: "plant/", except: ["plant/cmd/#", "plant/other/#"],`)
	states := make(chan string, 100)
	cloud.watch(t, func(m *client.Message) {
		if strings.HasSuffix(m.Topic, "/state") {
			states <- string(m.Payload)
		}
	})
	return s, states
}

func waitOnline(t *testing.T, states <-chan string) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case state := <-states:
			if strings.Contains(state, "online") {
				return
			}
		case <-deadline:
			t.Fatal("the link did not come up")
		}
	}
}

// mosquitto runs one of its clients to its end.
func mosquitto(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("mosquitto_"+name, append([]string{"-V", "mqttv5", "-q", "1"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mosquitto_%s: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A request from a mosquitto client in the cloud is answered by one at the site:
// the response topic is translated on the way in, the answer on the way out, and
// the correlation data stays.
func TestRequestAndAnswer(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	s, states := commandSite(t, cloud)
	startGateway(t, s.config)
	local := []string{"-h", "127.0.0.1", "-p", fmt.Sprint(s.plain)}
	responder := append(local, "-i", "responder", "-c", "-x", "3600", "-t", "plant/cmd/#")
	mosquitto(t, "sub", append(responder, "-E")...) // its session waits
	waitOnline(t, states)

	far := []string{"-h", "localhost", "-p", fmt.Sprint(cloud.port), "--cafile", filepath.Join(cloud.dir, "ca.crt"),
		"--cert", filepath.Join(cloud.dir, "watcher.crt"), "--key", filepath.Join(cloud.dir, "watcher.key")}
	answer := make(chan string, 1)
	go func() { // ends with its patience
		out, err := exec.Command("mosquitto_rr", append(far, "-V", "mqttv5", "-q", "1", "-i", "asks", "-W", "30", "-t", "sites/site-1/cmd/start", "-m", "now?",
			"-e", "sites/site-1/answers/asks", "-D", "publish", "correlation-data", "c-17", "-F", "%t|%D|%p")...).CombinedOutput()
		answer <- fmt.Sprint(strings.TrimSpace(string(out)), err)
	}()
	request := mosquitto(t, "sub", append(responder, "-C", "1", "-W", "30", "-F", "%t|%R|%D|%p")...)
	if request != "plant/cmd/start|plant/answers/asks|c-17|now?" {
		t.Fatalf("the request came as %q", request)
	}
	parts := strings.Split(request, "|")
	mosquitto(t, "pub", append(local, "-t", parts[1], "-m", "yes", "-D", "publish", "correlation-data", parts[2])...)
	if got := <-answer; got != "sites/site-1/answers/asks|c-17|yes<nil>" {
		t.Errorf("the answer came as %q", got)
	}
}

// Rules are asked when a command comes in and when something is to leave, and
// again when what has waited is to leave.
func TestRulesOfALink(t *testing.T) {
	cloud := newCloud(t, "")
	broker := cloud.start(t)
	s, states := commandSite(t, cloud)
	g := startGateway(t, s.config)
	waitOnline(t, states)
	here := s.listen(t, client.Options{ClientID: "here", CleanStart: true}, "plant/#")
	got := make(chan string, 100)
	far := cloud.watchAs(t, "far", func(m *client.Message) {
		if strings.Contains(m.Topic, "/t/") || strings.Contains(m.Topic, "/private/") {
			got <- m.Topic
		}
	})
	for _, topic := range []string{"sites/site-1/other/x", "sites/site-1/cmd/x"} {
		if err := far.Publish(t.Context(), client.Message{Topic: topic, Payload: []byte("1"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	here.expect(t, "the site", "plant/cmd/x") // and not plant/other/x before it

	here.publish(t, false, "plant/private/x", "plant/t/1")
	if topic := <-got; topic != "sites/site-1/t/1" {
		t.Errorf("%s left", topic)
	}

	broker.stop(t, 10*time.Second)
	here.publish(t, false, "plant/t/2")
	s.edit(t, commandRule, `{deny: subscribe, who: "link:cloud", topics: ["plant/t/2"]}`)
	if out, code := s.run(t, g, "reload"); code != 0 {
		t.Fatalf("reload: %d\n%s", code, out)
	}
	here.publish(t, false, "plant/t/3")
	cloud.start(t)
	cloud.watchAs(t, "later", func(m *client.Message) {
		if strings.Contains(m.Topic, "/t/") {
			got <- m.Topic
		}
	})
	if topic := <-got; topic != "sites/site-1/t/3" {
		t.Errorf("%s left, though no rule allows it any more", topic)
	}
}

// What the cloud has retained comes in though there is no room to retain it, and
// does not hold up what is behind it.
func TestCommandsPassFullRetained(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	s, states := commandSite(t, cloud)
	s.edit(t, `prefix: "plant/"}`, `prefix: "plant/", retain: keep}`, "access:\n", "  limits: {retained: 4}\naccess:\n")
	startGateway(t, s.config)
	waitOnline(t, states)
	here := s.listen(t, client.Options{ClientID: "here", CleanStart: true}, "plant/cmd/#")
	far := cloud.watchAs(t, "far", func(*client.Message) {})
	for _, name := range []string{"1", "2", "3", "4"} {
		if err := far.Publish(t.Context(), client.Message{Topic: "sites/site-1/cmd/" + name, Payload: []byte("1"), QoS: 1, Retain: true}); err != nil {
			t.Fatal(err)
		}
	}
	here.expect(t, "the site", "plant/cmd/1", "plant/cmd/2", "plant/cmd/3", "plant/cmd/4")
}
