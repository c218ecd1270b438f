package enrol

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
)

// An estServer signs requests with an intermediate CA of its own.
type estServer struct {
	*httptest.Server
	t    *testing.T
	dir  string // its house: ca.crt vouches for the server
	ca   *x509.Certificate
	pair tls.Certificate

	mu     sync.Mutex // covers the fields below
	asked  []string   // operations, with who proved themselves
	answer http.HandlerFunc
	change func(*x509.Certificate)
}

func newESTServer(t *testing.T) *estServer {
	t.Helper()
	e := &estServer{t: t, dir: filepath.Join(t.TempDir(), "est")}
	if err := pki.Init(e.dir, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	if e.pair, err = tls.LoadX509KeyPair(filepath.Join(e.dir, "ca.crt"), filepath.Join(e.dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	e.ca = e.pair.Leaf
	cfg, err := pki.Server(pki.ServerFiles{
		Certificate: filepath.Join(e.dir, "broker.crt"), Key: filepath.Join(e.dir, "broker.key"),
		ClientCA: filepath.Join(e.dir, "ca.crt"), Policy: pki.Optional,
	})()
	if err != nil {
		t.Fatal(err)
	}
	e.Server = httptest.NewUnstartedServer(e)
	e.TLS = cfg
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *estServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	who := user
	if len(r.TLS.PeerCertificates) > 0 {
		who = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	e.mu.Lock()
	e.asked = append(e.asked, r.URL.Path+" "+who)
	answer := e.answer
	e.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case r.URL.Path == wellKnown+"/cacerts":
		e.certs(w, e.ca.Raw)
	case who == "" || user != "" && password != "secret":
		http.Error(w, "who are you?", http.StatusUnauthorized)
	default:
		body, _ := io.ReadAll(r.Body)
		der, err := base64.StdEncoding.DecodeString(string(body))
		if err != nil || r.Header.Get("Content-Type") != "application/pkcs10" {
			http.Error(w, "no request", http.StatusBadRequest)
			return
		}
		e.certs(w, e.sign(der))
	}
}

func (e *estServer) sign(csr []byte) []byte {
	req, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		e.t.Error(err)
		return nil
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: req.RawSubject, DNSNames: req.DNSNames, URIs: req.URIs,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	e.mu.Lock()
	if e.change != nil {
		e.change(c)
	}
	e.mu.Unlock()
	der, err := x509.CreateCertificate(rand.Reader, c, e.ca, req.PublicKey, e.pair.PrivateKey)
	if err != nil {
		e.t.Error(err)
	}
	return der
}

// certs answers with a certs-only message.
func (e *estServer) certs(w http.ResponseWriter, ders ...[]byte) {
	var all []byte
	for _, der := range ders {
		all = append(all, der...)
	}
	set := asn1.RawValue{Tag: asn1.TagSet, IsCompound: true}
	inner, err := asn1.Marshal(struct {
		Version int
		Digests asn1.RawValue
		Content struct{ Type asn1.ObjectIdentifier }
		Certs   asn1.RawValue
		Signers asn1.RawValue
	}{1, set, struct{ Type asn1.ObjectIdentifier }{oidData}, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: all}, set})
	if err != nil {
		e.t.Error(err)
	}
	der, err := asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{oidSignedData, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: inner}})
	if err != nil {
		e.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	text := base64.StdEncoding.EncodeToString(der)
	for len(text) > 64 { // as many servers break it
		fmt.Fprintln(w, text[:64])
		text = text[64:]
	}
	fmt.Fprintln(w, text)
}

// site is where a link's files are, with a first certificate if first is set.
func (e *estServer) site(first bool) pki.ClientFiles {
	e.t.Helper()
	dir := e.t.TempDir()
	f := pki.ClientFiles{CA: filepath.Join(e.dir, "ca.crt"), Certificate: filepath.Join(dir, "gw.crt"), Key: filepath.Join(dir, "gw.key")}
	if first {
		req, err := pki.NewRequest("gw", []string{"gw.example"})
		if err != nil {
			e.t.Fatal(err)
		}
		if err := req.WriteKey(f.Key); err != nil {
			e.t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.sign(req.DER)})
		if err := os.WriteFile(f.Certificate, text, 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	return f
}
