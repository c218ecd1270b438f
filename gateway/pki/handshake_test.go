package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

func TestIssuedCertificatesAreAccepted(t *testing.T) {
	h := newHouse(t)
	if _, _, err := Issue(h.dir, "press-1", ForClient, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, policy := range []Policy{Optional, Required} {
		o := shake(t, h.server(policy), h.client("press-1"))
		if o.server != nil || o.client != nil {
			t.Fatalf("policy %d: server %v, client %v", policy, o.server, o.client)
		}
		leaf := o.state.PeerCertificates[0]
		if leaf.URIs[0].String() != "urn:headgate:client:press-1" || leaf.Subject.CommonName != "press-1" {
			t.Errorf("the certificate says %v, %v", leaf.URIs, leaf.Subject)
		}
	}
	for _, policy := range []Policy{Off, Optional} {
		if o := shake(t, h.server(policy), h.client("")); o.server != nil || o.client != nil || len(o.state.PeerCertificates) > 0 {
			t.Errorf("policy %d without a certificate: server %v, client %v", policy, o.server, o.client)
		}
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "192.0.2.1", "gate.example"} {
		c := h.client("press-1")
		c.ServerName = name
		if o := shake(t, h.server(Required), c); o.client != nil {
			t.Errorf("%s: %v", name, o.client)
		}
	}
}

func TestServerRefusesClients(t *testing.T) {
	h, stranger := newHouse(t), newHouse(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	h.sign("weak", weak, nil)
	h.sign("expired", newKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	h.sign("early", newKey(t), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	h.sign("use", newKey(t), func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] })
	h.sign("nouse", newKey(t), func(c *x509.Certificate) { c.ExtKeyUsage = nil })
	stranger.sign("stranger", newKey(t), nil)
	foreign := stranger.careless("stranger")
	foreign.RootCAs = h.client("").RootCAs
	old := h.careless("expired")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	suites := h.client("")
	suites.MaxVersion = tls.VersionTLS12
	suites.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	for name, c := range map[string]struct {
		policy Policy
		client *tls.Config
		want   string
	}{
		"none under required": {Required, h.client(""), "client didn't provide a certificate"},
		"stranger":            {Required, foreign, "unknown authority"},
		"stranger, optional":  {Optional, foreign, "unknown authority"},
		"expired":             {Required, h.careless("expired"), "certificate has expired"},
		"expired, optional":   {Optional, h.careless("expired"), "certificate has expired"},
		"not yet valid":       {Required, h.careless("early"), "not yet valid"},
		"a server's":          {Required, h.careless("use"), "incompatible key usage"},
		"no key usage":        {Required, h.careless("nouse"), "not made for clients (clientAuth)"},
		"weak key":            {Required, h.careless("weak"), "the key is too weak"},
		"TLS 1.1":             {Off, old, "unsupported versions"},
		"CBC":                 {Off, suites, "no cipher suite supported"},
	} {
		o := shake(t, h.server(c.policy), c.client)
		if o.server == nil || !strings.Contains(o.server.Error(), c.want) {
			t.Errorf("%s: server says %v, want %q", name, o.server, c.want)
		}
		if o.client == nil {
			t.Errorf("%s: the client got through", name)
		}
	}
}

func TestClientRefusesServers(t *testing.T) {
	h, stranger := newHouse(t), newHouse(t)
	serve := func(house *house, name string, change func(*x509.Certificate)) *tls.Config {
		house.sign(name, newKey(t), change)
		pair, err := tls.LoadX509KeyPair(house.file(name+".crt"), house.file(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	old := serve(h, "old", nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for name, c := range map[string]struct {
		server *tls.Config
		want   string
	}{
		"right":         {serve(h, "right", nil), ""},
		"stranger":      {stranger.server(Off), "unknown authority"},
		"other name":    {serve(h, "name", func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }), "not gate.example"},
		"name in CN":    {serve(h, "cn", func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "gate.example" }), "use SANs instead"},
		"expired":       {serve(h, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "certificate has expired"},
		"not yet valid": {serve(h, "early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "not yet valid"},
		"a client's":    {serve(h, "use", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "incompatible key usage"},
		"TLS 1.1":       {old, "protocol version"},
	} {
		o := shake(t, c.server, h.client(""))
		if c.want == "" && o.client != nil || c.want != "" && (o.client == nil || !strings.Contains(o.client.Error(), c.want)) {
			t.Errorf("%s: client says %v, want %q", name, o.client, c.want)
		}
	}
}

func TestNoResumptionWithClientCertificates(t *testing.T) {
	h := newHouse(t)
	h.sign("press-1", newKey(t), nil)
	for policy, want := range map[Policy]bool{Off: true, Optional: false, Required: false} {
		server := Server(h.files(policy))
		client := h.client("press-1")
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 3 {
			c, err := server() // asked for every connection
			if err != nil {
				t.Fatal(err)
			}
			if o := shake(t, c, client); o.server != nil || o.client != nil || o.state.DidResume != (want && i > 0) {
				t.Fatalf("policy %d: server %v, client %v, resumed %v", policy, o.server, o.client, o.state.DidResume)
			}
		}
	}
}

// One configuration, as a listener has it, follows the files.
func TestRotation(t *testing.T) {
	h := newHouse(t)
	h.sign("press-1", newKey(t), nil)
	var reports []error
	files := h.files(Required)
	files.ClientCA, files.ClientCRL = h.file("clients.crt"), ""
	files.Report = func(err error) { reports = append(reports, err) }
	put(t, files.ClientCA, "CERTIFICATE", h.ca.Raw)
	source := Server(files)
	listener, err := source()
	if err != nil {
		t.Fatal(err)
	}
	serial := func() *big.Int {
		t.Helper()
		c := h.careless("press-1")
		var got *big.Int
		verify := c.VerifyConnection
		c.VerifyConnection = func(s tls.ConnectionState) error {
			got = s.PeerCertificates[0].SerialNumber
			return verify(s)
		}
		if o := shake(t, listener, c); o.server != nil || o.client != nil {
			t.Fatalf("server %v, client %v", o.server, o.client)
		}
		return got
	}
	first := serial()
	h.sign("broker", newKey(t), nil)
	second := serial()
	if first.Cmp(second) == 0 {
		t.Error("the new certificate is not used")
	}
	if err := os.WriteFile(files.Key, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if serial().Cmp(second) != 0 {
			t.Error("the last good certificate is not kept")
		}
	}
	if len(reports) != 1 || !strings.Contains(reports[0].Error(), files.Key) {
		t.Errorf("reports: %v", reports)
	}
	if _, err := source(); err != nil {
		t.Errorf("a listener that asks again does not get the last good ones: %v", err)
	}
	h.sign("broker", newKey(t), nil)
	if serial().Cmp(second) == 0 {
		t.Error("repaired files are not used")
	}
	open := shake(t, listener, h.careless("press-1"))
	put(t, files.ClientCA, "CERTIFICATE", newHouse(t).ca.Raw)
	if now, err := source(); err != nil || now.VerifyConnection(open.state) == nil {
		t.Errorf("an open session of the former CA goes on: %v", err)
	}
	if o := shake(t, listener, h.careless("press-1")); o.server == nil || !strings.Contains(o.server.Error(), "unknown authority") {
		t.Errorf("a client of the former CA: %v", o.server)
	}
}
