package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestInitAndIssue(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	h := newHouse(t)
	if _, _, err := Issue(h.dir, "press-1", ForClient, Options{Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{
		".": 0o700, CAKey: 0o600, BrokerKey: 0o600, "press-1.key": 0o600, issuedRecord: 0o600, RevocationList: 0o644, CACertificate: 0o644, BrokerCertificate: 0o644,
	} {
		info, err := os.Stat(h.file(name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil || len(entries) != 8 {
		t.Errorf("%v %v: something is left over", entries, err)
	}
	if !h.ca.IsCA || h.ca.MaxPathLen != 0 || !h.ca.MaxPathLenZero || h.ca.NotAfter.Before(time.Now().AddDate(9, 11, 0)) {
		t.Error("the CA is not one for ten years that signs no other CA")
	}
	broker, err := Inspect(h.file(BrokerCertificate))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(broker.Names, " "); got != "localhost gate.example 127.0.0.1 ::1 192.0.2.1" {
		t.Errorf("names %s", got)
	}
	if age := time.Since(broker.NotBefore); age < time.Hour || age > 2*time.Hour || broker.NotAfter.After(time.Now().AddDate(2, 0, 0)) {
		t.Errorf("valid from %v to %v", broker.NotBefore, broker.NotAfter)
	}
	press, err := Inspect(h.file("press-1.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(press.Serial) != 32 || len(press.Fingerprint) != 95 || press.Key != "ECDSA P-256" || press.Use[0] != "client" || press.Issuer != h.ca.Subject.String() {
		t.Errorf("Inspect = %+v", press)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	h := newHouse(t)
	if err := Init(h.dir, nil); err == nil || !strings.Contains(err.Error(), "ca.crt is there already and is not overwritten: move it away") {
		t.Errorf("second Init: %v", err)
	}
	before, err := os.ReadFile(h.file(CAKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca", "broker"} {
		if _, _, err := Issue(h.dir, name, ForClient, Options{}); err == nil || !strings.Contains(err.Error(), "there already") {
			t.Errorf("Issue %s: %v", name, err)
		}
	}
	if err := writeNew(h.file(CAKey), []byte("x"), 0o600); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("writeNew: %v", err)
	}
	after, err := os.ReadFile(h.file(CAKey))
	if err != nil || string(before) != string(after) {
		t.Errorf("the CA's key changed: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"", "../x", "a/b", "link:cloud", "@r", "*", "gateway", "-a", ".a", "ä", "a b", strings.Repeat("a", 65)} {
		if _, _, err := Issue(h.dir, name, ForClient, Options{}); err == nil {
			t.Errorf("%q was issued", name)
		}
	}
	for _, o := range []Options{{Names: []string{"host"}}, {Lifetime: -1}, {Lifetime: serverLifetime + 1}} {
		if _, _, err := Issue(h.dir, "x", ForClient, o); err == nil {
			t.Errorf("%+v was issued", o)
		}
	}
	for _, name := range []string{"a b", "", "*.example.com", "-x", "x..y", "http://x", "192.0.2.1/24", strings.Repeat("a", 64)} {
		if _, _, err := Issue(h.dir, "x", ForServer, Options{Names: []string{name}}); err == nil || !strings.Contains(err.Error(), "neither a host name") {
			t.Errorf("name %q: %v", name, err)
		}
		if err := Init(filepath.Join(h.dir, "new"), []string{name}); err == nil {
			t.Errorf("Init with name %q", name)
		}
	}
	if _, err := os.Stat(h.file("new")); err == nil {
		t.Error("a refused Init left a folder")
	}
}

func TestKeysOfAllKinds(t *testing.T) {
	h := newHouse(t)
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h.sign("pkcs8-rsa", strong, nil)
	h.sign("pkcs8-ed25519", ed, nil)
	h.sign("sec1", ec, nil)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	put(t, h.file("sec1.key"), "EC PRIVATE KEY", sec1)
	h.sign("pkcs1", strong, nil)
	put(t, h.file("pkcs1.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(strong))
	for _, name := range []string{"pkcs8-rsa", "pkcs8-ed25519", "sec1", "pkcs1"} {
		if o := shake(t, h.server(Required), h.client(name)); o.server != nil || o.client != nil {
			t.Errorf("%s: server %v, client %v", name, o.server, o.client)
		}
	}
	if err := os.Chmod(h.file("sec1.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	h.client("sec1") // root:headgate 0640 is fine
}

// faultyFiles writes files of every kind that must not be used.
func faultyFiles(t *testing.T) *house {
	t.Helper()
	h := newHouse(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	past := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	h.sign("good", newKey(t), nil)
	h.sign("other", newKey(t), nil)
	h.sign("weak", weak, nil)
	h.sign("expired", newKey(t), func(c *x509.Certificate) { c.NotBefore, c.NotAfter = past.Add(-time.Hour), past })
	h.sign("nobody", newKey(t), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })
	h.sign("oldca", newKey(t), func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid = true, true
		c.NotBefore, c.NotAfter = past.Add(-time.Hour), past
	})
	good, err := os.ReadFile(h.file("good.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty": "", "text": "hello", "der": "\x30\x82\x01\x02",
		"damaged": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"badkey":  "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"locked":  "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"huge":    strings.Repeat("x", maxFile+1),
		"cut":     string(good) + string(good[:100]),
	} {
		if err := os.WriteFile(h.file(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(h.file("other.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// Both sides read the same files; each fault is named by each.
func TestFaultsInFiles(t *testing.T) {
	h := faultyFiles(t)
	for _, c := range []struct{ cert, key, ca, file, want string }{
		{"missing", "good.key", "ca.crt", "missing", "no such file"},
		{"good.crt", "missing", "ca.crt", "missing", "no such file"},
		{"good.crt", "good.key", "missing", "missing", "no such file"},
		{"empty", "good.key", "ca.crt", "empty", "is empty"},
		{"der", "good.key", "ca.crt", "der", "no PEM block"},
		{"good.crt", "text", "ca.crt", "text", "no PEM block"},
		{"good.crt", "good.key", "empty", "empty", "is empty"},
		{"damaged", "good.key", "ca.crt", "damaged", "is damaged"},
		{"cut", "good.key", "ca.crt", "cut", "is damaged after certificate 1"},
		{"good.crt", "badkey", "ca.crt", "badkey", "is damaged"},
		{"good.crt", "good.key", "damaged", "damaged", "is damaged"},
		{"good.crt", "locked", "ca.crt", "locked", "has a passphrase"},
		{"huge", "good.key", "ca.crt", "huge", "over 1048576 bytes"},
		{".", "good.key", "ca.crt", "pki", "not a regular file"},
		{"good.key", "good.crt", "ca.crt", "good.key", "holds a PRIVATE KEY"},
		{"good.crt", "good.crt", "ca.crt", "good.crt", "certificate and key swapped"},
		{"good.crt", "ca.key", "ca.crt", "ca.key", "does not match certificate"},
		{"other.crt", "other.key", "ca.crt", "other.key", "open to others (mode 0644): run chmod 600"},
		{"weak.crt", "weak.key", "ca.crt", "weak.crt", "the key is too weak"},
		{"expired.crt", "expired.key", "ca.crt", "expired.crt", "expired on 2026-01-02 03:04 UTC: put a new one"},
		{"nobody.crt", "nobody.key", "ca.crt", "nobody.crt", "not made for"},
		{"good.crt", "good.key", "good.crt", "good.crt", "is not a CA"},
		{"good.crt", "good.key", "oldca.crt", "oldca.crt", "expired on 2026-01-02"},
	} {
		server := Server(ServerFiles{Certificate: h.file(c.cert), Key: h.file(c.key), ClientCA: h.file(c.ca), Policy: Required})
		client := Client(ClientFiles{CA: h.file(c.ca), Certificate: h.file(c.cert), Key: h.file(c.key)})
		for range 20 { // the answer does not depend on the try
			_, err1 := server()
			_, err2 := client("gate.example")
			for side, err := range map[string]error{"server": err1, "client": err2} {
				if err == nil || !strings.Contains(err.Error(), c.file) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s with %v: %v", side, c, err)
				}
			}
		}
	}
}

func TestClocks(t *testing.T) {
	h := newHouse(t)
	cert, key := h.sign("early", newKey(t), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	_, err := Client(ClientFiles{CA: h.file(CACertificate), Certificate: cert, Key: key})("x")
	if err == nil || !strings.Contains(err.Error(), "early.crt is not valid before") || !strings.Contains(err.Error(), "the clock says") {
		t.Errorf("a link whose certificate is not valid yet: %v", err)
	}
	if _, err := Server(ServerFiles{Certificate: cert, Key: key})(); err != nil {
		t.Errorf("a listener on a clock that is behind: %v", err)
	}
}

func TestWhatMustBeNamed(t *testing.T) {
	h := newHouse(t)
	for want, f := range map[string]ClientFiles{
		"no CA is named":              {},
		"certificate and key go toge": {CA: h.file(CACertificate), Key: h.file(BrokerKey)},
	} {
		if _, err := Client(f)("x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if _, err := Client(ClientFiles{CA: h.file(CACertificate)})(""); err == nil {
		t.Error("a link without a server name was made")
	}
	f := ServerFiles{Certificate: h.file(BrokerCertificate), Key: h.file(BrokerKey), Policy: Optional}
	if _, err := Server(f)(); err == nil || !strings.Contains(err.Error(), "no client CA is named") {
		t.Errorf("client certificates without a CA: %v", err)
	}
	if _, err := Inspect(h.file(BrokerKey)); err == nil {
		t.Error("Inspect read a key")
	}
}
