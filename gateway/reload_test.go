package gateway_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
)

// edit replaces text in the site's configuration.
func (s *site) edit(t testing.TB, pairs ...string) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(pairs...).Replace(string(text))
	if changed == string(text) {
		t.Fatalf("%q is not in the configuration", pairs)
	}
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run calls a verb for a running gateway and returns what it said and its exit
// code.
func (s *site) run(t testing.TB, g *process, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(headgate(t), append(args, "--config", s.config)...)
	cmd.Env = g.Env
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// A listening client hands over what it gets.
type listening struct {
	*client.Client
	topics chan string
}

func (s *site) listen(t testing.TB, o client.Options, filters ...string) *listening {
	t.Helper()
	l := &listening{topics: make(chan string, 100)}
	o.OnMessage = func(m *client.Message) error { l.topics <- m.Topic; return nil }
	if o.TLS != nil {
		o.Address = fmt.Sprintf("127.0.0.1:%d", s.port)
	} else {
		o.Address = fmt.Sprintf("127.0.0.1:%d", s.plain)
	}
	l.Client = dial(t, o, filters...)
	return l
}

// expect wants exactly these topics, in this order.
func (l *listening) expect(t testing.TB, who string, topics ...string) {
	t.Helper()
	for _, want := range topics {
		select {
		case got := <-l.topics:
			if got != want {
				t.Errorf("%s got %s, want %s", who, got, want)
			}
		case <-l.Done():
			t.Fatalf("%s was cut: %v", who, l.Err())
		case <-time.After(10 * time.Second):
			t.Fatalf("%s did not get %s", who, want)
		}
	}
}

func (l *listening) publish(t testing.TB, retain bool, topics ...string) {
	t.Helper()
	for _, topic := range topics {
		if err := l.Publish(t.Context(), client.Message{Topic: topic, Payload: []byte("1"), QoS: 1, Retain: retain}); err != nil {
			t.Fatalf("publish %s: %v", topic, err)
		}
	}
}

const localRule = `- {allow: [publish, subscribe], who: "local"`

// New rules hold, without anybody being cut who keeps roles, for live, queued,
// shared and retained messages, for wills, and for what an author left behind.
func TestReload(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	s.edit(t, localRule, `- {allow: [publish, subscribe], who: operator, topics: ["plant/#"]}`+"\n    "+localRule)
	g := startGateway(t, s.config)
	will := &mqtt.Will{Topic: "plant/hr/will", Payload: []byte("1"), QoS: 1}
	operator := func(id string, filters ...string) *listening {
		return s.listen(t, client.Options{
			TLS: s.tls(t, filepath.Join(s.dir, "pki"), "operator"), ClientID: id, SessionExpiry: 3600, Will: will,
		}, filters...)
	}
	live, shared, away := operator("live", "plant/#"), operator("shared", "$share/g/plant/#"), operator("away", "plant/#")
	away.Disconnect()
	if _, _, err := pki.Issue(filepath.Join(s.dir, "pki"), "press-2", pki.ForClient, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	press := s.listen(t, client.Options{TLS: s.tls(t, filepath.Join(s.dir, "pki"), "press-2"), ClientID: "p", CleanStart: true})
	press.publish(t, true, "plant/private/left")
	local := s.listen(t, client.Options{ClientID: "l", CleanStart: true})
	local.publish(t, true, "plant/hr/kept")
	local.publish(t, false, "plant/hr/queued")
	live.expect(t, "live", "plant/private/left", "plant/hr/kept", "plant/hr/queued")
	shared.expect(t, "shared", "plant/private/left", "plant/hr/kept", "plant/hr/queued")

	s.edit(t, `- {allow: [publish, subscribe], who: operator`, `- {deny: [publish, subscribe], who: operator, topics: ["plant/hr/#"]}
    - {allow: [publish, subscribe], who: operator`, "roles: [sensor]", "roles: [retired]", "id: site-1, data", "id: site-1, plugins: /nowhere, data")
	out, code := s.run(t, g, "reload")
	if code != 0 || !strings.Contains(out, "in force now:\n  ~ access.certificates") || !strings.Contains(out, "+ access.rules: {deny: [publish, subscribe]") ||
		!strings.Contains(out, "restart the gateway for them:\n  ~ gateway.plugins: /usr/lib/headgate/plugins → /nowhere") {
		t.Errorf("reload: exit code %d\n%s", code, out)
	}

	will = nil // it would be refused now
	local.publish(t, false, "plant/hr/after", "plant/ok")
	live.expect(t, "live", "plant/ok")
	shared.expect(t, "shared", "plant/ok")
	operator("away").expect(t, "away", "plant/private/left", "plant/ok") // its author was in order when it was queued
	operator("new", "plant/#")                                           // retained: neither plant/hr/kept nor plant/private/left
	fresh := s.listen(t, client.Options{ClientID: "f", CleanStart: true}, "plant/#")
	fresh.expect(t, "fresh", "plant/hr/kept")
	operator("live") // takes over, and the first one's will is for a topic that it may not publish to any more
	local.publish(t, false, "plant/end")
	fresh.expect(t, "fresh", "plant/end")
	select {
	case <-press.Done():
	case <-time.After(5 * time.Second):
		t.Error("a client that lost a role is still connected")
	}
}

// A configuration with a problem changes nothing, and is answered as by check.
func TestReloadRefused(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	g := startGateway(t, s.config)
	local := s.listen(t, client.Options{ClientID: "l", CleanStart: true}, "plant/#")
	for name, pair := range map[string][2]string{
		"a key that is unknown":       {"admin:", "admit:"},
		"a certificate that is gone":  {"pki/broker.crt", "pki/nothing.crt"},
		"the id of another gateway":   {"id: site-1", "id: site-2"},
		"a rule that means nobody":    {`who: "link:cloud"`, `who: "link:clod"`},
		"an address that is no loop":  {"127.0.0.1:%d", "0.0.0.0:%d"},
		"rules that cannot be parsed": {"  rules:\n", "  rules: [\n"},
	} {
		t.Run(name, func(t *testing.T) {
			whole, err := os.ReadFile(s.config)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(s.config, whole, 0o600)
			plain := "%d"
			if strings.Contains(pair[0], plain) {
				pair[0], pair[1] = fmt.Sprintf(pair[0], s.plain), fmt.Sprintf(pair[1], s.plain)
			}
			s.edit(t, pair[0], pair[1], localRule, `- {deny: [publish, subscribe], who: "*"`) // must not be in force
			out, code := s.run(t, g, "reload")
			if code != 78 {
				t.Errorf("exit code %d, want 78:\n%s", code, out)
			}
			if said, code := s.run(t, g, "check"); code == 78 && said != out {
				t.Errorf("reload says\n%s\ncheck says\n%s", out, said)
			}
			local.publish(t, false, "plant/still")
			local.expect(t, "local", "plant/still")
		})
	}
	s.edit(t, "admin:", "admit:", "rules:", "rulez:")
	g.Process.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(g.log(t), "and more: run headgate check") })
	for line := range strings.Lines(g.log(t)) {
		if strings.Contains(line, "configuration refused") && (len(line) > 500 || strings.Contains(line, `\n`)) {
			t.Errorf("a line for nobody to read: %s", line)
		}
	}
}

