package broker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// Clients that were not written here must get along with the broker.

// mosquitto is a command of the mosquitto clients, talking to the house.
func (h *house) mosquitto(ctx context.Context, verb, version, user string, args ...string) *exec.Cmd {
	h.t.Helper()
	path, err := exec.LookPath("mosquitto_" + verb)
	if err != nil {
		h.t.Skip("mosquitto_" + verb + " is not installed: apt-get install mosquitto-clients")
	}
	host, port, _ := net.SplitHostPort(h.addr)
	all := append([]string{"-h", host, "-p", port, "-V", version, "-u", user, "-P", "secret"}, args...)
	return exec.CommandContext(ctx, path, all...)
}

func TestMosquittoClients(t *testing.T) {
	for _, version := range []string{"311", "5"} {
		for qos := range 3 {
			t.Run(fmt.Sprintf("v%s/qos%d", version, qos), func(t *testing.T) {
				h := open(t, Limits{})
				const total = 200
				q := fmt.Sprint(qos)
				sub := h.mosquitto(t.Context(), "sub", version, "bob", "-i", "s", "-q", q, "-t", "a/#", "-C", fmt.Sprint(total), "-W", "10")
				var got bytes.Buffer
				sub.Stdout = &got
				if err := sub.Start(); err != nil {
					t.Fatal(err)
				}
				h.untilSubscribed("a/#")
				var lines, want strings.Builder
				for i := range total {
					fmt.Fprintln(&lines, i)
					fmt.Fprintln(&want, i)
				}
				pub := h.mosquitto(t.Context(), "pub", version, "alice", "-i", "p", "-q", q, "-t", "a/b", "-l")
				pub.Stdin = strings.NewReader(lines.String())
				if out, err := pub.CombinedOutput(); err != nil {
					t.Fatalf("mosquitto_pub: %v %s", err, out)
				}
				if err := sub.Wait(); err != nil {
					t.Fatalf("mosquitto_sub: %v", err)
				}
				if got.String() != want.String() {
					t.Errorf("got %q", got.String())
				}
			})
		}
	}
}

// untilSubscribed waits for the first subscription, busy with logging in.
func (h *house) untilSubscribed(filter string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for h.b.subs.len() == 0 {
		if h.login(5, "carol", "watch").ping(); ctx.Err() != nil {
			h.t.Fatalf("nobody subscribed to %s", filter)
		}
	}
}

func TestMosquittoDurableSession(t *testing.T) {
	h := open(t, Limits{})
	args := []string{"-i", "s", "-c", "-q", "1", "-t", "a"}
	if out, err := h.mosquitto(t.Context(), "sub", "311", "bob", append(args, "-E")...).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_sub: %v %s", err, out)
	}
	pub := h.mosquitto(t.Context(), "pub", "5", "alice", "-q", "2", "-t", "a", "-m", "while away", "-D", "publish", "content-type", "text")
	if out, err := pub.CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v %s", err, out)
	}
	h.restart()
	out, err := h.mosquitto(t.Context(), "sub", "311", "bob", append(args, "-C", "1", "-W", "10")...).CombinedOutput()
	if err != nil || string(out) != "while away\n" {
		t.Fatalf("mosquitto_sub: %v %q", err, out)
	}
}

func TestMosquittoIsRefused(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(true, "alice", pub, "mine")))
	for _, version := range []string{"311", "5"} {
		for name, args := range map[string][]string{
			"topic":    {"-t", "theirs", "-m", "x", "-q", "1"},
			"will":     {"-t", "mine", "-m", "x", "-q", "1", "--will-topic", "theirs", "--will-payload", "x"},
			"password": {"-t", "mine", "-m", "x", "-q", "1", "-P", "wrong"},
		} {
			cmd := h.mosquitto(t.Context(), "pub", version, "alice", args...)
			if version == "311" && name == "topic" {
				continue // it would send again for ever: that is the point of closing
			}
			out, err := cmd.CombinedOutput()
			if err == nil && !bytes.Contains(out, []byte("uthorized")) {
				t.Errorf("v%s, %s: accepted: %s", version, name, out)
			}
		}
	}
	if n := h.b.Stats().Received; n != 0 {
		t.Errorf("%d messages were accepted", n)
	}
}
