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
	early   *rpc.Client // a swarm too: how it is served is not the other one's doing
	order   Order       // what all orders have in common
	alone   int         // bytes of the gateway before anybody came
}

// stormUsers is how many users there are at most, with several devices each when
// there are more devices: a first login costs tens of milliseconds, on purpose.
const stormUsers = 1000

// newStorm is for n clients, with users or, for the swarm's certificates, a CA.
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
		s.order.Password, s.order.Users = password, min(n, stormUsers)
		s.addUsers(t, s.order.Users)
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
	s.swarm, s.early = startSwarm(t, filepath.Join(bin, "swarm")), startSwarm(t, filepath.Join(bin, "swarm"))
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

func startSwarm(t *testing.T, argv ...string) *rpc.Client {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
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

// do gives a swarm an order.
func (s *storm) do(t *testing.T, swarm *rpc.Client, what string, o Order) Report {
	t.Helper()
	var r Report
	if err := swarm.Call("Swarm."+what, o, &r); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return r
}

// all is an order that every client must carry out.
func (s *storm) all(t *testing.T, what string, change func(*Order)) {
	t.Helper()
	few, many := s.few(), s.many(change)
	if r := s.do(t, s.early, what, few); r.In != few.Count {
		t.Fatalf("%s: %d of %d: %v", what, r.In, few.Count, r.Errors)
	}
	r := s.do(t, s.swarm, what, many)
	if r.In != many.Count {
		t.Fatalf("%s: %d of %d: %v", what, r.In, many.Count, r.Errors)
	}
	t.Logf("%s: %v", what, r)
}

const early = 20 // clients that stay while the others lose the network

func (s *storm) few() Order {
	o := s.order
	o.Count = early
	return o
}

func (s *storm) many(change func(*Order)) Order {
	o := s.order
	if change != nil {
		change(&o)
	}
	o.First, o.Count = early, o.Count-early
	return o
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

// settled is its memory, with PROVE=1 once it gives nothing back any more: the
// runtime looks for garbage every two minutes when nothing happens.
func (s *storm) settled(t *testing.T) int {
	t.Helper()
	if os.Getenv("PROVE") == "" {
		return s.resident(t, "VmRSS")
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	least := s.resident(t, "VmRSS")
	for calm := 0; calm < 130; calm++ {
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
const garbage = 320 * mib

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
			s.first(t)
			s.all(t, "Arrive", nil)
			t.Logf("just arrived       %4d MiB", s.resident(t, "VmRSS")/mib)
			s.weigh(t, "idle", tt.most)
			s.all(t, "Subscribe", nil)
			s.weigh(t, "subscribed", tt.most)
			s.again(t, nil)
			t.Logf("after a storm      %4d MiB", s.resident(t, "VmRSS")/mib)
			s.again(t, durable)
			s.all(t, "Subscribe", durable)
			s.again(t, durable)
			t.Logf("at its highest     %4d MiB", s.resident(t, "VmHWM")/mib)
		})
	}
}

// first lets every user log in once: from now on their passwords are known.
func (s *storm) first(t *testing.T) {
	t.Helper()
	o := s.order
	if o.Count = o.Users; o.Count == 0 {
		return
	}
	r := s.do(t, s.swarm, "Arrive", o)
	if r.In != o.Count {
		t.Fatalf("first logins: %d of %d: %v", r.In, o.Count, r.Errors)
	}
	t.Logf("first logins: %v", r)
	s.do(t, s.swarm, "Cut", o)
}

// again cuts nearly all off and lets them come back.
func (s *storm) again(t *testing.T, change func(*Order)) {
	t.Helper()
	few, many := s.few(), s.many(change)
	second := few
	second.Within = time.Second
	s.do(t, s.early, "Listen", few)
	s.do(t, s.early, "Wait", second)
	calm := s.do(t, s.early, "Hear", few)
	s.do(t, s.swarm, "Cut", many)
	s.do(t, s.early, "Listen", few)
	back := s.do(t, s.swarm, "Arrive", many)
	busy := s.do(t, s.early, "Hear", few)
	t.Logf("storm: %v", back)
	t.Logf("those who stayed: their messages %v; before, %v", busy, calm)
	if back.In != many.Count || back.Took > time.Minute {
		t.Errorf("%d of %d are back after %v, want all within a minute: %v", back.In, many.Count, back.Took, back.Errors)
	}
	if busy.In == 0 || os.Getenv("PROVE") != "" && busy.P99 > time.Second { // the tests of other packages take what they take
		t.Errorf("those who stayed were served slowly: %v", busy)
	}
}

// Who connects and says nothing is gone after ten seconds at most, and costs
// little until then. Most do not get that far: see broker.Limits.PreLogin.
func TestSilentSockets(t *testing.T) {
	n := 200
	if os.Getenv("PROVE") != "" {
		n = 2000
	}
	s := newStorm(t, early, true)
	s.all(t, "Arrive", nil)
	before := s.resident(t, "VmHWM")
	began := time.Now()
	silent := s.order
	silent.First, silent.Count, silent.Within = 1000, n, 30*time.Second
	gone := s.do(t, s.swarm, "Stay", silent)
	cost := s.resident(t, "VmHWM") - before
	t.Logf("%d silent sockets cost %d KiB at most; gone: %v", n, cost>>10, gone)
	if gone.In != n || gone.Took > 11*time.Second {
		t.Errorf("after %v %d of %d are gone: %v", time.Since(began), gone.In, n, gone.Errors)
	}
	if cost > 20*mib {
		t.Errorf("they cost %d MiB, want at most 20", cost/mib)
	}
}
