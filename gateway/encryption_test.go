package gateway_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// encryptedSite encrypts its queue; its cloud is never there.
func encryptedSite(t *testing.T) *site {
	t.Helper()
	return newSite(t, newCloud(t, ""), "queue: {encryption: true}\n")
}

func (s *site) keyFile() string { return filepath.Join(s.dir, "data", "queue.key") }

// grep tells which files below dir hold one of these words.
func grep(t *testing.T, dir string, words ...string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, w := range words {
			if strings.Contains(string(text), w) {
				found = append(found, path+": "+w)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// keepSession subscribes durably, has the gateway keep something of every kind
// for the session and the cloud, and goes.
func (s *site) keepSession(t *testing.T) {
	t.Helper()
	o := client.Options{ClientID: "canary-client", SessionExpiry: 3600}
	s.listen(t, o, "plant/#").Disconnect()
	press := s.listen(t, client.Options{ClientID: "p", CleanStart: true})
	for _, retain := range []bool{true, false} {
		err := press.Publish(t.Context(), client.Message{
			Topic: "plant/canary-topic", Payload: []byte("canary-payload"), QoS: 2, Retain: retain,
			Properties: mqtt.Properties{UserProperties: []mqtt.UserProperty{{Key: "k", Value: "canary-property"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	press.Disconnect()
}

// What an encrypted gateway keeps is nowhere in its folder, survives a crash and
// a change of the key, and comes out.
func TestEncryptionAtRest(t *testing.T) {
	s := encryptedSite(t)
	g := startGateway(t, s.config)
	s.keepSession(t)
	if out, code := s.run(t, g, "queue", "rekey"); code != 1 || !strings.Contains(out, "stop it first") {
		t.Errorf("rekey of a running gateway: %d %s", code, out)
	}
	if out, code := s.run(t, g, "check"); code != 0 {
		t.Errorf("check beside a running gateway: %d %s", code, out)
	}
	canaries := []string{"canary-topic", "canary-payload", "canary-property", "canary-client"}
	if found := grep(t, filepath.Join(s.dir, "data"), canaries...); found != nil {
		t.Errorf("in the clear: %v", found)
	}
	g.kill()
	if fi, err := os.Stat(s.keyFile()); err != nil || fi.Mode() != 0o600 {
		t.Errorf("the key: %v, %v", fi.Mode(), err)
	}
	before, err := os.ReadFile(s.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	if out, code := s.run(t, g, "queue", "rekey"); code != 0 {
		t.Errorf("rekey: %d %s", code, out)
	}
	if after, err := os.ReadFile(s.keyFile()); err != nil || string(after) == string(before) {
		t.Errorf("the key is as before: %v", err)
	}
	g = startGateway(t, s.config)
	s.listen(t, client.Options{ClientID: "canary-client", SessionExpiry: 3600}).expect(t, "the session", "plant/canary-topic", "plant/canary-topic")
	s.listen(t, client.Options{ClientID: "new", CleanStart: true}, "plant/#").expect(t, "a new one", "plant/canary-topic")
	if found := grep(t, filepath.Join(s.dir, "data"), canaries...); found != nil {
		t.Errorf("in the clear: %v", found)
	}
	if log := g.log(t); strings.Contains(log, strings.TrimSpace(string(before))) {
		t.Error("the key is in the log")
	}
	g.stop(t, 10*time.Second)
}

// With a key that is not there, wrong or open to others the gateway says so,
// ends with 78 and touches nothing.
func TestEncryptionKeyErrors(t *testing.T) {
	s := encryptedSite(t)
	g := startGateway(t, s.config)
	s.keepSession(t)
	g.stop(t, 10*time.Second)
	good, err := os.ReadFile(s.keyFile())
	if err != nil {
		t.Fatal(err)
	}
	queue := filepath.Join(s.dir, "data", "queue")
	for name, tt := range map[string]struct {
		spoil func() error
		says  string
	}{
		"missing": {func() error { return os.Remove(s.keyFile()) }, "put it back from a backup"},
		"wrong": {func() error {
			return os.WriteFile(s.keyFile(), []byte(strings.Repeat("7", 64)+"\n"), 0o600)
		}, "encrypted with another key"},
		"no key":         {func() error { return os.WriteFile(s.keyFile(), []byte("secret\n"), 0o600) }, "openssl rand -base64 32"},
		"open to others": {func() error { return os.Chmod(s.keyFile(), 0o640) }, "chmod 0600"},
	} {
		if err := tt.spoil(); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, queue)
		cmd := exec.Command(headgate(t), "run", "--config", s.config)
		cmd.Env = g.Env
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 78 || !strings.Contains(string(out), tt.says) {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
		if out, code := s.run(t, g, "check"); code != 78 || name != "wrong" && !strings.Contains(out, tt.says) {
			t.Errorf("%s: check says %d\n%s", name, code, out)
		}
		if snapshot(t, queue) != before {
			t.Errorf("%s: the queue was touched", name)
		}
		os.Remove(s.keyFile())
		if err := os.WriteFile(s.keyFile(), good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startGateway(t, s.config)
}

// snapshot is all that is in a folder.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(e.Name())
		b.Write(text)
	}
	return b.String()
}

// With the key as a systemd credential none lies beside the data, and a new
// one is taken over at the start that finds it in its place.
func TestEncryptionCredential(t *testing.T) {
	s := encryptedSite(t)
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	put := func(digit string) string {
		path := filepath.Join(dir, "headgate-queue-key")
		os.Remove(path)
		if err := os.WriteFile(path, []byte(strings.Repeat(digit, 64)), 0o440); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("1")
	g := startGateway(t, s.config)
	s.keepSession(t)
	g.stop(t, 10*time.Second)
	if _, err := os.Stat(s.keyFile()); err == nil {
		t.Error("a key lies beside the data")
	}
	if out, code := s.run(t, g, "queue", "rekey"); code != 78 || !strings.Contains(out, "--new-key-file") {
		t.Errorf("rekey: %d %s", code, out)
	}
	next := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(next, []byte(strings.Repeat("2", 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(t.TempDir(), "held") // in a shell there is no credential
	if err := os.WriteFile(held, []byte(strings.Repeat("1", 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := s.run(t, g, "queue", "rekey", "--key-file", held, "--new-key-file", next); code != 0 {
		t.Errorf("rekey: %d %s", code, out)
	}
	for _, digit := range []string{"1", "2"} { // not in its place yet, and then
		put(digit)
		startGateway(t, s.config).stop(t, 10*time.Second)
	}
	put("1")
	if out, code := s.run(t, g, "run"); code != 78 || !strings.Contains(out, "another key") {
		t.Errorf("the old key: %d %s", code, out)
	}
}
