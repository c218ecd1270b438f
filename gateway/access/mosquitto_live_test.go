package access_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// mosquitto runs Debian's broker with an acl_file, and lets everybody in by the
// name they say. It ends with the test.
func mosquitto(t *testing.T, acl string) (address string) {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(address)
	conf := fmt.Sprintf("user root\nallow_anonymous true\nlistener %s 127.0.0.1\nacl_file %s/acl\nmax_queued_messages 0\n", port, dir)
	for name, text := range map[string]string{"acl": acl, "conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/usr/sbin/mosquitto", "-c", filepath.Join(dir, "conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skipf("mosquitto is not installed: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("mosquitto does not listen; with\n%s", acl)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// aclFile makes one at random. Where exact is not asked for, it also has what
// rules cannot say.
func aclFile(r *rand.Rand, exact bool) string {
	levels := []string{"a", "b", "ua", "ub", "+", "+"}
	patterns := append(levels, "%u", "%u")
	if !exact {
		levels = append(levels, "a{b}", "{id}", "%c")
		patterns = append(patterns, "%c", "x%c", "a{b}", "{id}")
	}
	topic := func(levels []string) string {
		parts := []string{levels[r.IntN(len(levels))]}
		if r.IntN(8) == 0 {
			parts[0] = "$x"
		}
		for len(parts) < 3 && r.IntN(3) > 0 {
			parts = append(parts, levels[r.IntN(len(levels))])
		}
		if r.IntN(3) == 0 {
			parts = append(parts[:len(parts)-r.IntN(2)], "#")
		}
		return strings.Join(parts, "/")
	}
	kind := func() string { return []string{"", "read ", "write ", "readwrite ", "deny "}[r.IntN(5)] }
	var b strings.Builder
	b.WriteString("topic read a/#\n") // for those without a name
	for range 2 {
		for _, user := range []string{"ua", "ub"} {
			fmt.Fprintf(&b, "user %s\n", user)
			for range r.IntN(4) {
				fmt.Fprintf(&b, "topic %s%s\n", kind(), topic(levels))
			}
			for range r.IntN(3) {
				fmt.Fprintf(&b, "pattern %s%s\n", kind(), topic(patterns))
			}
		}
	}
	b.WriteString("user full\ntopic readwrite #\ntopic readwrite $x/#\n")
	return b.String()
}

// asked are the topics of the comparison.
var asked = func() (all []string) {
	levels := []string{"a", "b", "ua", "ub", "cb", "a{b}", "{id}"}
	for _, one := range append(levels, "$x") {
		all = append(all, one)
		for _, two := range levels {
			all = append(all, one+"/"+two)
		}
		all = append(all, one+"/a/b", one+"/ua/a", one+"/cb/b", one+"/b/cb/a")
	}
	return all
}()

func TestImportedRulesAgreeWithMosquitto(t *testing.T) {
	files := 4
	if os.Getenv("PROVE") != "" {
		files = 60
	}
	triples, allowed, narrower := 0, 0, 0
	for i := range files {
		exact := i%2 == 0
		acl := aclFile(rand.New(rand.NewPCG(uint64(i), 1)), exact)
		list, refused := access.ImportACL{Role: "mosquitto"}.Read(strings.NewReader(acl))
		if len(refused) > 0 {
			t.Fatalf("%v in\n%s", refused, acl)
		}
		var rules []access.Rule
		for _, r := range list {
			if len(r.Rule.Topics) > 0 {
				rules = append(rules, r.Rule)
			}
		}
		ours, err := access.Compile(rules)
		if err != nil {
			t.Fatalf("%v in\n%s", err, acl)
		}
		address := mosquitto(t, acl)
		for _, user := range []string{"ua", "ub"} {
			id := access.Identity{Name: user, Roles: []string{"mosquitto"}}
			theirs := verdicts(t, address, user, "c"+user[1:])
			for _, topic := range asked {
				for _, action := range []access.Action{access.Publish, access.Subscribe} {
					got, want := ours.Allow(id, action, topic), theirs[action][topic]
					if got && !want || got != want && exact {
						t.Errorf("%s may %v %s: %v, mosquitto says %v, with\n%s", user, action, topic, got, want, acl)
					}
					triples++
					if got {
						allowed++
					}
					if got != want {
						narrower++
					}
				}
			}
		}
	}
	t.Logf("%d triples, %d allowed, %d of mosquitto's allowances left out", triples, allowed, narrower)
	if allowed < triples/20 {
		t.Error("hardly anything is allowed: the comparison says little")
	}
}

// verdicts asks mosquitto itself what user may publish and receive.
func verdicts(t *testing.T, address, user, clientID string) [2]map[string]bool {
	t.Helper()
	var mu sync.Mutex // covers received
	received := map[string]bool{}
	dial := func(name, id string, got func(*client.Message) error) *client.Client {
		c, err := client.Dial(t.Context(), client.Options{Address: address, Username: name, ClientID: id, CleanStart: true, OnMessage: got})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Disconnect() })
		return c
	}
	subscribe := func(c *client.Client, filters ...string) {
		for _, f := range filters {
			if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: f}); err != nil {
				t.Fatal(err)
			}
		}
	}
	full := dial("full", "full", nil)
	u := dial(user, clientID, func(m *client.Message) error {
		mu.Lock()
		defer mu.Unlock()
		received[m.Topic] = true
		return nil
	})
	subscribe(u, "#", "$x/#")
	for _, topic := range asked {
		if err := full.Publish(t.Context(), client.Message{Topic: topic, QoS: 1}); err != nil {
			t.Fatalf("full publishes to %s: %v", topic, err)
		}
	}
	subscribe(u, "done") // its answer comes behind all messages
	published := map[string]bool{}
	for _, topic := range asked {
		err := u.Publish(t.Context(), client.Message{Topic: topic, QoS: 1})
		if refused := new(client.RefusedError); err != nil && !errors.As(err, &refused) {
			t.Fatalf("%s publishes to %s: %v", user, topic, err)
		}
		if published[topic] = err == nil; err != nil { // then mosquitto hangs up
			u.Disconnect()
			u = dial(user, clientID, nil)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return [2]map[string]bool{access.Publish: published, access.Subscribe: received}
}
