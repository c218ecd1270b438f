package northbound

import (
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
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// An authority issues certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{t: t}
	tc := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = tc.Leaf, tc.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue fills in what a template leaves open.
func (a *authority) issue(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	a.last++
	c.SerialNumber = big.NewInt(a.last)
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) server() tls.Certificate {
	return a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "cloud"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

func (a *authority) client(name string) tls.Certificate {
	return a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// write puts a certificate and its key into files.
func writePair(t testing.TB, dir, name string, c tls.Certificate) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for path, b := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// What goes wrong with a connection is told with its cure.
func TestErrorsForPeople(t *testing.T) {
	ours, other := newAuthority(t, "Our CA"), newAuthority(t, "Other CA")
	expired := ours.issue(&x509.Certificate{
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	misnamed := ours.issue(&x509.Certificate{DNSNames: []string{"cloud.example.com"}})
	client := ours.client("gw")
	foreign := other.client("gw")
	for _, tc := range []struct {
		name   string
		server *tls.Config // nil: plain TCP that answers HTTP
		client *tls.Certificate
		want   []string
	}{
		{"unknown CA", serverTLS(other.server(), ours), &client, []string{`"CN=Other CA"`, "file named by ca"}},
		{"expired", serverTLS(expired, ours), &client, []string{"is valid from", "renewed"}},
		{"other name", serverTLS(misnamed, ours), &client, []string{"is for cloud.example.com, not for 127.0.0.1"}},
		{"no certificate", serverTLS(ours.server(), ours), nil, []string{"refused our certificate", "set certificate and key"}},
		{"foreign certificate", serverTLS(ours.server(), ours), &foreign, []string{"refused our certificate", "signed by the CA that the server trusts"}},
		{"no TLS", nil, &client, []string{"does not speak TLS"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := handshakes(t, tc.server)
			cfg := testConfig()
			cfg.Servers = []string{addr}
			cfg.TLS = clientTLS(ours, tc.client)
			l, err := NewLink(cfg, newSource(t, nil))
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.visit(t.Context(), addr)
			if err == nil || !strings.HasPrefix(err.Error(), addr+": ") {
				t.Fatalf("error %v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		l, _ := NewLink(testConfig(), newSource(t, nil))
		if _, err := l.visit(t.Context(), ln.Addr().String()); err == nil || !strings.Contains(err.Error(), "nothing listens") {
			t.Errorf("error %v", err)
		}
	})
}

func serverTLS(cert tls.Certificate, clients *authority) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.pool()}
}

func clientTLS(ca *authority, cert *tls.Certificate) func(string) (*tls.Config, error) {
	return func(string) (*tls.Config, error) {
		cfg := &tls.Config{RootCAs: ca.pool()}
		if cert != nil {
			// Sent even if the server names other authorities: an operator's mistake.
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		return cfg, nil
	}
}

// handshakes answers connections with a handshake, or with HTTP, and no more.
func handshakes(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if cfg == nil {
				nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			} else if tc := tls.Server(nc, cfg); tc.Handshake() == nil {
				tc.Read(make([]byte, 1))
			}
			nc.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// writesConn counts the writes of what lies above it.
type writesConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c writesConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// Under load many messages share one write.
func TestWritesCoalesce(t *testing.T) {
	const n = 20_000
	f := newFastCloud(t, 1000)
	src := newSource(t, nil)
	msgs := make([]storequeue.Message, n)
	for i := range msgs {
		msgs[i] = storequeue.Message{Topic: "plant/press/1/temperature", Payload: make([]byte, 200)}
	}
	src.put(t, msgs...)
	cfg := testConfig()
	cfg.Servers, cfg.TLS = []string{f.addr}, f.clientTLS
	l, err := NewLink(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	l.dial = countWrites(l, &writes)
	runUntil(t, l, func() bool { return src.Acked() == n })
	if per := n / writes.Load(); per < 10 {
		t.Errorf("%d messages a write", per)
	} else {
		t.Logf("%d messages a write", per)
	}
}
