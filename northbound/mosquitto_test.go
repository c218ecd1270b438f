package northbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/headgate-io/headgate/storequeue"
)

const mosquitto = "/usr/sbin/mosquitto"

// startMosquitto runs Debian's broker with mutual TLS and returns its address.
func startMosquitto(t *testing.T, ca *authority) string {
	t.Helper()
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skipf("%v: install the package mosquitto to run this test", err)
	}
	dir := t.TempDir()
	cert, key := writePair(t, dir, "server", ca.server())
	caFile, _ := writePair(t, dir, "ca", tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key})
	return runMosquitto(t, filepath.Join(dir, "mosquitto.conf"), fmt.Sprintf("cafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\nuse_identity_as_username true\n", caFile, cert, key))
}

// startPlainMosquitto is for what a test wants to see on the wire.
func startPlainMosquitto(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(mosquitto); err != nil {
		t.Skipf("%v: install the package mosquitto to run this test", err)
	}
	return runMosquitto(t, filepath.Join(t.TempDir(), "mosquitto.conf"), "allow_anonymous true\n")
}

// runMosquitto finds a free port for a broker whose listener has these settings.
func runMosquitto(t *testing.T, conf, listener string) (addr string) {
	t.Helper()
	for range 5 {
		addr = freeAddress(t)
		_, port, _ := net.SplitHostPort(addr)
		text := fmt.Sprintf("user root\nmax_queued_messages 0\nlistener %s 127.0.0.1\n%s", port, listener)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if runs(t, exec.Command(mosquitto, "-v", "-c", conf)) {
			return addr
		}
	}
	t.Fatal("mosquitto does not start")
	return ""
}

// runs starts a broker and waits until it says that it is running.
func runs(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), " running") {
			done := make(chan struct{})
			go func() { // ends with the process
				defer close(done)
				for lines.Scan() {
				}
			}()
			t.Cleanup(func() { cmd.Process.Kill(); <-done; cmd.Wait() })
			return true
		}
		t.Log(lines.Text())
	}
	cmd.Wait()
	return false
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// consume connects a consumer to the broker; what it gets comes out of the channel.
func consume(t *testing.T, addr string, cfg *tls.Config, filters ...string) (*paho.Client, <-chan *paho.Publish) {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *paho.Publish, 10_000)
	client := paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(nc),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) { got <- p.Packet; return true, nil },
		},
	})
	if _, err := client.Connect(t.Context(), &paho.Connect{ClientID: "consumer", KeepAlive: 30, CleanStart: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Disconnect(&paho.Disconnect{}) })
	var subs []paho.SubscribeOptions
	for _, f := range filters {
		subs = append(subs, paho.SubscribeOptions{Topic: f, QoS: 1})
	}
	if _, err := client.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: subs}); err != nil {
		t.Fatal(err)
	}
	return client, got
}

// The whole way through a broker that we did not write: readings up in order,
// commands down even if they came while the link was away, and the state.
func TestMosquitto(t *testing.T) {
	const n = 3000
	ca := newAuthority(t, "Our CA")
	addr := startMosquitto(t, ca)
	client := ca.client("gw")
	cfg := receiveConfig()
	cfg.Servers, cfg.TLS = []string{addr}, clientTLS(ca, &client)
	handled := make(chan storequeue.Message, 10)
	cfg.Handle = func(_ context.Context, m storequeue.Message) error { handled <- m; return nil }
	src := newSource(t, nil)
	src.put(t, numbered(n)...)

	consumerCert := ca.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "consumer"}})
	consumer, got := consume(t, addr, &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{consumerCert}}, "sites/gw/#")

	stop := run(t, cfg, src)
	wantState(t, got, `{"state":"online"`)
	for i := range n {
		p := receiveFrom(t, got)
		if want := fmt.Sprintf("gw/7/%d", i+1); p.Properties.User.Get(propID) != want || p.Topic != fmt.Sprintf("sites/gw/plant/%d", i%3) {
			t.Fatalf("message %d: %s on %s", i+1, p.Properties.User.Get(propID), p.Topic)
		}
	}
	stop()
	wantState(t, got, `{"state":"offline"}`)
	if src.Acked() != n {
		t.Errorf("cursor at %d, want %d", src.Acked(), n)
	}

	_, err := consumer.Publish(t.Context(), &paho.Publish{
		Topic: "sites/gw/cmd/write", QoS: 1, Payload: []byte("42"),
		Properties: &paho.PublishProperties{ResponseTopic: "sites/gw/hg/answer", CorrelationData: []byte("x")},
	})
	if err != nil {
		t.Fatal(err)
	}
	stop = run(t, cfg, src)
	defer stop()
	select {
	case m := <-handled:
		if m.Topic != "cmd/write" || string(m.Payload) != "42" || m.ResponseTopic != "hg/answer" || string(m.CorrelationData) != "x" {
			t.Errorf("command %+v", m)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command that waited at the broker did not come")
	}
}

// run starts a link and returns its stop.
func run(t *testing.T, cfg Config, src Source) (stop func()) {
	t.Helper()
	l, err := NewLink(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }() // ends with ctx
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if st := l.Stats(); st.LastError != "" {
			t.Errorf("stats %+v", st)
		}
	}
}

func receiveFrom(t *testing.T, got <-chan *paho.Publish) *paho.Publish {
	t.Helper()
	select {
	case p := <-got:
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived for 10 s")
		return nil
	}
}

func wantState(t *testing.T, got <-chan *paho.Publish, prefix string) {
	t.Helper()
	p := receiveFrom(t, got)
	for string(p.Payload) == "42" { // the consumer's own command
		p = receiveFrom(t, got)
	}
	if p.Topic != "sites/gw/hg/gw/state" || !strings.HasPrefix(string(p.Payload), prefix) {
		t.Fatalf("got %s on %s, want the state %s", p.Payload, p.Topic, prefix)
	}
}