// Without a file descriptor left, a reload keeps what was in force; the next
// one takes over, and a user removed meanwhile is cut.
func TestReloadWithoutFileDescriptors(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	g := startGateway(t, s.config, "prlimit", "--nofile=64:64")
	local := s.listen(t, client.Options{ClientID: "l", CleanStart: true}, "plant/#")
	press := s.listen(t, client.Options{TLS: s.tls(t, "", ""), ClientID: "p", CleanStart: true, Username: "press-1", Password: []byte(password)})
	var crowd []*client.Client
	for full := false; !full; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		cl, err := client.Dial(ctx, client.Options{
			Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: fmt.Sprint("crowd-", len(crowd)), CleanStart: true, KeepAlive: 20 * time.Second,
		})
		cancel()
		if full = err != nil; !full {
			crowd = append(crowd, cl)
		}
	}
	s.edit(t, localRule, `- {deny: [publish, subscribe], who: "local"`)
	if err := os.Remove(filepath.Join(s.dir, "data", "users")); err != nil {
		t.Fatal(err)
	}
	g.Process.Signal(syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(g.log(t), "configuration refused") })
	if log := g.log(t); !strings.Contains(log, "too many open files") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	local.publish(t, false, "plant/still")
	local.expect(t, "local", "plant/still")
	for _, cl := range crowd {
		cl.Disconnect()
	}
	select {
	case <-press.Done():
	case <-time.After(5 * time.Second):
		t.Error("a user who was removed is still connected")
	}
	waitFor(t, func() bool {
		g.Process.Signal(syscall.SIGHUP)
		return strings.Contains(g.log(t), "configuration reloaded")
	})
	if err := local.Publish(t.Context(), client.Message{Topic: "plant/no", QoS: 1}); err == nil {
		t.Error("a rule that was taken away still lets publish")
	}
}
