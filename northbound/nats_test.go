package northbound

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// A cluster is three NATS servers that speak MQTT 3.1.1 over mutual TLS, and
// keep what was published on two of the three before they acknowledge it.
type cluster struct {
	t       *testing.T
	program string
	nodes   [3]node
}

type node struct {
	conf, health, mqtt string
	cmd                *exec.Cmd
	log                *os.File
}

func startCluster(t *testing.T, ca *authority) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{t: t, program: filepath.Join(dir, "nats-server")}
	build := exec.Command("go", "-C", "../tools/nats", "build", "-o", c.program, "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cert, key := writePair(t, dir, "server", ca.server())
	caFile, _ := writePair(t, dir, "ca", tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key})
	var routes []string
	for range c.nodes {
		routes = append(routes, "nats://"+freeAddress(t))
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		n.conf, n.health, n.mqtt = filepath.Join(dir, fmt.Sprint("node", i, ".conf")), freeAddress(t), freeAddress(t)
		text := fmt.Sprintf(`server_name: node%d
listen: %q
http: %q
jetstream { store_dir: %q, sync_interval: always }
cluster { name: cloud, listen: %q, routes: [%s] }
mqtt { listen: %q, stream_replicas: 3, tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true } }
`, i, freeAddress(t), n.health, filepath.Join(dir, fmt.Sprint("node", i)), strings.TrimPrefix(routes[i], "nats://"),
			strings.Join(routes, ", "), n.mqtt, cert, key, caFile)
		if err := os.WriteFile(n.conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.start(i)
	}
	for i := range c.nodes {
		c.wait(i)
	}
	return c
}

func (c *cluster) servers() (all []string) {
	for i := range c.nodes {
		all = append(all, c.nodes[i].mqtt)
	}
	return all
}

func (c *cluster) start(i int) {
	n := &c.nodes[i]
	n.cmd = exec.Command(c.program, "-c", n.conf)
	var err error
	if n.log, err = os.OpenFile(n.conf+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		c.t.Fatal(err)
	}
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.kill(i) })
}

func (c *cluster) kill(i int) {
	n := &c.nodes[i]
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Kill()
	n.cmd.Wait()
	n.log.Close()
	n.cmd = nil
}

// wait returns when a node takes part again.
func (c *cluster) wait(i int) {
	c.t.Helper()
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	soon(c.t, c.nodes[i].conf, func() bool {
		r, err := client.Get("http://" + c.nodes[i].health + "/healthz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// An audience is what a consumer got, by hg-id.
type audience struct {
	mu      sync.Mutex // covers the fields below
	got     map[string]int
	repeats int
	online  bool // its own state came back: it has subscribed
}

func (r *audience) take(_ context.Context, m storequeue.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range m.Properties {
		if p.Key == propID {
			if r.got[p.Value]++; r.got[p.Value] > 1 {
				r.repeats++
			}
			return nil
		}
	}
	r.online = true
	return nil
}

func (r *audience) count() (different, repeats int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got), r.repeats
}

// Three NATS servers are the cloud. One of them is killed every 10 s under 1,000
// messages a second: nothing is lost, and repeats have the hg-id of the first.
func TestCluster(t *testing.T) {
	if os.Getenv("PROVE") == "" {
		t.Skip("two minutes, and a NATS server to build: PROVE=1")
	}
	ca := newAuthority(t, "Our CA")
	cloud := startCluster(t, ca)
	client, auditor := ca.client("gw"), ca.client("auditor")

	rec := &audience{got: map[string]int{}}
	cfg := testConfig()
	cfg.Gateway, cfg.ClientID, cfg.Send = "auditor", "auditor", []Route{{Topics: []string{"hg/#"}, QoS: 1, Prefix: "sites/gw/"}}
	cfg.Servers, cfg.TLS, cfg.Old, cfg.Enveloped, cfg.MaxPause, cfg.KeepAlive = cloud.servers(), clientTLS(ca, &auditor), true, true, 5*time.Second, 5*time.Second
	cfg.Receive = []Route{{Topics: []string{"sites/gw/plant/#", "sites/gw/hg/auditor/#"}, QoS: 1, Strip: "sites/gw/"}}
	cfg.Handle = rec.take
	listening, stopListening := background(t, cfg, newSource(t, nil))
	defer stopListening()
	soon(t, "the consumer is there", func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return rec.online })

	src := newSource(t, nil)
	cfg = testConfig()
	cfg.Servers, cfg.TLS, cfg.Old, cfg.Enveloped, cfg.MaxPause, cfg.KeepAlive = cloud.servers(), clientTLS(ca, &client), true, true, 5*time.Second, 5*time.Second
	l, stop := background(t, cfg, src)
	defer stop()
	src.put(t, numbered(1)...)
	soon(t, "the first message", func() bool { n, _ := rec.count(); return n == 1 })

	sent, worst := loadAndKill(t, cloud, src)
	last := -1
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		n, _ := rec.count()
		if n == sent && src.Waiting() == 0 {
			break
		}
		if n != last {
			last, deadline = n, time.Now().Add(2*time.Minute)
		}
		pauseFor(t.Context(), 100*time.Millisecond)
	}
	n, repeats := rec.count()
	t.Logf("%d messages, %d arrived, %d lost, %d repeats; at most %d waited; the sender reconnected %d times, the consumer %d times",
		sent, n, sent-n, repeats, worst, l.Stats().Reconnects, listening.Stats().Reconnects)
	if n != sent || src.Waiting() > 0 {
		t.Errorf("%d of %d arrived, %d wait; sender %+v, consumer %+v", n, sent, src.Waiting(), l.Stats(), listening.Stats())
	}
}

// loadAndKill puts 1,000 messages a second for two minutes, and kills and
// starts a node every ten seconds. It returns how many messages there were, and
// how many waited at the worst moment.
func loadAndKill(t *testing.T, cloud *cluster, src *checkedSource) (sent int, worst uint64) {
	sent = 1
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for kills := 0; time.Since(began) < 2*time.Minute; {
		<-tick.C
		due := int(time.Since(began) / time.Millisecond)
		if n := due - sent; n > 0 {
			src.put(t, numbered(n)...)
			sent += n
		}
		worst = max(worst, src.Waiting())
		if time.Since(began) > time.Duration(kills+1)*10*time.Second {
			cloud.kill(kills % 3)
			cloud.start(kills % 3)
			kills++
		}
	}
	return sent, worst
}

// background runs a link until stop.
func background(t *testing.T, cfg Config, src Source) (l *Link, stop func()) {
	t.Helper()
	l, err := NewLink(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }() // ends with ctx
	return l, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func (r *audience) String() string {
	different, repeats := r.count()
	return fmt.Sprintf("%d, and %d repeats", different, repeats)
}
