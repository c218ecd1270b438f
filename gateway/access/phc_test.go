package access

import (
	"strings"
	"testing"
)

func TestHash(t *testing.T) {
	h := newHash(right)
	if !h.verify(right) || h.verify(wrong) || h.verify(nil) {
		t.Error("wrong answer")
	}
	again, err := parseHash(h.String())
	if err != nil || again.String() != h.String() || !again.verify(right) {
		t.Errorf("%v after parsing %s", err, h)
	}
	if newHash(right).String() == h.String() {
		t.Error("the salt is not random")
	}
	if productCost != (cost{19456, 2, 1}) || len(h.salt) != 16 || len(h.digest) != 32 {
		t.Error("new hashes are not m=19456, t=2, p=1 with 16 and 32 bytes")
	}
	if n := noHash(); n.verify(nil) || n.verify(Secret{0}) || n.cost != wantedCost {
		t.Error("the hash of nobody has a password or another cost")
	}
}

func TestParseHashRefuses(t *testing.T) {
	good := newHash(right).String()
	if _, err := parseHash(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"other algorithm": {"argon2id", "argon2i"},
		"other version":   {"v=19", "v=16"},
		"too much memory": {"m=1024", "m=4294967295"},
		"more than fits":  {"m=1024", "m=4294968320"},
		"no memory":       {"m=1024", "m=0"},
		"endless":         {"t=1", "t=4000000000"},
		"no passes":       {"t=1", "t=0"},
		"many lanes":      {"p=1", "p=255"},
		"wrapped lanes":   {"p=1", "p=257"},
		"leading zero":    {"t=1", "t=01"},
		"sign":            {"t=1", "t=+1"},
		"space":           {"t=1", "t= 1"},
		"order":           {"t=1,p=1", "p=1,t=1"},
		"no salt":         {good[strings.LastIndex(good[:60], "$")-22 : strings.LastIndex(good[:60], "$")], ""},
		"padding":         {good, good + "="},
		"newline":         {good, good + "\n"},
		"a sixth field":   {good, good + "$"},
		"in front":        {good, "x" + good},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Fatalf("%s changes nothing", name)
		}
		if _, err := parseHash(bad); err == nil {
			t.Errorf("%s: %s was taken", name, bad)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(newHash(right).String())
	f.Add("")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=65537,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$2y$05$abcdefghijklmnopqrstuv")
	f.Add(newGeneratedHash(right).String())
	f.Add(alice.hash.String())
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHash(s)
		if err != nil {
			return
		}
		if h.String() != s {
			t.Errorf("%q was read as %q", s, h)
		}
		if outOfBounds(h) {
			t.Errorf("%q is out of bounds", s)
		}
	})
}

// outOfBounds reports whether a hash may cost more than it should, or says so
// little that others fit too.
func outOfBounds(h passwordHash) bool {
	switch h := h.(type) {
	case argonHash:
		return h.memory > maxMemory || h.time > maxTime || h.threads > maxThreads || len(h.salt) < 16 || len(h.digest) < 32
	case generatedHash:
		return len(h.salt) != 16 || len(h.digest) != 32
	case importedHash:
		return h.iterations < 1 || h.iterations > maxIterations || len(h.salt) < 8 || len(h.digest) != 64
	}
	return true
}

func FuzzDecodeUsers(f *testing.F) {
	const header = `{"format":"headgate-users","version":1}` + "\n"
	f.Add(header)
	f.Add(header + `{"name":"a","password":"` + newHash(right).String() + `","roles":["b"],"created":"2026-01-02T03:04:05Z"}` + "\n")
	f.Add(header + `{"name":"a","password":""}`)
	f.Fuzz(func(t *testing.T, s string) {
		users, err := decodeUsers(strings.NewReader(s))
		if err != nil {
			return
		}
		for name, r := range users {
			if CheckName(name) != nil || name != r.Name || outOfBounds(r.hash) {
				t.Errorf("%q became user %q", s, name)
			}
		}
		data, err := encodeUsers(users)
		if err != nil {
			return // a time that JSON cannot hold
		}
		if again, err := decodeUsers(strings.NewReader(string(data))); err != nil || len(again) != len(users) {
			t.Errorf("%q does not survive writing: %v", s, err)
		}
	})
}
