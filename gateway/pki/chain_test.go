package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"
)

// An authority signs what a test asks for. Nil signs itself.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (a *authority) sign(t *testing.T, name string, change func(*x509.Certificate)) *authority {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(c)
	}
	key := newKey(t)
	if a == nil {
		a = &authority{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{parsed, key}
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
}

func isClient(c *x509.Certificate) {
	c.ExtKeyUsage, c.DNSNames = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []string{"press-1.example"}
}

// shown is what a client shows: its own certificate, then those that vouch.
func (a *authority) shown(chain ...*authority) *tls.Certificate {
	pair := &tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.cert.Raw)
	}
	return pair
}

func TestChains(t *testing.T) {
	h := newHouse(t)
	var nobody *authority
	root := nobody.sign(t, "root", isCA)
	inter := root.sign(t, "intermediate", isCA)
	lower := inter.sign(t, "lower", isCA)
	press := inter.sign(t, "press-1", isClient)
	short := nobody.sign(t, "short", func(c *x509.Certificate) { isCA(c); c.MaxPathLenZero = true })
	beyond := short.sign(t, "beyond", isCA)
	narrow := root.sign(t, "narrow", func(c *x509.Certificate) {
		isCA(c)
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"other.example"}
	})
	tenant := root.sign(t, "tenant", isClient) // a client that plays CA
	foreign := nobody.sign(t, "root", isCA)    // of the same name
	sha1 := root.sign(t, "old", func(c *x509.Certificate) { isClient(c); c.SignatureAlgorithm = x509.ECDSAWithSHA1 })
	own := nobody.sign(t, "self", isClient)
	for name, c := range map[string]struct {
		shown *tls.Certificate
		want  string // of the refusal; empty: accepted
	}{
		"root, client":               {root.sign(t, "direct", isClient).shown(), ""},
		"root, intermediate, client": {press.shown(inter), ""},
		"the root is shown too":      {press.shown(inter, root), ""},
		"intermediate missing":       {press.shown(), "unknown authority"},
		"four":                       {lower.sign(t, "deep", isClient).shown(lower, inter), "at most 3 are allowed"},
		"path length":                {beyond.sign(t, "press-1", isClient).shown(beyond), "too many intermediates"},
		"name constraint":            {narrow.sign(t, "press-1", isClient).shown(narrow), "not permitted by any constraint"},
		"signed by a client":         {tenant.sign(t, "press-1", isClient).shown(tenant), "unknown authority"},
		"another root's, same name":  {foreign.sign(t, "press-1", isClient).shown(), "unknown authority"},
		"SHA-1":                      {sha1.shown(), "insecure algorithm"},
		"signed by itself":           {own.shown(), "unknown authority"},
	} {
		put(t, h.file("roots.crt"), "CERTIFICATE", root.cert.Raw)
		if name == "path length" {
			put(t, h.file("roots.crt"), "CERTIFICATE", short.cert.Raw)
		}
		f := h.files(Required)
		f.ClientCA, f.ClientCRL = h.file("roots.crt"), ""
		listener, err := Server(f)()
		if err != nil {
			t.Fatal(err)
		}
		client := h.client("")
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.shown, nil }
		err = shake(t, listener, client).server
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
