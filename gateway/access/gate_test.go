package access

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

var home = netip.MustParseAddr("192.0.2.7")

func login(name string, password Secret) Credentials {
	return Credentials{Username: name, HasUsername: true, Password: password, HasPassword: true, Remote: home}
}

func certificate(cn string, uri string, dns ...string) *x509.Certificate {
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, DNSNames: dns}
	for _, s := range strings.Fields(uri) {
		u, err := url.Parse(s)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

// A query or a fragment does not make another name of somebody's.
func TestCertificateNameIsTheWholeURI(t *testing.T) {
	g := NewGate(Config{}, nil, nil, slog.New(slog.DiscardHandler))
	for _, more := range []string{"?guest", "?", "#guest", "?+a?=b#c", "%20"} {
		id, err := g.Authenticate(t.Context(), Credentials{Certificate: certificate("", "urn:headgate:client:ops-1"+more, "ops-1")})
		if !errors.Is(err, ErrCertificate) || errors.Is(err, ErrBadCredentials) {
			t.Errorf("%q behind the name: %v, %v", more, id, err)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	var log bytes.Buffer
	cfg := Config{Certificates: []CertificateRole{{"press-*", []string{"sensor", "slow"}}, {"*-1", []string{"first", "sensor"}}}}
	g := NewGate(cfg, openUsers(t, "anna"), nil, slog.New(slog.NewTextHandler(&log, nil)))
	own := certificate("", "urn:headgate:client:press-1")
	with := func(c Credentials, cert *x509.Certificate) Credentials {
		c.Certificate = cert
		return c
	}
	for name, c := range map[string]struct {
		credentials Credentials
		want        string // name and roles; "": refused
	}{
		"password":                     {login("anna", right), "anna [sensor]"},
		"wrong password":               {login("anna", wrong), ""},
		"unknown user":                 {login("berta", right), ""},
		"nothing":                      {Credentials{Remote: home}, ""},
		"user without password":        {Credentials{Username: "anna", HasUsername: true}, ""},
		"empty password":               {login("anna", nil), ""},
		"password without user":        {Credentials{Password: right, HasPassword: true}, ""},
		"password flag only":           {Credentials{HasPassword: true}, ""},
		"NUL behind the password":      {login("anna", append(right[:len(right):len(right)], 0)), ""},
		"huge password":                {login("anna", bytes.Repeat(right, 100)), ""},
		"name of a link":               {login("link:cloud", right), ""},
		"own certificate":              {with(Credentials{}, own), "press-1 [sensor slow first]"},
		"certificate and password":     {with(login("anna", right), own), "anna [sensor]"},
		"certificate, wrong password":  {with(login("anna", wrong), own), ""},
		"certificate, user only":       {with(Credentials{Username: "press-1", HasUsername: true}, own), ""},
		"bad certificate and password": {with(login("anna", right), certificate("anna", "")), ""},
		"foreign certificate":          {with(Credentials{}, certificate("x", "spiffe://y/z", "press-9.example", "b")), "press-9.example [sensor slow]"},
		"common name only":             {with(Credentials{}, certificate("press-1", "")), ""},
		"two identities":               {with(Credentials{}, certificate("", "urn:headgate:client:a urn:headgate:client:b")), ""},
		"certificate of a link":        {with(Credentials{}, certificate("", "urn:headgate:client:link:cloud")), ""},
		"certificate of the gateway":   {with(Credentials{}, certificate("", "urn:headgate:client:gateway")), ""},
		"certificate of a role":        {with(Credentials{}, certificate("", "", "@sensor")), ""},
		"certificate for all":          {with(Credentials{}, certificate("", "", "*.example.com")), ""},
		"certificate with a level":     {with(Credentials{}, certificate("", "urn:headgate:client:a/b")), ""},
		"certificate without a name":   {with(Credentials{}, certificate("", "urn:headgate:client:")), ""},
	} {
		g.locks = newLockouts()
		id, err := g.Authenticate(t.Context(), c.credentials)
		got := ""
		if err == nil {
			got = fmt.Sprint(id.Name, " ", id.Roles)
		} else if !errors.Is(err, ErrBadCredentials) && !errors.Is(err, ErrNoCredentials) && !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", name, err)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for _, secret := range []Secret{right, wrong} {
		if strings.Contains(log.String(), string(secret)) {
			t.Error("a password is in the log")
		}
	}
}

func TestCommonName(t *testing.T) {
	g := NewGate(Config{CertificateName: "cn"}, nil, nil, nil)
	for cn, want := range map[string]bool{"press-1": true, "": false, "link:cloud": false, "a b": false, "#": false, "+": false, "a\x00": false} {
		id, err := g.Authenticate(t.Context(), Credentials{Certificate: certificate(cn, "urn:headgate:client:other")})
		if (err == nil && id.Name == cn) != want {
			t.Errorf("%q: %v %v", cn, id, err)
		}
	}
}

func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "abc", true}, {"press-*", "press-", true},
		{"press-*", "xpress-1", false}, {"*-1", "a-1", true}, {"*-1", "a-12", false}, {"a*b*c", "abc", true},
		{"a*b*c", "aXbYbZc", true}, {"a*b*c", "acb", false}, {"a*a", "a", false}, {"*ab*ab", "abab", true},
		{"*ab*ab", "ab", false}, {"**", "x", true}, {"a?", "ab", false}, {"[ab]", "a", false}, {"", "", true}, {"", "a", false},
	} {
		if got := matchName(c.pattern, c.name); got != c.want {
			t.Errorf("matchName(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestCurrent(t *testing.T) {
	u := openUsers(t, "anna")
	g := NewGate(Config{Certificates: []CertificateRole{{"*", []string{"old"}}}}, u, nil, nil)
	byCert, err1 := g.Authenticate(t.Context(), Credentials{Certificate: certificate("", "urn:headgate:client:press-1")})
	byUser, err2 := g.Authenticate(t.Context(), login("anna", right))
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	g.SetConfig(Config{Certificates: []CertificateRole{{"*", []string{"new"}}}})
	if id, ok := g.Current(byCert); !ok || fmt.Sprint(id.Roles) != "[new]" {
		t.Errorf("certificate: %v %v", id, ok)
	}
	if err := u.SetRoles("anna", []string{"new"}); err != nil {
		t.Fatal(err)
	}
	if id, ok := g.Current(byUser); !ok || fmt.Sprint(id.Roles) != "[new]" {
		t.Errorf("user: %v %v", id, ok)
	}
	if id, ok := g.Current(cloud); !ok || id.Name != cloud.Name {
		t.Errorf("link: %v %v", id, ok)
	}
	if err := u.Remove("anna"); err != nil {
		t.Fatal(err)
	}
	if _, ok := g.Current(byUser); ok {
		t.Error("a removed user is still there")
	}
}

func TestRulesAreSwapped(t *testing.T) {
	g := NewGate(Config{}, nil, nil, nil)
	if g.Allow(press, Publish, "a") || g.AllowFilter(press, "a") {
		t.Error("allowed without rules")
	}
	g.SetRules(mustCompile(t, allow("*", Publish, "a"), allow("*", Subscribe, "a/#")))
	if !g.Allow(press, Publish, "a") || !g.AllowFilter(press, "a/+") {
		t.Error("new rules are not in force")
	}
	g.SetRules(nil)
	if g.Allow(press, Publish, "a") {
		t.Error("old rules are still in force")
	}
}

func TestLookup(t *testing.T) {
	u := openUsers(t, "anna", "berta")
	if err := u.SetDisabled("berta", true); err != nil {
		t.Fatal(err)
	}
	g := NewGate(Config{Certificates: []CertificateRole{{"*", []string{"c"}}}}, u, nil, nil)
	for name, want := range map[string]string{"anna": "[sensor]", "berta": "[]", "press-1": "[c]", "link:cloud": "[]"} {
		if id := g.Lookup(name); id.Name != name || fmt.Sprint(id.Roles) != want {
			t.Errorf("%s: %v", name, id)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	canary := Secret("canary-canary")
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "secret", canary, "credentials", login("anna", canary), "pointer", &canary)
	data, err := json.Marshal(map[string]any{"a": canary, "b": []Secret{canary}, "c": login("a", canary)})
	if err != nil {
		t.Fatal(err)
	}
	c := login("a", canary)
	text := log.String() + string(data)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		text += fmt.Sprintf(verb+verb+verb, canary, c, &c)
	}
	for _, leak := range []string{"canary", "63616e617279", "Y2FuYXJ5", "99, 97, 110", "99 97 110", "0x63, 0x61"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(leak)) {
			t.Errorf("%q is shown in %s", leak, text)
		}
	}
}

// With every place for password checks taken, and every place to wait for one,
// a certificate is judged at once.
func TestCertificatesNeverWaitForPasswords(t *testing.T) {
	u := openUsers(t, "anna")
	takeAllTurns(u)
	for range checksWaiting {
		u.checks.waiting <- struct{}{}
	}
	g := NewGate(Config{}, u, nil, nil)
	if _, err := g.Authenticate(t.Context(), Credentials{HasUsername: true, HasPassword: true, Username: "anna", Password: right}); !errors.Is(err, ErrBusy) {
		t.Errorf("a password: %v", err)
	}
	if id, err := g.Authenticate(t.Context(), Credentials{Certificate: certificate("", "urn:headgate:client:press-1")}); err != nil || id.Name != "press-1" {
		t.Errorf("a certificate: %v %v", id, err)
	}
}

// Who is disabled, or not in a file that is missing, was not removed.
func TestRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	users, err := OpenUsers(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGate(Config{}, users, nil, nil)
	if g.Removed("bob") || NewGate(Config{}, nil, nil, nil).Removed("bob") {
		t.Error("removed without a file of users")
	}
	if _, err := users.AddGenerated("bob", nil); err != nil {
		t.Fatal(err)
	}
	if err := users.SetDisabled("bob", true); err != nil {
		t.Fatal(err)
	}
	if g.Removed("bob") {
		t.Error("disabled is removed")
	}
	if err := users.Remove("bob"); err != nil {
		t.Fatal(err)
	}
	if !g.Removed("bob") {
		t.Error("the last user was removed, and is not")
	}
}
