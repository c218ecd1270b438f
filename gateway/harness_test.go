package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
)

var (
	buildFlags []string
	binaryDir  string // made and removed by TestMain
)

func TestMain(m *testing.M) {
	if os.Getenv(swarmMode) != "" {
		swarm()
		return
	}
	if request := os.Getenv("HEADGATE_REQUEST"); request != "" {
		signRequest(os.Args[1], request, os.Getenv("HEADGATE_OUTPUT"))
		return
	}
	var err error
	if binaryDir, err = os.MkdirTemp("", "headgate-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(binaryDir)
	os.Exit(code)
}

// binary builds the program once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "headgate")
	args := append([]string{"build", "-o", path}, buildFlags...)
	out, err := exec.Command("go", append(args, "github.com/headgate-io/headgate/cmd/headgate")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

func headgate(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var portsGiven sync.Map // by number: the kernel may name one twice that was not bound meanwhile

// freePort is free now, and given once; the process that gets it binds it at once.
func freePort(t testing.TB) int {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		ln.Close()
		if _, again := portsGiven.LoadOrStore(port, true); !again {
			return port
		}
	}
}

// A process is a program under test; its output is shown when the test fails.
type process struct {
	*exec.Cmd
	out  *os.File
	done chan struct{}
}

func start(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(name, args...), out: out, done: make(chan struct{})}
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = out, out
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		p.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			log, _ := os.ReadFile(out.Name())
			t.Logf("%s said:\n%s", name, log)
		}
		out.Close()
	})
	return p
}

func (p *process) kill() {
	p.Process.Kill()
	<-p.done
}

// stop asks the process to end and returns its exit code.
func (p *process) stop(t testing.TB, within time.Duration) int {
	t.Helper()
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(within):
		t.Errorf("%s still runs %v after SIGTERM", p.Path, within)
		p.kill()
	}
	return p.ProcessState.ExitCode()
}

func (p *process) log(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(p.out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// startGateway returns once the gateway says that it is ready.
func startGateway(t testing.TB, config string, wrapper ...string) *process {
	t.Helper()
	return startProgram(t, append(wrapper, headgate(t), "run", "--config", config))
}

func startProgram(t testing.TB, argv []string) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	env := []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify"), "RUNTIME_DIRECTORY=" + dir}
	p := start(t, env, argv[0], argv[1:]...)
	ready := make(chan error, 1)
	go func() { // ends with the first datagram, or with sock
		buf := make([]byte, 256)
		for {
			n, err := sock.Read(buf)
			if err != nil || strings.Contains(string(buf[:n]), "READY=1") {
				ready <- err
				return
			}
		}
	}()
	select {
	case err := <-ready:
		if err != nil {
			t.Fatal(err)
		}
	case <-p.done:
		t.Fatalf("the gateway ended at start:\n%s", p.log(t))
	case <-time.After(30 * time.Second):
		t.Fatalf("the gateway is not ready after 30 s:\n%s", p.log(t))
	}
	return p
}

// A cloud is Debian's mosquitto with mutual TLS, or without any.
type cloud struct {
	port int
	dir  string // of its certificates; the gateway's client certificate lies there too
	conf string
}

// newCloud makes the certificates: pki/ca.crt, broker.crt for the cloud,
// client.crt for the gateway, watcher.crt for who looks on.
func newCloud(t testing.TB, extra string) *cloud {
	t.Helper()
	c := &cloud{port: freePort(t), dir: t.TempDir()}
	if err := pki.Init(c.dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gw", "watcher"} {
		if _, _, err := pki.Issue(c.dir, name, pki.ForClient, pki.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	c.conf = filepath.Join(c.dir, "mosquitto.conf")
	text := fmt.Sprintf(`listener %d 127.0.0.1
user root
cafile %[2]s/ca.crt
certfile %[2]s/broker.crt
keyfile %[2]s/broker.key
require_certificate true
use_identity_as_username true
max_queued_messages 0
max_inflight_messages 1000
%s
`, c.port, c.dir, extra)
	if err := os.WriteFile(c.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cloud) start(t testing.TB) *process {
	t.Helper()
	p := start(t, nil, "/usr/sbin/mosquitto", "-c", c.conf)
	waitListening(t, p, c.port)
	return p
}

// waitListening returns once somebody accepts connections on port.
func waitListening(t testing.TB, p *process, port int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended at start:\n%s", p.Path, p.log(t))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing listens on port %d:\n%s", port, p.log(t))
		}
	}
}

func (c *cloud) tls(t testing.TB, name string) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(c.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(filepath.Join(c.dir, name+".crt"), filepath.Join(c.dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// watch subscribes at the cloud to everything, in a session that outlives
// connections.
func (c *cloud) watch(t testing.TB, got func(*client.Message)) *client.Client {
	t.Helper()
	return c.watchAs(t, "watcher", got)
}

func (c *cloud) watchAs(t testing.TB, id string, got func(*client.Message)) *client.Client {
	t.Helper()
	return dial(t, client.Options{
		Address: fmt.Sprintf("127.0.0.1:%d", c.port), TLS: c.tls(t, "watcher"), ClientID: id,
		SessionExpiry: 3600, ReceiveMaximum: 1000,
		OnMessage: func(m *client.Message) error { got(m); return nil },
	}, "#")
}

func dial(t testing.TB, o client.Options, filters ...string) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if o.Version == 0 {
		o.Version = mqtt.V5
	}
	o.KeepAlive = 30 * time.Second
	cl, err := client.Dial(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Disconnect() })
	for _, f := range filters {
		codes, err := cl.Subscribe(ctx, mqtt.Subscription{Filter: f, QoS: 1})
		if err != nil || codes[0] >= 0x80 {
			t.Fatalf("subscribe %s: %v %v", f, codes, err)
		}
	}
	return cl
}
