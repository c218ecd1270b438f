package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// metrics asks a running gateway for its metrics over the unix socket.
func (s *site) metrics(t testing.TB, g *process) string {
	t.Helper()
	var socket string
	for _, e := range g.Env {
		if dir, ok := strings.CutPrefix(e, "RUNTIME_DIRECTORY="); ok {
			socket = filepath.Join(dir, "headgate.sock")
		}
	}
	cl := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	resp, err := cl.Get("http://gateway/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("metrics: %s %v", resp.Status, err)
	}
	return string(text)
}

// plant sends secrets to the gateway in every way there is, and returns them.
func (s *site) plant(t testing.TB) map[string]string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(s.dir, "pki", "broker.key"))
	if err != nil {
		t.Fatal(err)
	}
	canaries := map[string]string{
		"a password that is right": password,
		"a private key":            strings.Split(string(key), "\n")[1],
		"a second CONNECT":         "canary second",
		"a payload":                "canary payload",
		"a property":               "canary property",
	}
	attempt := func(what string, o client.Options) {
		canaries[what] = "canary " + what
		if o.Username == "" {
			o.Username = canaries[what]
		}
		o.Address, o.TLS, o.CleanStart = fmt.Sprintf("127.0.0.1:%d", s.port), s.tls(t, "", ""), true
		o.Password = mqtt.Secret(canaries[what])
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if cl, err := client.Dial(ctx, o); err == nil {
			cl.Disconnect()
			t.Errorf("%s: let in", what)
		}
	}
	attempt("a wrong password", client.Options{Username: "press-1"})
	attempt("a password in the place of the user", client.Options{})
	s.connectTwice(t, canaries["a second CONNECT"])
	press := s.listen(t, client.Options{TLS: s.tls(t, "", ""), ClientID: "p", CleanStart: true, Username: "press-1", Password: []byte(password)})
	for _, topic := range []string{"plant/press-1/a", "elsewhere"} { // one is denied
		_ = press.Publish(t.Context(), client.Message{
			Topic: topic, Payload: []byte(canaries["a payload"]), QoS: 1,
			Properties: mqtt.Properties{UserProperties: []mqtt.UserProperty{{Key: "k", Value: canaries["a property"]}}},
		})
	}
	return canaries
}

// What must stay secret is in nothing that the gateway says: log, status,
// metrics, answers, environment and command line.
func TestSecretsAreNowhere(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	g := startGateway(t, s.config)
	canaries := s.plant(t)
	said := map[string]string{"metrics": s.metrics(t, g)}
	for _, verb := range []string{"status", "status --json", "status --clients", "status --clients --json", "reload --json", "user list --json", "check --show"} {
		out, code := s.run(t, g, strings.Fields(verb)...)
		if code != 0 {
			t.Errorf("%s: exit code %d\n%s", verb, code, out)
		}
		said[verb] = out
	}
	proc := fmt.Sprintf("/proc/%d/", g.Process.Pid)
	for _, file := range []string{proc + "cmdline", proc + "environ", filepath.Join(s.dir, "data", "users")} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		said[file] = string(text)
	}
	said["log"] = g.log(t)
	for where, text := range said {
		for what, canary := range canaries {
			if strings.Contains(text, canary[:10]) {
				t.Errorf("%s is in %s:\n%s", what, where, text)
			}
		}
	}
	if n := strings.Count(said["log"], "event=login_failed"); n != 2 {
		t.Errorf("%d failed logins told, want 2:\n%s", n, said["log"])
	}
	for _, want := range []string{
		`headgate_logins_total{result="bad_credentials"} 2`, `headgate_client_received_messages_total{client="p",identity="press-1"} 2`,
		"headgate_publish_ack_seconds_count 1\n", `headgate_password_checks_total{by="hash"}`, "headgate_open_fds ", `mqtt="5"} 1`,
	} {
		if !strings.Contains(said["metrics"], want) {
			t.Errorf("no %s in\n%s", want, said["metrics"])
		}
	}
	if !strings.Contains(said["status --clients"], "press-1") {
		t.Errorf("clients:\n%s", said["status --clients"])
	}
}

// connectTwice sends a second CONNECT on one connection, which is a violation.
func (s *site) connectTwice(t testing.TB, password string) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.plain))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	first := &mqtt.Connect{Version: mqtt.V5, ClientID: "twice", CleanStart: true, ReceiveMaximum: 10}
	second := *first
	second.UsernameFlag, second.Username, second.PasswordFlag, second.Password = true, "press-1", true, mqtt.Secret(password)
	var wire []byte
	for _, p := range []mqtt.Packet{first, &second} {
		if wire, err = mqtt.Append(wire, mqtt.V5, p); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection is not closed: %v", err)
	}
}
