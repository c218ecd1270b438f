package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/pki"
)

const mib = 1 << 20

// shipped builds the program as it is shipped, and this test program beside
// it, both without the race detector: it costs memory of its own.
var shipped = sync.OnceValues(func() (dir string, err error) {
	for _, args := range [][]string{
		{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", filepath.Join(binaryDir, "shipped"), module + "cmd/headgate"},
		{"test", "-c", "-trimpath", "-o", filepath.Join(binaryDir, "swarm"), module + "gateway"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	return binaryDir, nil
})

// A storm is a gateway and many clients, each in a process of its own.
type storm struct {
	*site
	gateway *process
	swarm   *rpc.Client
	order   Order // what all orders have in common
	alone   int   // bytes of the gateway before anybody came
}

// newStorm has users d-0 to d-(n-1) and, for the swarm's certificates, a CA.
func newStorm(t *testing.T, n int, certificates bool) *storm {
	t.Helper()
	bin, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	s := &storm{site: &site{dir: t.TempDir(), port: freePort(t)}}
	if err := pki.Init(filepath.Join(s.dir, "pki"), nil); err != nil {
		t.Fatal(err)
	}
	s.order = Order{Port: s.port, Count: n, CA: filepath.Join(s.dir, "pki", pki.CACertificate), Within: 10 * time.Minute}
	policy := "off"
	if certificates {
		policy = "required"
		s.order.CAKey = filepath.Join(s.dir, "pki", pki.CAKey)
	} else {
		s.order.Password = password
		s.addUsers(t, n)
	}
	text := fmt.Sprintf(`version: 1
gateway: {id: site-1, data: data}
admin: {address: ""}
broker:
  listeners:
    - {address: "127.0.0.1:%d", certificate: pki/broker.crt, key: pki/broker.key, client_ca: pki/ca.crt, client_certificate: %s}
access:
  rules:
    - {allow: [publish, subscribe], who: "*", topics: ["plant/{id}/#"]}
`, s.port, policy)
	s.config = filepath.Join(s.dir, "headgate.yaml")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.gateway = startProgram(t, []string{filepath.Join(bin, "shipped"), "run", "--config", s.config})
	s.alone = s.resident(t, "VmRSS")
	s.swarm = startSwarm(t, filepath.Join(bin, "swarm"))
	return s
}

// addUsers gives all of them one hash: making 10,000 would take minutes.
func (s *storm) addUsers(t *testing.T, n int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "data", "users")
	users, err := access.OpenUsers(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := users.Add("d-0", access.Secret(password), nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	header, line, _ := bytes.Cut(text, []byte("\n"))
	all := bytes.NewBuffer(append(header, '\n'))
	for i := range n {
		all.Write(bytes.Replace(line, []byte(`"d-0"`), fmt.Appendf(nil, `"d-%d"`, i), 1))
	}
	if err := os.WriteFile(file, all.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func startSwarm(t *testing.T, path string) *rpc.Client {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), swarmMode+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return rpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{out, in})
}

// do gives the swarm an order.
func (s *storm) do(t *testing.T, what string, change func(*Order)) Report {
	t.Helper()
	o := s.order
	if change != nil {
		change(&o)
	}
	var r Report
	if err := s.swarm.Call("Swarm."+what, o, &r); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return r
}

// all is do for an order that every client must carry out, and logs it.
func (s *storm) all(t *testing.T, what string, change func(*Order)) Report {
	t.Helper()
	r := s.do(t, what, change)
	if r.In != s.order.Count {
		t.Fatalf("%s: %d of %d: %v", what, r.In, s.order.Count, r.Errors)
	}
	t.Logf("%s: %v", what, r)
	return r
}

// resident is the gateway's memory in bytes: now, or at its highest.
func (s *storm) resident(t *testing.T, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.gateway.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), field+":")
	fields := strings.Fields(rest)
	kib, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// settled is its memory once it gives nothing back any more. The runtime looks
// for garbage every two minutes when nothing happens.
func (s *storm) settled(t *testing.T) int {
	t.Helper()
	if os.Getenv("PROVE") == "" {
		return s.resident(t, "VmRSS")
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	least := s.resident(t, "VmRSS")
	for calm := 0; calm < 150; calm++ {
		<-tick.C
		if now := s.resident(t, "VmRSS"); now < least-least/100 {
			least, calm = now, 0
		}
	}
	return least
}

// weigh logs what the gateway holds and compares it with most, the bytes it may
// hold with 10,000 clients.
func (s *storm) weigh(t *testing.T, when string, most int) {
	t.Helper()
	n, now := s.order.Count, s.settled(t)
	t.Logf("%-18s %4d MiB, %5.1f KiB a client", when, now/mib, float64(now-s.alone)/1024/float64(n))
	bound := s.alone + (most-s.alone)*n/10_000
	if n < 10_000 {
		bound += garbage
	}
	if now > bound {
		t.Errorf("%s: %d MiB with %d clients, want at most %d", when, now/mib, n, bound/mib)
	}
}

// garbage is what a gateway with few clients may hold that is collected when
// there are more: above all the memory of password hashes.
const garbage = 160 * mib

// Thousands of clients stay, lose the network and come back at once, while a
// few that never left are served.
func TestStorm(t *testing.T) {
	n := 100
	if os.Getenv("PROVE") != "" {
		n = 10_000
	}
	durable := func(o *Order) { o.Expiry, o.QoS = 3600, 1 }
	for _, tt := range []struct {
		name         string
		certificates bool
		most         int // bytes with 10,000 clients
	}{
		{"certificates", true, 320 * mib},
		{"passwords", false, 256 * mib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStorm(t, n, tt.certificates)
			s.all(t, "Arrive", nil)
			s.weigh(t, "idle", tt.most)
			s.all(t, "Subscribe", nil)
			s.weigh(t, "subscribed", tt.most)
			s.again(t, nil)
			s.weigh(t, "after a storm", tt.most)
			s.again(t, durable)
			s.all(t, "Subscribe", durable)
			s.again(t, durable)
			t.Logf("at its highest     %4d MiB", s.resident(t, "VmHWM")/mib)
		})
	}
}

const early = 20 // clients that stay while the others lose the network

// again cuts nearly all off and lets them come back.
func (s *storm) again(t *testing.T, change func(*Order)) {
	t.Helper()
	few := func(o *Order) { o.Count = early }
	rest := func(o *Order) {
		if change != nil {
			change(o)
		}
		o.First, o.Count = early, o.Count-early
	}
	s.do(t, "Listen", few)
	s.do(t, "Wait", func(o *Order) { o.Within = time.Second })
	calm := s.do(t, "Hear", few)
	s.do(t, "Cut", rest)
	s.do(t, "Listen", few)
	back := s.do(t, "Arrive", rest)
	busy := s.do(t, "Hear", few)
	t.Logf("storm of %d: %v", s.order.Count-early, back)
	t.Logf("those who stayed: their messages %v; before, %v", busy, calm)
	if back.In != s.order.Count-early || back.Took > time.Minute {
		t.Errorf("%d of %d are back after %v, want all within a minute: %v", back.In, s.order.Count-early, back.Took, back.Errors)
	}
	if busy.In == 0 || os.Getenv("PROVE") != "" && busy.P99 > time.Second { // the tests of other packages take what they take
		t.Errorf("those who stayed were served slowly: %v", busy)
	}
}
