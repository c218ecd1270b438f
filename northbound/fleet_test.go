package northbound

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A restartable mosquitto keeps its sessions on disk when it is told to end.
type restartable struct {
	t    *testing.T
	conf string
	addr string
	cmd  *exec.Cmd
}

func newRestartable(t *testing.T, ca *authority) *restartable {
	t.Helper()
	dir := t.TempDir()
	cert, key := writePair(t, dir, "server", ca.server())
	caFile, _ := writePair(t, dir, "ca", tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key})
	m := &restartable{t: t, conf: filepath.Join(dir, "mosquitto.conf"), addr: freeAddress(t)}
	_, port, _ := net.SplitHostPort(m.addr)
	text := fmt.Sprintf("user root\nlistener %s 127.0.0.1\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\nuse_identity_as_username true\nmax_queued_messages 0\npersistence true\npersistence_location %s/\n",
		port, caFile, cert, key, dir)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *restartable) start() {
	m.t.Helper()
	m.cmd = exec.Command(mosquitto, "-c", m.conf)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	soon(m.t, "mosquitto listens", func() bool {
		nc, err := net.Dial("tcp", m.addr)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

func (m *restartable) stop() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	m.cmd.Wait()
}

// The cloud of 200 gateways restarts: they come back spread over time, all of
// them, and nothing is lost.
func TestFleet(t *testing.T) {
	if os.Getenv("PROVE") == "" {
		t.Skip("two minutes and 200 links: PROVE=1")
	}
	const n, away, each = 200, 20 * time.Second, 10
	ca := newAuthority(t, "Our CA")
	cloud := newRestartable(t, ca)
	client, auditor := ca.client("gw"), ca.client("auditor")

	heard := listenTLS(t, cloud.addr, ca)
	rec := &audience{got: map[string]int{}}
	cfg := testConfig()
	cfg.Gateway, cfg.ClientID, cfg.Handle = "auditor", "auditor", rec.take
	cfg.Servers, cfg.TLS, cfg.MaxPause = []string{cloud.addr}, clientTLS(ca, &auditor), time.Second
	cfg.Send = []Route{{Topics: []string{"hg/#"}, QoS: 1, Prefix: "case/auditor/"}}
	cfg.Receive = []Route{{Topics: []string{"fleet/#"}, QoS: 1}}
	_, stop := background(t, cfg, newSource(t, nil))
	defer stop()
	soon(t, "the consumer is there", func() bool { return len(heard.on("case/auditor/hg/auditor/state")) > 0 })

	var fleet []*Link
	var sources []*checkedSource
	for i := range n {
		cfg := testConfig()
		cfg.Gateway = fmt.Sprint("gw-", i)
		cfg.ClientID, cfg.MaxPause = cfg.Gateway, 30*time.Second
		cfg.Servers, cfg.TLS = []string{cloud.addr}, clientTLS(ca, &client)
		cfg.Send = []Route{{Topics: []string{"plant/#"}, QoS: 1, Prefix: "fleet/" + cfg.Gateway + "/"}}
		src := newSource(t, nil)
		l, stop := background(t, cfg, src)
		defer stop()
		fleet, sources = append(fleet, l), append(sources, src)
	}
	load := func() {
		for _, s := range sources {
			s.put(t, numbered(each)...)
		}
	}
	load()
	arrived := func(want int) bool {
		for range 4 { // soon has patience for half a minute
			if got, _ := rec.count(); got >= want {
				return true
			}
			pauseFor(t.Context(), 5*time.Second)
		}
		return false
	}
	soon(t, "the first", func() bool { return arrived(n * each) })

	cloud.stop()
	load()
	pauseFor(t.Context(), away)
	cloud.start()
	back := time.Now()
	load()
	soon(t, "everything", func() bool { return arrived(3 * n * each) })
	judgeFleet(t, fleet, back)
	t.Logf("of %d messages arrived: %s", 3*n*each, rec)
}

// judgeFleet wants all links back, and no second in which too many came.
func judgeFleet(t *testing.T, fleet []*Link, back time.Time) {
	t.Helper()
	var after []time.Duration
	bySecond := map[int]int{}
	for _, l := range fleet {
		s := l.Stats()
		if !s.Connected || s.Reconnects == 0 {
			t.Errorf("%s: %+v", l.cfg.Gateway, s)
			continue
		}
		d := s.Since.Sub(back)
		after = append(after, d)
		bySecond[int(d/time.Second)]++
	}
	slices.Sort(after)
	most := 0
	for _, c := range bySecond {
		most = max(most, c)
	}
	t.Logf("%d back, the first after %v, half after %v, the last after %v; at most %d in one second",
		len(after), after[0].Round(time.Millisecond), after[len(after)/2].Round(time.Millisecond), after[len(after)-1].Round(time.Millisecond), most)
	if most > len(fleet)/4 || after[len(after)-1] > 40*time.Second {
		t.Errorf("%v", bySecond)
	}
}
