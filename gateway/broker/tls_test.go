package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// byCertificate lets in whoever has a certificate, under its common name.
type byCertificate struct{ *access.Gate }

func (byCertificate) Authenticate(_ context.Context, c access.Credentials) (access.Identity, error) {
	if c.Certificate == nil {
		return access.Identity{}, access.ErrBadCredentials
	}
	return access.Identity{Name: c.Certificate.Subject.CommonName}, nil
}

// selfSigned is a certificate for 127.0.0.1 and clients, and a pool that trusts it.
func selfSigned(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, pool
}

func TestTLS(t *testing.T) {
	server, serverCA := selfSigned(t, "broker")
	press, clientCA := selfSigned(t, "press-1")
	conf := &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: clientCA, ClientAuth: tls.VerifyClientCertIfGiven}

	h := open(t, Limits{Handshake: 200 * time.Millisecond})
	h.close()
	h.config.Listeners = []Listener{{Address: "127.0.0.1:0", TLS: func() (*tls.Config, error) { return conf, nil }}}
	h.start()
	h.b.access = byCertificate{h.gate}

	silent := h.dial(mqtt.V5)
	dial := func(certs ...tls.Certificate) *client {
		nc, err := tls.Dial("tcp", h.addr, &tls.Config{RootCAs: serverCA, Certificates: certs})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return newClient(t, nc, mqtt.V5)
	}
	if code := dial().connect("", "nobody").Code; code != mqtt.NotAuthorized {
		t.Errorf("without a certificate: %v", code)
	}
	c := dial(press)
	if code := c.connect("", "a").Code; code != mqtt.Success {
		t.Fatalf("with a certificate: %v", code)
	}
	c.subscribe("a", 1)
	p := dial(press)
	p.connect("", "p")
	p.publish("a", "x", 1)
	c.expectMessage("x")
	silent.expectClosed() // the handshake's time was over before CONNECT's
	c2 := dial(press)
	c2.connect("", "a")
	if code := c.expectClosed(); code != mqtt.SessionTakenOver {
		t.Errorf("got %v", code)
	}
}

func TestListenerCheck(t *testing.T) {
	conf := func() (*tls.Config, error) { return &tls.Config{}, nil }
	for _, tt := range []struct {
		l  Listener
		ok bool
	}{
		{Listener{Address: "127.0.0.1:1883"}, true},
		{Listener{Address: "[::1]:1883", AnonymousAs: "local"}, true},
		{Listener{Address: "localhost:1883"}, true},
		{Listener{Address: "0.0.0.0:8883", TLS: conf}, true},
		{Listener{Address: "0.0.0.0:1883"}, false},
		{Listener{Address: ":1883"}, false},
		{Listener{Address: "192.0.2.1:1883"}, false},
		{Listener{Address: "example.com:1883"}, false},
		{Listener{Address: "127.0.0.1"}, false},
		{Listener{Address: "0.0.0.0:8883", TLS: conf, AnonymousAs: "x"}, false},
	} {
		if err := tt.l.check(); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.l.Address, err)
		}
	}
}

func TestAnonymous(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	h.config.Listeners[0].AnonymousAs = "local"
	h.start()
	h.gate.SetRules(rules(t, rule(true, "local", both, "#")))
	nobody := func(r *mqtt.Connect) { r.UsernameFlag, r.PasswordFlag, r.Username, r.Password = false, false, "", nil }
	h.login(mqtt.V311, "", "a", nobody).publish("a", "x", 1)
	wrong := func(r *mqtt.Connect) { r.Password = []byte("wrong") }
	if code := h.dial(mqtt.V5).connect("local", "b", wrong).Code; code != mqtt.NotAuthorized {
		t.Errorf("a wrong password on an anonymous listener: %v", code)
	}
}

// expelling is a password for everybody but one.
type expelling struct {
	password
	who atomic.Pointer[string] // nil: nobody yet
}

func (e *expelling) Current(id access.Identity) (access.Identity, bool) {
	who := e.who.Load()
	return id, who == nil || *who != id.Name
}

// Who was removed is cut, and his will, delayed or not, is not heard.
func TestRecheck(t *testing.T) {
	h := open(t, Limits{})
	gate := &expelling{password: password{h.gate}}
	h.b.access = gate
	alice := h.login(mqtt.V5, "alice", "a")
	alice.subscribe("#", 1)
	will := func(delay uint32) func(*mqtt.Connect) {
		return func(r *mqtt.Connect) {
			durable(r)
			r.Will = &mqtt.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Retain: true, Delay: delay}
		}
	}
	bob := h.login(mqtt.V5, "bob", "b", will(0))
	h.login(mqtt.V5, "bob", "later", will(600)).nc.Close()
	h.untilFree("later")
	who := "bob"
	gate.who.Store(&who)
	h.b.Recheck()
	if code := bob.expectClosed(); code != mqtt.AdministrativeAction {
		t.Errorf("bob was told %v", code)
	}
	h.untilFree("b")
	h.b.sweep(time.Now().Add(11 * time.Minute))
	h.sentinel(alice)
}

func TestShutdown(t *testing.T) {
	h := open(t, Limits{})
	five, three := h.login(mqtt.V5, "alice", "five"), h.login(mqtt.V311, "alice", "three")
	h.dial(mqtt.V5) // never logs in
	h.stuck("stuck", 0)
	for h.b.Stats().DroppedSlow == 0 {
		five.publish("a", string(make([]byte, 64<<10)), 0)
	}
	h.close() // says if it takes too long
	if code := five.expectClosed(); code != mqtt.ServerShuttingDown {
		t.Errorf("got %v", code)
	}
	three.expectClosed()
}

// busy is when too many passwords are being checked.
type busy struct{ *access.Gate }

func (busy) Authenticate(context.Context, access.Credentials) (access.Identity, error) {
	return access.Identity{}, fmt.Errorf("%w: user alice", access.ErrBusy)
}

// A device that was not heard must come back: nobody has judged it.
func TestBusyIsNotRefused(t *testing.T) {
	h := open(t, Limits{})
	h.b.access = busy{h.gate}
	if code := h.dial(mqtt.V5).connect("alice", "a").Code; code != mqtt.ServerBusy {
		t.Errorf("MQTT 5: %v", code)
	}
	if code := h.dial(mqtt.V311).connect("alice", "a").Code; code != mqtt.ServerUnavailable {
		t.Errorf("MQTT 3.1.1: %v", code)
	}
}
