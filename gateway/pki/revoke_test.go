package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// issue makes certificates for clients, whose own checks are then left out.
func (h *house) issue(names ...string) {
	h.t.Helper()
	for _, name := range names {
		if _, _, err := Issue(h.dir, name, ForClient, Options{}); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) revoke(name string) []string {
	h.t.Helper()
	serials, err := SerialsOf(h.dir, name)
	if err != nil {
		h.t.Fatal(err)
	}
	added, err := Revoke(h.dir, serials)
	if err != nil {
		h.t.Fatal(err)
	}
	return added
}

// accepts says whether the listener lets the named client in.
func (h *house) accepts(listener *tls.Config, name string) error {
	return shake(h.t, listener, h.careless(name)).server
}

func TestRevoke(t *testing.T) {
	h := newHouse(t)
	h.issue("press-1", "press-2")
	listener := h.server(Required)
	client := h.careless("press-1")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1) // a ticket must not bring it back
	before := shake(t, listener, client)
	if before.server != nil {
		t.Fatal(before.server)
	}
	if added := h.revoke("press-1"); len(added) != 1 {
		t.Fatalf("added %v", added)
	}
	if err := shake(t, listener, client).server; err == nil || !strings.Contains(err.Error(), "was revoked by CN=Headgate local CA") {
		t.Errorf("a revoked client: %v", err)
	}
	if err := h.accepts(listener, "press-2"); err != nil {
		t.Errorf("another client: %v", err)
	}
	if newest, err := listener.GetConfigForClient(nil); err != nil || newest.VerifyConnection(before.state) == nil {
		t.Errorf("a session that was open keeps its certificate's word: %v", err)
	}
	if added := h.revoke("press-1"); len(added) != 0 {
		t.Errorf("revoked twice: %v", added)
	}
	if _, err := Revoke(h.dir, []string{"no"}); err == nil || !strings.Contains(err.Error(), "not a serial number") {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := SerialsOf(h.dir, "press-3"); err == nil {
		t.Error("somebody who never had a certificate has one")
	}
	if _, err := SerialOf(newHouse(t).dir, h.file("press-2.crt")); err == nil || !strings.Contains(err.Error(), "client_denylist") {
		t.Errorf("another house's certificate: %v", err)
	}
}

func TestRevokeAtOnce(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if _, err := Revoke(h.dir, []string{big.NewInt(int64(1000 + i)).Text(16)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	lists, err := readCRLs(h.file(RevocationList), []*x509.Certificate{h.ca})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(lists[0].RevokedCertificateEntries); n != 16 || lists[0].Number.Int64() != 17 {
		t.Errorf("%d certificates on list %v", n, lists[0].Number)
	}
}

// crl writes a list of the house, as change says, and returns its bytes.
func (h *house) crl(name string, change func(*x509.RevocationList), serials ...*big.Int) []byte {
	h.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now()})
	}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, h.ca, h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	put(h.t, h.file(name), crlBlock, der)
	return der
}

func (h *house) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.file(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) leaf(name string) *x509.Certificate {
	h.t.Helper()
	list, err := readCertificates(h.file(name + ".crt"))
	if err != nil {
		h.t.Fatal(err)
	}
	return list[0]
}

func TestListsOfOtherHouses(t *testing.T) {
	h := newHouse(t)
	h.issue("bad", "good")
	bad := h.leaf("bad")
	h.write("der.crl", string(h.crl("pem.crl", nil, bad.SerialNumber)))
	h.crl("old.crl", func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Minute) }, bad.SerialNumber)
	h.crl("partial.crl", func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
	}, bad.SerialNumber)
	h.write("serial.deny", "# stolen\n\n"+strings.ToUpper(bad.SerialNumber.Text(16))+"  # press 1\r\n")
	info, err := Inspect(h.file("bad.crt"))
	if err != nil {
		t.Fatal(err)
	}
	digest := info.KeyDigest
	h.write("key.deny", digest[:2]+":"+digest[2:]+"\n")
	other := newHouse(t)
	other.dir = h.dir
	other.crl("other.crl", nil)
	for _, c := range []struct{ crl, deny, refusal string }{
		{"pem.crl", "", "was revoked"},
		{"der.crl", "", "was revoked"},
		{"old.crl", "", "was revoked"},
		{"partial.crl", "", "was revoked"},
		{"", "serial.deny", "is on the denylist"},
		{"", "key.deny", "is on the denylist"},
		{"pem.crl", "key.deny", "is on the denylist"},
	} {
		var warned []error
		f := h.files(Optional)
		f.ClientCRL, f.ClientDenylist = "", ""
		if c.crl != "" {
			f.ClientCRL = h.file(c.crl)
		}
		if c.deny != "" {
			f.ClientDenylist = h.file(c.deny)
		}
		f.Report = func(err error) { warned = append(warned, err) }
		listener, err := Server(f)()
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		if err := h.accepts(listener, "bad"); err == nil || !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%v: a revoked client: %v", c, err)
		}
		if err := h.accepts(listener, "good"); err != nil {
			t.Errorf("%v: another client: %v", c, err)
		}
		if late := c.crl == "old.crl"; late != (len(warned) == 1) || late && !strings.Contains(warned[0].Error(), "get the new list") {
			t.Errorf("%v: warned %v", c, warned)
		}
	}
}

