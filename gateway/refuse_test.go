package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
)

// tls returns a client's configuration for the site's listener; name "" is a
// client without a certificate.
func (s *site) tls(t testing.TB, dir, name string) *tls.Config {
	t.Helper()
	files := pki.ClientFiles{CA: filepath.Join(s.dir, "pki", "ca.crt")}
	if name != "" {
		files.Certificate, files.Key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	}
	cfg, err := pki.Client(files)("localhost")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (s *site) status(t testing.TB, g *process) admin.Status {
	t.Helper()
	var dir string
	for _, e := range g.Env {
		if v, ok := strings.CutPrefix(e, "RUNTIME_DIRECTORY="); ok {
			dir = v
		}
	}
	st, err := admin.GetStatus(t.Context(), filepath.Join(dir, "headgate.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Who does not prove who it is does not come in: refused, once in the log, and
// counted.
func TestLoginsRefused(t *testing.T) {
	cloud := newCloud(t, "")
	s := newSite(t, cloud, "")
	g := startGateway(t, s.config)
	foreign := s.tls(t, "", "")
	pair, err := tls.LoadX509KeyPair(filepath.Join(cloud.dir, "gw.crt"), filepath.Join(cloud.dir, "gw.key"))
	if err != nil {
		t.Fatal(err)
	}
	foreign.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	for _, tc := range []struct {
		name    string
		options client.Options
	}{
		{"certificate of another CA", client.Options{TLS: foreign}},
		{"no credentials", client.Options{TLS: s.tls(t, "", "")}},
		{"unknown user", client.Options{TLS: s.tls(t, "", ""), Username: "mallory", Password: []byte(password)}},
		{"wrong password", client.Options{TLS: s.tls(t, "", ""), Username: "press-1", Password: []byte("correct horse")}},
	} {
		before := strings.Count(g.log(t), "remote=")
		tc.options.Address, tc.options.Version, tc.options.CleanStart = fmt.Sprintf("127.0.0.1:%d", s.port), mqtt.V5, true
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if cl, err := client.Dial(ctx, tc.options); err == nil {
			cl.Disconnect()
			t.Errorf("%s: let in", tc.name)
		}
		cancel()
		waitFor(t, func() bool { return strings.Count(g.log(t), "remote=") > before })
		if n := strings.Count(g.log(t), "remote=") - before; n != 1 {
			t.Errorf("%s: %d lines in the log, want one", tc.name, n)
		}
	}
	if n := strings.Count(g.log(t), "refused"); n != 4 {
		t.Errorf("%d refusals in the log, want 4:\n%s", n, g.log(t))
	}
	if got := s.status(t, g).Clients.LoginFailures; got != 4 {
		t.Errorf("%d login failures counted, want 4", got)
	}
}

// What no rule allows is refused and counted, and what the cloud may not have
// it never hears of.
func TestTopicsRefused(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	topics := make(chan string, 100)
	cloud.watch(t, func(m *client.Message) { topics <- m.Topic })
	s := newSite(t, cloud, "")
	g := startGateway(t, s.config)
	press := dial(t, client.Options{
		Address: fmt.Sprintf("127.0.0.1:%d", s.port), TLS: s.tls(t, filepath.Join(s.dir, "pki"), "press-1"), ClientID: "press-1", CleanStart: true,
	})
	for _, topic := range []string{"plant/other/x", "elsewhere", "$SYS/x"} {
		if err := press.Publish(t.Context(), client.Message{Topic: topic, Payload: []byte("no"), QoS: 1}); err == nil {
			t.Errorf("publish to %s was acknowledged", topic)
		}
		if n := strings.Count(g.log(t), "topic="+topic); n != 1 {
			t.Errorf("%s is %d times in the log, want once", topic, n)
		}
	}
	for _, topic := range []string{"plant/private/x", "plant/press-1/last"} { // press-1 may, the cloud may have only the second
		if err := press.Publish(t.Context(), client.Message{Topic: topic, Payload: []byte("yes"), QoS: 1}); err != nil {
			t.Errorf("publish to %s: %v", topic, err)
		}
	}
	for {
		select {
		case topic := <-topics:
			if topic == "sites/site-1/plant/press-1/last" { // the last one: order is kept
				if got := s.status(t, g).Clients.Denied; got != 3 {
					t.Errorf("%d denials counted, want 3", got)
				}
				return
			}
			if !strings.HasPrefix(topic, "sites/site-1/hg/site-1/") {
				t.Errorf("the cloud has %s", topic)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("what is allowed did not arrive in 20 s")
		}
	}
}

// A cloud with another CA, and a cloud that does not know our certificate, get
// nothing; what waits for them waits.
func TestWrongCloud(t *testing.T) {
	right, wrong := newCloud(t, ""), newCloud(t, "")
	wrong.start(t)
	wrong.port, right.port = right.port, wrong.port // the configuration names right's files and wrong's port
	s := newSite(t, right, "")
	g := startGateway(t, s.config)
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "x", CleanStart: true})
	if err := cl.Publish(t.Context(), client.Message{Topic: "plant/a", Payload: []byte("1"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.status(t, g).Links[0].Error != "" })
	link := s.status(t, g).Links[0]
	if link.Connected || link.Delivered > 0 || link.Waiting == 0 {
		t.Errorf("link %+v", link)
	}
	if !strings.Contains(link.Error, "certificate") {
		t.Errorf("the error does not name the certificate: %s", link.Error)
	}
}

// SIGTERM under load ends within 5 s, with exit code 0, and what was
// acknowledged arrives after the next start.
func TestSigtermUnderLoad(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	rec := newRecord()
	cloud.watch(t, rec.take)
	s := newSite(t, cloud, "")
	g := startGateway(t, s.config)
	ctx, cancel := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for i := range 4 {
		publishers.Go(func() {
			publish(ctx, fmt.Sprintf("127.0.0.1:%d", s.plain), fmt.Sprintf("press-%d", i), 1250, rec)
		})
	}
	waitFor(t, func() bool { n, _, _ := rec.counts(); return n > 2000 })
	if code := g.stop(t, 5*time.Second); code != 0 {
		t.Errorf("exit code %d:\n%s", code, g.log(t))
	}
	cancel()
	publishers.Wait()
	startGateway(t, s.config)
	drained(t, rec, 30*time.Second)
	for _, f := range rec.faults {
		t.Error(f)
	}
}

// waitFor asks until it is so, for 20 s at most.
func waitFor(t testing.TB, so func() bool) {
	t.Helper()
	waitWithin(t, 20*time.Second, so)
}

func waitWithin(t testing.TB, patience time.Duration, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not become so within %v", patience)
		}
		<-tick.C
	}
}

// Who is removed or revoked is cut off while connected, and only they.
func TestWhoMustGoIsCut(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	dir := filepath.Join(s.dir, "pki")
	if _, _, err := pki.Issue(dir, "press-2", pki.ForClient, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	startGateway(t, s.config)
	connect := func(certificate, user string) *client.Client {
		o := client.Options{
			Address: fmt.Sprintf("127.0.0.1:%d", s.port), TLS: s.tls(t, dir, certificate), ClientID: certificate + user, CleanStart: true,
		}
		if user != "" {
			o.Username, o.Password = user, []byte(password)
		}
		return dial(t, o)
	}
	stays := connect("press-2", "")
	for _, tc := range []struct {
		certificate, user string
		verb              []string
	}{
		{"press-1", "", []string{"cert", "revoke", "--identity", "press-1"}},
		{"", "press-1", []string{"user", "rm", "press-1"}},
	} {
		goes := connect(tc.certificate, tc.user)
		out, err := exec.Command(headgate(t), append(tc.verb, "--config", s.config)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", tc.verb, err, out)
		}
		began := time.Now()
		select {
		case <-goes.Done():
			if !strings.Contains(fmt.Sprint(goes.Err()), "administrative action") {
				t.Errorf("%v: the client is told %v", tc.verb, goes.Err())
			}
			t.Logf("%v: cut after %v", tc.verb, time.Since(began))
		case <-time.After(5 * time.Second):
			t.Errorf("%v: still connected after 5 s", tc.verb)
		}
	}
	if err := stays.Publish(t.Context(), client.Message{Topic: "plant/press-2/x", Payload: []byte("1"), QoS: 1}); err != nil {
		t.Errorf("somebody else was cut: %v", err)
	}
}

// A topic that no store can hold is refused, and the gateway starts again.
func TestTopicThatIsTooLong(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	g := startGateway(t, s.config)
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "x", CleanStart: true})
	long := client.Message{Topic: "plant/" + strings.Repeat("x", 40_000), Payload: []byte("1"), QoS: 1, Retain: true}
	if err := cl.Publish(t.Context(), long); err == nil {
		t.Error("it was acknowledged")
	}
	if code := g.stop(t, 5*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	startGateway(t, s.config)
}
