package gateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/pki"
)

// A site is a configuration folder with its own CA.
type site struct {
	dir         string
	port, plain int
	config      string
}

const password = "correct horse battery"

// newSite writes a configuration for one cloud; more is YAML for devices and
// buses. Client "press-1" (role sensor) has a password and a certificate.
func newSite(t testing.TB, c *cloud, more string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), port: freePort(t), plain: freePort(t)}
	if err := pki.Init(filepath.Join(s.dir, "pki"), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"press-1", "operator"} {
		if _, _, err := pki.Issue(filepath.Join(s.dir, "pki"), name, pki.ForClient, pki.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`version: 1
gateway: {id: site-1, data: data}
admin: {address: ""}
broker:
  listeners:
    - {address: "127.0.0.1:%d", certificate: pki/broker.crt, key: pki/broker.key, client_ca: pki/ca.crt, client_crl: pki/ca.crl, client_certificate: optional}
    - {address: "127.0.0.1:%d", plaintext: true, anonymous_as: local}
access:
  certificates:
    - {match: "press-*", roles: [sensor]}
  rules:
    - {deny: subscribe, who: "link:cloud", topics: ["plant/private/#"]}
    - {allow: publish, who: "@sensor", topics: ["plant/{id}/#", "plant/private/#"]}
    - {allow: [publish, subscribe], who: "local", topics: ["plant/#", "hg/#"]}
    - {allow: subscribe, who: "link:cloud", topics: ["plant/#", "hg/#"]}
northbound:
  - name: cloud
    servers: ["mqtts://localhost:%d"]
    ca: %[4]s/ca.crt
    certificate: %[4]s/gw.crt
    key: %[4]s/gw.key
    send:
      - {topics: ["plant/#", "hg/#"], qos: 1, prefix: "sites/{gateway}/"}
%s`, s.port, s.plain, c.port, c.dir, more)
	s.config = filepath.Join(s.dir, "headgate.yaml")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	users, err := access.OpenUsers(filepath.Join(s.dir, "data", "users"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := users.Add("press-1", access.Secret(password), []string{"sensor"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Registers of a pymodbus device arrive at mosquitto, where mosquitto_sub hears
// them as the device held them, with the time at which it did.
func TestReadingsReachTheCloud(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	port := freePort(t)
	device := start(t, nil, "/usr/bin/python3", "testdata/device.py", fmt.Sprint(port))
	waitListening(t, device, port)
	lines := cloud.mosquittoSub(t)
	s := newSite(t, cloud, fmt.Sprintf(`buses:
  line-3: {url: "tcp://127.0.0.1:%d"}
devices:
  - id: boiler
    adapter: modbus
    bus: line-3
    unit: 7
    groups: {fast: {interval: 200ms}}
    tags:
      temp: {group: fast, address: "holding:10", type: int16, scale: 0.1, unit: Cel, invalid: [0x8000]}
      raw: {group: fast, address: "input:42", type: uint16}
      volt: {group: fast, address: "holding:20", type: float32, unit: V}
      none: {group: fast, address: "holding:500", type: int16}
`, port))
	began := time.Now()
	startGateway(t, s.config)
	var got struct {
		TS  int64          `json:"ts"`
		Seq uint64         `json:"seq"`
		V   map[string]any `json:"v"`
		Q   map[string]string
	}
	deadline := time.After(15 * time.Second)
	for got.Seq < 2 {
		select {
		case line := <-lines:
			reading, ok := strings.CutPrefix(line, "sites/site-1/hg/site-1/boiler/fast ")
			if !ok {
				continue
			}
			properties, payload, _ := strings.Cut(reading, "|")
			if err := json.Unmarshal([]byte(payload), &got); err != nil {
				t.Fatalf("%s: %v", payload, err)
			}
			if !strings.HasPrefix(properties, "hg-id:site-1/") {
				t.Errorf("user properties are %q", properties)
			}
		case <-deadline:
			t.Fatal("no reading after 15 s")
		}
	}
	if got.V["temp"] != 71.3 || got.V["raw"] != 1042.0 || got.V["volt"] != 230.1 || got.V["none"] != nil {
		t.Errorf("values %v", got.V)
	}
	if got.Q["none"] != "bad.address" || len(got.Q) != 1 {
		t.Errorf("qualities %v, want only none: bad.address", got.Q)
	}
	if at := time.UnixMilli(got.TS); at.Before(began.Add(-time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("time %v is not when the device answered", at)
	}
}

// mosquittoSub subscribes at the cloud to everything and returns a line
// "topic properties|payload" for each message.
func (c *cloud) mosquittoSub(t *testing.T) <-chan string {
	t.Helper()
	cmd := exec.Command("mosquitto_sub", "-V", "mqttv5", "-q", "1", "-h", "localhost", "-p", strconv.Itoa(c.port), "-t", "#", "-F", "%t %P|%p",
		"--cafile", filepath.Join(c.dir, "ca.crt"), "--cert", filepath.Join(c.dir, "watcher.crt"), "--key", filepath.Join(c.dir, "watcher.key"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() { // ends with the process
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		cmd.Wait()
	}()
	t.Cleanup(func() { cmd.Process.Kill() })
	return lines
}

func hgID(m *client.Message) string { return property(m, "hg-id") }

func property(m *client.Message, key string) string {
	for _, p := range m.UserProperties {
		if p.Key == key {
			return p.Value
		}
	}
	return ""
}

// A plugin's readings take the same way, and a plugin that is killed is
// started again.
func TestPluginReadingsReachTheCloud(t *testing.T) {
	cloud := newCloud(t, "")
	cloud.start(t)
	seqs := make(chan uint64, 1000)
	cloud.watch(t, func(m *client.Message) {
		var got struct{ Seq uint64 }
		if strings.Contains(m.Topic, "/hall-2/") && json.Unmarshal(m.Payload, &got) == nil && got.Seq > 0 {
			seqs <- got.Seq
		}
	})
	plugins := t.TempDir()
	out, err := exec.Command("go", "build", "-o", plugins, "github.com/headgate-io/headgate/plugins/simulator").CombinedOutput()
	if err != nil {
		t.Fatalf("build plugin: %v\n%s", err, out)
	}
	s := newSite(t, cloud, `devices:
  - {id: hall-2, adapter: simulator, settings: {interval: 100ms}}
`)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "data: data}", "data: data, plugins: "+plugins+"}", 1))
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, s.config)
	await := func(what string) {
		select {
		case <-seqs:
		case <-time.After(15 * time.Second):
			t.Fatalf("no reading %s after 15 s", what)
		}
	}
	await("at first")
	pid := regexp.MustCompile(`plugin started.* pid=(\d+)`).FindStringSubmatch(g.log(t))
	if pid == nil {
		t.Fatal("the log does not name the plugin's process")
	}
	if n, err := strconv.Atoi(pid[1]); err != nil || syscall.Kill(n, syscall.SIGKILL) != nil {
		t.Fatalf("cannot kill process %s", pid[1])
	}
	for len(seqs) > 0 {
		<-seqs
	}
	await("after the plugin was killed")
}
