package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

// shows is the certificate that a link would show.
func shows(t *testing.T, c *tls.Config) []byte {
	t.Helper()
	pair, err := c.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.Raw
}

// A bad new pair is refused aloud, once, and the old one goes on until it ends.
func TestStagedCheck(t *testing.T) {
	h, stranger := newHouse(t), newHouse(t)
	long := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Minute) }
	cert, key := h.sign("link", newKey(t), long)
	now := time.Now()
	var reports []string
	c := NewCredentials(ClientFiles{
		CA: h.file(CACertificate), Certificate: cert, Key: key, Now: func() time.Time { return now },
		Report: func(err error) { reports = append(reports, err.Error()) },
	})
	connect := func() []byte {
		t.Helper()
		cfg, err := c.Config("gate.example")
		if err != nil {
			t.Fatal(err)
		}
		return shows(t, cfg)
	}
	first := connect()
	for range 3 {
		h.sign("link", newKey(t), func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
		for range 3 {
			if !bytes.Equal(connect(), first) {
				t.Fatal("the bad pair is used")
			}
		}
		if c.Changed() != Unchanged {
			t.Error("a bad pair is worth a new connection")
		}
	}
	if len(reports) != 1 || !strings.Contains(reports[0], "link.crt expired on") {
		t.Errorf("reports: %q", reports)
	}
	h.sign("link", newKey(t), long)
	if c.Changed() != Renewed {
		t.Error("a good new pair is not seen")
	}
	second := connect()
	if bytes.Equal(first, second) || c.Changed() != Unchanged {
		t.Error("the good new pair is not used")
	}
	stranger.sign("link", newKey(t), nil)
	put(t, h.file(CACertificate), "CERTIFICATE", stranger.ca.Raw)
	if c.Changed() != Ended {
		t.Error("a CA that was taken out does not end the connection")
	}
	put(t, h.file("link.crt"), "CERTIFICATE", h.ca.Raw)
	now = now.Add(2 * time.Hour)
	if _, err := c.Config("gate.example"); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("the old pair is used after its end: %v", err)
	}
}

func TestServerNameAndALPN(t *testing.T) {
	h := newHouse(t)
	cert, key := h.sign("link", newKey(t), nil)
	var verified int
	cfg, err := Client(ClientFiles{
		CA: h.file(CACertificate), Certificate: cert, Key: key, ServerName: "gate.example", ALPN: []string{"mqtt"},
		Verified: func(chain []*x509.Certificate) { verified = len(chain) },
	})("192.0.2.77")
	if err != nil {
		t.Fatal(err)
	}
	server := h.server(Required)
	server.NextProtos = []string{"http/1.1", "mqtt"}
	o := shake(t, server, cfg)
	if o.server != nil || o.client != nil || o.state.ServerName != "gate.example" || o.state.NegotiatedProtocol != "mqtt" || verified != 2 {
		t.Errorf("server %v, client %v, SNI %q, ALPN %q, verified %d", o.server, o.client, o.state.ServerName, o.state.NegotiatedProtocol, verified)
	}
}

// A listener judges clients by the clock that never goes back.
func TestListenerByTheClock(t *testing.T) {
	h := newHouse(t)
	h.sign("press-1", newKey(t), nil)
	files := h.files(Required)
	files.Now = func() time.Time { return time.Now().Add(90 * time.Minute) }
	listener, err := Server(files)()
	if err != nil {
		t.Fatal(err)
	}
	if o := shake(t, listener, h.careless("press-1")); o.server == nil || !strings.Contains(o.server.Error(), "expired") {
		t.Errorf("server says %v", o.server)
	}
}
