package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/headgate-io/headgate/gateway/client"
)

// carrier runs headgate queue for a site.
type carrier struct {
	*site
	g *process // nil: it is stopped
}

// command is the verb, run where the gateway's socket is found.
func (c carrier) command(ctx context.Context, t testing.TB, verb string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, headgate(t), append([]string{"queue", verb, "--config", c.config}, args...)...)
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+c.dir)
	if c.g != nil {
		cmd.Env = c.g.Env
	}
	return cmd
}

func (c carrier) run(t testing.TB, verb string, args ...string) (out string, err error) {
	t.Helper()
	b, err := c.command(t.Context(), t, verb, args...).CombinedOutput()
	return string(b), err
}

func (c carrier) must(t testing.TB, verb string, args ...string) string {
	t.Helper()
	out, err := c.run(t, verb, args...)
	if err != nil {
		t.Fatalf("queue %s %v: %v\n%s", verb, args, err, out)
	}
	return out
}

// waits lists what waits for the link: hg-id and payload.
func (c carrier) waits(t testing.TB) map[string]string {
	t.Helper()
	b, err := c.command(t.Context(), t, "peek", "-n", "0", "--payload", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		var m struct{ ID, Payload string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		all[m.ID] = m.Payload
	}
	return all
}

// newNeighbour is another gateway at the same cloud.
func newNeighbour(t testing.TB, c *cloud) *site {
	t.Helper()
	s := newSite(t, c, "")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(strings.ReplaceAll(string(text), "id: site-1", "id: site-2")), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// fill has n messages of 4 topics wait at a site whose cloud is away.
func (c carrier) fill(t testing.TB, n int) {
	t.Helper()
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", c.plain), ClientID: "x", CleanStart: true})
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		cl.PublishAsync(client.Message{Topic: fmt.Sprintf("plant/%d", i%4), Payload: fmt.Append(nil, i), QoS: 1}, func(err error) {
			defer all.Done()
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// An arrivals is what the cloud got of the carried messages.
type arrivals struct {
	mu      sync.Mutex
	ids     map[string]string // hg-id → payload
	order   map[string][]string
	repeats int
}

func (a *arrivals) take(m *client.Message) {
	topic, ok := strings.CutPrefix(m.Topic, "sites/site-2/plant/")
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, again := a.ids[hgID(m)]; again {
		a.repeats++
		return
	}
	a.ids[hgID(m)] = string(m.Payload)
	a.order[topic] = append(a.order[topic], string(m.Payload))
}

// expect waits for n messages of site-1 and checks their order.
func (a *arrivals) expect(t *testing.T, want map[string]string) {
	t.Helper()
	waitFor(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.ids) >= len(want)
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, payload := range want {
		if a.ids[id] != payload || !strings.HasPrefix(id, "site-1/") {
			t.Fatalf("%s is %q, want %q", id, a.ids[id], payload)
		}
	}
	if len(a.ids) != len(want) {
		t.Errorf("%d messages arrived, want %d", len(a.ids), len(want))
	}
	for topic, got := range a.order {
		for i := 1; i < len(got); i++ {
			var x, y int
			fmt.Sscan(got[i-1], &x)
			fmt.Sscan(got[i], &y)
			if y <= x {
				t.Fatalf("topic %s: %d came after %d", topic, y, x)
			}
		}
	}
}

// A backlog is carried from a gateway without a link to one with a link, and
// arrives in the cloud under the identity that it got at the first.
func TestCarry(t *testing.T) {
	here := carrier{site: newSite(t, newCloud(t, ""), "")} // its cloud never comes
	here.g = startGateway(t, here.config)
	here.fill(t, 500)
	want := here.waits(t)
	if len(want) != 500 {
		t.Fatalf("%d messages wait", len(want))
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	stick := t.TempDir()
	file, secret := filepath.Join(stick, "backlog"), filepath.Join(stick, "key")
	if err := os.WriteFile(secret, []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here.must(t, "export", file, "--remove", "--filter", "plant/#", "--recipient", key.Recipient().String())
	if left := here.waits(t); len(left) != 0 {
		t.Errorf("%d messages still wait", len(left))
	}
	if b, err := os.ReadFile(file); err != nil || strings.Contains(string(b), "plant/") {
		t.Errorf("topics can be read in an encrypted file, %v", err)
	}

	cloud := newCloud(t, "")
	cloud.start(t)
	got := &arrivals{ids: map[string]string{}, order: map[string][]string{}}
	cloud.watch(t, got.take)
	there := carrier{site: newNeighbour(t, cloud)}
	there.g = startGateway(t, there.config)
	if out, err := there.run(t, "import", file); err == nil || !strings.Contains(out, "--identity") {
		t.Errorf("imported without the key: %s", out)
	}
	there.must(t, "import", file, "--identity", secret)
	got.expect(t, want)
	if out, err := there.run(t, "import", file, "--identity", secret); err == nil || !strings.Contains(out, "--again") {
		t.Errorf("imported twice: %s", out)
	}
	there.must(t, "import", file, "--identity", secret, "--again")
	there.must(t, "drain", "--timeout", "20s")
	waitFor(t, func() bool { got.mu.Lock(); defer got.mu.Unlock(); return got.repeats == 500 })
	got.expect(t, want)
	there.refuses(t, file, secret, want)
}

// refuses tries files of which one byte differs, or that end early: nothing of
// them is taken in.
func (c carrier) refuses(t *testing.T, file, secret string, carried map[string]string) {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := file + ".bad"
	for range 20 {
		b := slices.Clone(whole)
		at := rand.IntN(len(b))
		if b[at] ^= byte(1 + rand.IntN(255)); rand.IntN(2) == 0 {
			b = whole[:at]
		}
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := c.run(t, "import", bad, "--identity", secret, "--again"); err == nil || !strings.Contains(out, "nothing was imported") {
			t.Fatalf("damaged at byte %d of %d: %v\n%s", at, len(whole), err, out)
		}
	}
	if n := len(c.waits(t)); n != 0 {
		t.Errorf("%d messages of damaged files wait", n)
	}
}

// Whatever is killed while a backlog is exported and imported, each message is
// in the queue or in a whole file, and arrives once repeats are removed.
func TestKill9Carry(t *testing.T) {
	rounds := 6
	if os.Getenv("PROVE") != "" {
		rounds = 60
	}
	here := carrier{site: newSite(t, newCloud(t, ""), "")}
	here.g = startGateway(t, here.config)
	here.fill(t, 3000)
	want := here.waits(t)
	here.g.stop(t, 5*time.Second)
	here.g = nil

	stick := t.TempDir()
	var files []string
	killed := 0
	for round := range rounds {
		file := filepath.Join(stick, fmt.Sprint(round))
		topic := fmt.Sprintf("plant/%d", round%4)
		if killSoon(t, here, "export", file, "--remove", "--filter", topic) {
			killed++
		}
		if _, err := here.run(t, "import", file, "--check"); err == nil {
			files = append(files, file)
		}
	}
	files = append(files, filepath.Join(stick, "last"))
	here.must(t, "export", files[len(files)-1], "--remove", "--filter", "plant/#")
	if n := len(here.waits(t)); n != 0 {
		t.Errorf("%d messages still wait", n)
	}

	cloud := newCloud(t, "")
	there := carrier{site: newNeighbour(t, cloud)}
	there.g = startGateway(t, there.config)
	for _, file := range files {
		for range rounds {
			if killSoon(t, there, "import", file) {
				killed++
			} else {
				break
			}
			if rand.IntN(2) == 0 {
				there.g.kill()
				there.g = startGateway(t, there.config)
			}
		}
		if out, err := there.run(t, "import", file); err != nil && !strings.Contains(out, "--again") {
			t.Fatalf("import %s: %v\n%s", file, err, out)
		}
	}
	if killed == 0 {
		t.Error("nothing was killed: the test did not test")
	}
	got := &arrivals{ids: map[string]string{}, order: map[string][]string{}}
	cloud.start(t)
	cloud.watch(t, got.take)
	there.must(t, "drain", "--timeout", "1m")
	got.expect(t, want)
	t.Logf("%d killed, %d files, %d repeats", killed, len(files), got.repeats)
}

// killSoon runs a verb and kills it at some moment, if it is not done before.
func killSoon(t *testing.T, c carrier, verb string, args ...string) (killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+rand.IntN(200))*time.Millisecond)
	defer cancel()
	err := c.command(ctx, t, verb, args...).Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		t.Fatal(err)
	}
	return ctx.Err() != nil
}
