package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A house is a folder with a CA that signs whatever a test asks for.
type house struct {
	t   *testing.T
	dir string
	ca  *x509.Certificate
	key crypto.Signer
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "pki")}
	if err := Init(h.dir, []string{"gate.example", "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.ca, h.key, err = readCA(h.dir); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign writes NAME.crt and NAME.key, changed as change says, and returns their
// names.
func (h *house) sign(name string, key crypto.Signer, change func(*x509.Certificate)) (certFile, keyFile string) {
	h.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"gate.example"},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, h.ca, key.Public(), h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	certFile, keyFile = h.file(name+".crt"), h.file(name+".key")
	put(h.t, certFile, "CERTIFICATE", der)
	put(h.t, keyFile, "PRIVATE KEY", pkcs8)
	return certFile, keyFile
}

// put replaces file by one PEM block, as rotation does.
func put(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// files are the broker's under policy, as init names them.
func (h *house) files(policy Policy) ServerFiles {
	return ServerFiles{
		Certificate: h.file(BrokerCertificate), Key: h.file(BrokerKey), ClientCA: h.file(CACertificate),
		ClientCRL: h.file(RevocationList), Policy: policy,
	}
}

// server is the broker's configuration of the house under policy.
func (h *house) server(policy Policy) *tls.Config {
	h.t.Helper()
	c, err := Server(h.files(policy))()
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// client trusts the house and shows the named certificate, none if empty.
func (h *house) client(name string) *tls.Config {
	h.t.Helper()
	f := ClientFiles{CA: h.file(CACertificate)}
	if name != "" {
		f.Certificate, f.Key = h.file(name+".crt"), h.file(name+".key")
	}
	c, err := Client(f)("gate.example")
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// careless is client without the checks that our own side makes first, to see
// what the other side says.
func (h *house) careless(name string) *tls.Config {
	h.t.Helper()
	pair, err := tls.LoadX509KeyPair(h.file(name+".crt"), h.file(name+".key"))
	if err != nil {
		h.t.Fatal(err)
	}
	c := h.client("")
	// Shown whatever CAs the server asks for.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return c
}

// connection is a TCP connection to ourselves.
func connection(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

type outcome struct {
	server, client error
	state          tls.ConnectionState // of the server
}

// shake makes a handshake and passes one byte from the server to the client,
// without which a client under TLS 1.3 does not hear of a refusal.
func shake(t *testing.T, server, client *tls.Config) outcome {
	t.Helper()
	a, b := connection(t)
	deadline := time.Now().Add(20 * time.Second)
	if err := a.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if err := b.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	var o outcome
	done := make(chan struct{})
	go func() { // ends with the handshake, or at the deadline
		defer close(done)
		s := tls.Server(a, server)
		if o.server = s.HandshakeContext(t.Context()); o.server == nil {
			o.state = s.ConnectionState()
			_, o.server = s.Write([]byte{1})
		}
		_ = a.Close()
	}()
	c := tls.Client(b, client)
	if o.client = c.HandshakeContext(t.Context()); o.client == nil {
		_, o.client = c.Read(make([]byte, 1))
	}
	_ = b.Close()
	<-done
	return o
}
