package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
)

func TestAlarmOf(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		life, left time.Duration
		want       string
	}{
		{365 * day, 31 * day, ""},
		{365 * day, 30*day - 1, "ends within 30 days"},
		{365 * day, 14*day + 1, "ends within 30 days"},
		{365 * day, 14*day - 1, "ends within 14 days"},
		{365 * day, 7*day - 1, "ends within 7 days"},
		{365 * day, day - 1, "ends within a day"},
		{365 * day, -1, "has ended"},
		{90 * day, 30*day - 1, "ends within 30 days"},
		{60 * day, 20*day - 1, ""},
		{60 * day, 14*day - 1, "ends within 14 days"},
		{7 * day, 2 * day, ""},
		{7 * day, day - 1, "ends within a day"},
		{day, time.Hour, ""},
		{day, -1, "has ended"},
	} {
		if got := alarmOf(now.Add(tc.left-tc.life), now.Add(tc.left), now); got != tc.want {
			t.Errorf("%v of %v left: %q, want %q", tc.left, tc.life, got, tc.want)
		}
	}
}

// certificateFile holds one self-signed CA a year old for each end.
func certificateFile(t *testing.T, path string, ends ...time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for i, end := range ends {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: end.AddDate(-1, 0, 0), NotAfter: end,
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Alarms are told when they change, also across lives: on the topic, in the
// log, in status and by check.
func TestCertificateAlarms(t *testing.T) {
	dir := t.TempDir()
	cfg := load(t, dir, self1+`northbound:
  - {name: cloud, servers: ["mqtts://localhost:1"], ca: ca.crt, certificate: gw.crt, key: gw.key, send: [{topics: ["hg/#"]}]}
access: {rules: [{allow: subscribe, who: "link:cloud", topics: ["hg/#"]}]}
`)
	now := time.Now()
	told := 0
	look := func(g *Gateway, want string) {
		t.Helper()
		g.lookAtCertificates(context.Background())
		msgs, err := g.queue.Stats(), error(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(msgs.Last) - told; (want != "") != (got == 1) || got > 1 {
			t.Errorf("%d announcements, want %q", got, want)
		}
		told = int(msgs.Last)
		if want != "" && !strings.Contains(g.certs.told, want) {
			t.Errorf("told %s, want %s", g.certs.told, want)
		}
	}
	reopen := func() *Gateway {
		g, _ := open(t, cfg)
		if b, err := os.ReadFile(g.alarmPath()); err == nil {
			g.certs.told = string(b)
		}
		return g
	}
	certificateFile(t, filepath.Join(dir, "gw.crt"), now.AddDate(1, 0, 0))
	certificateFile(t, filepath.Join(dir, "ca.crt"), now.Add(-time.Hour), now.AddDate(0, 6, 0)) // an old one is no alarm
	g := reopen()
	look(g, "")
	certificateFile(t, filepath.Join(dir, "gw.crt"), now.Add(13*day))
	if w := CertificateWarnings(cfg, now); len(w) != 1 || !strings.Contains(w[0], "ends within 14 days") || !strings.Contains(w[0], "headgate cert renew --link cloud") {
		t.Errorf("warnings %q", w)
	}
	look(g, `"alarm":"ends within 14 days"`)
	look(g, "")
	if st := g.Status().Certificates; len(st) != 2 || st[0].Alarm != "ends within 14 days" || st[0].Use != "link" || st[1].Alarm != "" {
		t.Errorf("status %+v", st)
	}
	g.Close()
	g = reopen()
	look(g, "") // told in the former life
	certificateFile(t, filepath.Join(dir, "gw.crt"), now.Add(-time.Minute))
	look(g, `"alarm":"has ended"`)
	g.Close()
	certificateFile(t, filepath.Join(dir, "gw.crt"), now.AddDate(1, 0, 0))
	g = reopen()
	look(g, `{"certificates":[]}`)
	look(g, "")
}

// A machine whose clock is behind what this gateway has seen judges nobody by
// that clock, on no side.
func TestClockBehindAtBoot(t *testing.T) {
	dir := t.TempDir()
	house := filepath.Join(dir, "pki")
	if err := pki.Init(house, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := pki.Issue(house, "gw", pki.ForClient, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	cfg := load(t, dir, self1+`broker: {listeners: [{address: "127.0.0.1:8883", certificate: pki/broker.crt, key: pki/broker.key, client_ca: pki/ca.crt, client_certificate: required}]}
northbound:
  - {name: cloud, servers: ["mqtts://localhost:1"], ca: pki/ca.crt, certificate: pki/gw.crt, key: pki/gw.key, send: [{topics: ["hg/#"]}]}
access: {rules: [{allow: subscribe, who: "link:cloud", topics: ["hg/#"]}]}
`)
	g, _ := open(t, cfg)
	if _, err := g.links[0].tls.Config("localhost"); err != nil {
		t.Fatal(err)
	}
	g.Close()
	seen := time.Now().AddDate(1, 1, 0).UTC().Truncate(time.Second)
	if err := os.WriteFile(filepath.Join(dir, "data", clockFile), []byte(seen.Format(time.RFC3339)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g, log := open(t, cfg)
	if _, err := g.links[0].tls.Config("localhost"); err == nil || !strings.Contains(err.Error(), "gw.crt expired on") {
		t.Errorf("the link: %v", err)
	}
	listener, err := g.tls[0]()
	if err != nil || !listener.Time().Equal(seen) {
		t.Errorf("the listener judges clients by %v, want %v: %v", listener.Time(), seen, err)
	}
	if !strings.Contains(log.String(), "the clock is wrong") {
		t.Errorf("the log says\n%s", log)
	}
	if st := expiries(cfg, g.clock.Now()); st[0].Alarm != "has ended" {
		t.Errorf("no alarm: %+v", st[0])
	}
}