// A house with two CAs and the list of one knows nothing of the other's clients.
func TestNoListOfThatCA(t *testing.T) {
	h, second := newHouse(t), newHouse(t)
	second.issue("stray")
	var both []byte
	for _, house := range []*house{h, second} {
		both = append(both, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: house.ca.Raw})...)
	}
	h.write("both.crt", string(both))
	f := h.files(Required)
	f.ClientCA = h.file("both.crt")
	listener, err := Server(f)()
	if err != nil {
		t.Fatal(err)
	}
	c := second.careless("stray")
	c.RootCAs = h.client("").RootCAs
	if err := shake(t, listener, c).server; err == nil || !strings.Contains(err.Error(), "no revocation list of") {
		t.Errorf("got %v", err)
	}
}

// unusableLists writes lists of every kind that must not be used.
func unusableLists(t *testing.T) *house {
	t.Helper()
	h := newHouse(t)
	h.issue("press-1")
	h.crl("delta.crl", func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
	})
	h.crl("indirect.crl", func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: time.Now(),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}}
	})
	other := newHouse(t)
	other.dir = h.dir
	other.crl("other.crl", nil)
	der := h.crl("whole.crl", nil)
	h.write("cut.crl", string(der[:len(der)-5]))
	der[len(der)-1] ^= 1
	h.write("forged.crl", string(der))
	whole, err := os.ReadFile(h.file("whole.crl"))
	if err != nil {
		t.Fatal(err)
	}
	h.write("cutpem.crl", string(whole)+string(whole[:60]))
	h.write("garbage", "hello")
	h.write("empty", "")
	return h
}

// At the start such a list is an error; later the last good ones stay in force.
func TestUnusableLists(t *testing.T) {
	h := unusableLists(t)
	for _, c := range []struct{ crl, deny, want string }{
		{"missing", "empty", "no such file"},
		{"empty", "empty", "is damaged"},
		{"garbage", "empty", "is damaged"},
		{"cut.crl", "empty", "is damaged"},
		{"cutpem.crl", "empty", "is damaged after list 1"},
		{"forged.crl", "empty", "not signed by a CA that is trusted"},
		{"other.crl", "empty", "not signed by a CA that is trusted"},
		{"delta.crl", "empty", "critical extension 2.5.29.27"},
		{"indirect.crl", "empty", "critical extension 2.5.29.29"},
		{"ca.crt", "empty", "holds a CERTIFICATE"},
		{".", "empty", "not a regular file"},
		{"whole.crl", "missing", "no such file"},
		{"whole.crl", "garbage", "now.deny line 1: neither a serial number"},
	} {
		f := h.files(Required)
		f.ClientCRL, f.ClientDenylist = h.file("now.crl"), h.file("now.deny")
		var reports []error
		f.Report = func(err error) { reports = append(reports, err) }
		h.crl("now.crl", nil, h.leaf("press-1").SerialNumber)
		h.write("now.deny", "")
		source := Server(f)
		if _, err := source(); err != nil {
			t.Fatal(err)
		}
		for now, by := range map[string]string{"now.crl": c.crl, "now.deny": c.deny} {
			if err := os.Remove(h.file(now)); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(h.file(by), h.file(now)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Server(f)(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: at the start: %v", c, err)
		}
		for range 3 {
			if listener, err := source(); err != nil || h.accepts(listener, "press-1") == nil {
				t.Errorf("%v: what was revoked is let in: %v", c, err)
			}
		}
		if len(reports) != 1 || !strings.Contains(reports[0].Error(), c.want) {
			t.Errorf("%v: reports %v", c, reports)
		}
		if err := os.Remove(h.file("now.deny")); err != nil {
			t.Fatal(err)
		}
	}
}
