package gateway_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// An issuer is a certificate with its key, made as a test asks for.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue signs with i, or with the new key itself if i is nil. The template is a
// leaf for both ends at 127.0.0.1 until change has its say; key nil makes one.
func (i *issuer) issue(t testing.TB, name string, key crypto.Signer, change func(*x509.Certificate)) *issuer {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"cloud.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if i == nil {
		i = &issuer{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{parsed, key}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	c.ExtKeyUsage, c.IPAddresses, c.DNSNames = nil, nil, nil
}

// shown is a server's side of a handshake: its certificate, then those that
// vouch for it.
func (i *issuer) shown(chain ...*issuer) *tls.Config {
	pair := tls.Certificate{Certificate: [][]byte{i.cert.Raw}, PrivateKey: i.key}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.cert.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (i *issuer) pem() string { return block("CERTIFICATE", i.cert.Raw) }

func (i *issuer) keyPEM(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

// A lab has a CA that links trust, and servers that are wrong.
type lab struct {
	t   testing.TB
	dir string
	ca  *issuer
	own *issuer // a good certificate for a link
}

func newLab(t testing.TB) *lab {
	l := &lab{t: t, dir: t.TempDir()}
	var nobody *issuer
	l.ca = nobody.issue(t, "Cloud CA", nil, authority)
	l.own = l.ca.issue(t, "gw", nil, nil)
	return l
}

// leaf is a server's certificate of the lab's CA.
func (l *lab) leaf(change func(*x509.Certificate)) *issuer {
	return l.ca.issue(l.t, "cloud", nil, change)
}

// file writes a file of the lab and returns its path.
func (l *lab) file(name, text string, mode os.FileMode) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// listen hands each connection to serve until the test ends.
func (l *lab) listen(serve func(net.Conn)) string {
	l.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	var conns sync.WaitGroup
	var mu sync.Mutex // covers open
	open := map[net.Conn]bool{}
	conns.Go(func() { // ends with the listener
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			conns.Go(func() { // ends with the connection
				serve(nc)
				nc.Close()
				mu.Lock()
				delete(open, nc)
				mu.Unlock()
			})
		}
	})
	l.t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for nc := range open {
			nc.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return ln.Addr().String()
}

// tls shakes hands and then says nothing.
func (l *lab) tls(cfg *tls.Config) string {
	return l.listen(func(nc net.Conn) {
		if tc := tls.Server(nc, cfg); tc.Handshake() == nil {
			tc.Read(make([]byte, 1))
			tc.Read(make([]byte, 1<<16))
		}
	})
}

// says reads a ClientHello and answers with that.
func (l *lab) says(answer string) string {
	return l.listen(func(nc net.Conn) {
		bufio.NewReader(nc).ReadByte()
		nc.Write([]byte(answer))
	})
}

// alerts answers a ClientHello with a fatal alert.
func (l *lab) alerts(code byte) string { return l.says(string([]byte{21, 3, 3, 0, 2, 2, code})) }

// A wrong is one link that cannot come up, and what its error has to say: the
// fault, and the cure.
type wrong struct {
	name        string
	server      string            // host:port; empty: a good one
	files       map[string]string // crt, key, ca, crl: instead of the good ones
	keyMode     os.FileMode       // 0: 0600
	more        string            // YAML
	fault, cure string
}

// config writes a link's files and gives its YAML.
func (l *lab) config(w *wrong, good string) string {
	text := map[string]string{"crt": l.own.pem(), "key": l.own.keyPEM(l.t), "ca": l.ca.pem()}
	for name, t := range w.files {
		text[name] = t
	}
	mode := w.keyMode
	if mode == 0 {
		mode = 0o600
	}
	path := map[string]string{}
	for name, t := range text {
		m := os.FileMode(0o644)
		if name == "key" {
			m = mode
		}
		path[name] = filepath.Join(l.dir, w.name, name)
		if t != gone {
			l.file(filepath.Join(w.name, name), t, m)
		}
	}
	more := w.more
	if path["crl"] != "" {
		more += ", crl: " + path["crl"]
	}
	server := w.server
	if server == "" {
		server = good
	}
	return fmt.Sprintf("  - {name: %s, client_id: %[1]s, servers: [\"mqtts://%s\"], ca: %s, certificate: %s, key: %s, send: [{topics: [\"plant/#\"]}]%s}\n",
		w.name, server, path["ca"], path["crt"], path["key"], more)
}

// gone is a file that is not there.
const gone = "gone"

// Every wrong certificate and server is refused with fault and cure, and the
// house goes on: it takes and acknowledges messages all the while.
func TestWrongCertificatesAndServers(t *testing.T) {
	l := newLab(t)
	good := l.tls(l.leaf(nil).shown())
	var all []wrong
	for _, more := range [][]wrong{l.wrongServers(), l.wrongChains(), l.wrongProtocols(), l.alertsOfServers(), l.wrongFiles(), l.wrongPairs()} {
		all = append(all, more...)
	}
	links := ""
	for i := range all {
		links += l.config(&all[i], good)
	}
	s := &site{dir: t.TempDir(), plain: freePort(t)}
	s.config = filepath.Join(s.dir, "headgate.yaml")
	text := fmt.Sprintf(`version: 1
gateway: {id: site-1, data: data}
admin: {address: ""}
broker: {listeners: [{address: "127.0.0.1:%d", plaintext: true, anonymous_as: local}]}
access: {rules: [{allow: [publish, subscribe], who: "*", topics: ["plant/#"]}]}
northbound:
`, s.plain)
	if err := os.WriteFile(s.config, []byte(text+links), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, s.config)
	stop := publishAllTheWhile(t, s.plain)
	waitWithin(t, time.Minute, func() bool { // the servers that hang take 20 s
		for _, link := range s.status(t, g).Links {
			if link.Error == "" {
				return false
			}
		}
		return true
	})
	acked := stop()
	for i, link := range s.status(t, g).Links {
		w := all[i]
		if link.Connected || !strings.Contains(link.Error, w.fault) || !strings.Contains(link.Error, w.cure) {
			t.Errorf("%s: connected %v, error %q; want fault %q and cure %q", w.name, link.Connected, link.Error, w.fault, w.cure)
		}
	}
	t.Logf("%d wrong certificates and servers refused; %d messages acknowledged meanwhile", len(all), acked)
	if acked < 100 {
		t.Errorf("only %d messages were acknowledged", acked)
	}
}

// publishAllTheWhile publishes one message after the other, each acknowledged
// within five seconds, until stop, which says how many they were.
func publishAllTheWhile(t *testing.T, port int) (stop func() int) {
	t.Helper()
	c := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", port), ClientID: "press"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() { // ends with stop
		n := 0
		for ; ctx.Err() == nil; n++ {
			patience, done := context.WithTimeout(t.Context(), 5*time.Second)
			err := c.Publish(patience, client.Message{Topic: "plant/press/x", Payload: []byte("1"), QoS: 1})
			done()
			if err != nil {
				t.Errorf("message %d: %v", n, err)
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		done <- n
	}()
	return func() int { cancel(); return <-done }
}
