package access

import (
	"bytes"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostileNames would mean more than themselves in a filter, a pattern or a path.
var hostileNames = []string{
	"+", "#", "a/#", "a/+", ".*", "[a-z]", "-", "%i", "%u", "{id}", "a\x00", "a/../b", "../b", "*", "a*", "$SYS", "$share/g/a",
	"@sensor", "link:cloud", "device:boiler", "gateway", "", " ", "a ", "a\nb", "ａ", "\ufeffanna", strings.Repeat("a", 129),
}

// Who has such a name does not get in, by no proof, even if the users file had it.
func TestHostileIdentities(t *testing.T) {
	u := openUsers(t, "anna")
	record, _ := u.lookup("anna")
	g := NewGate(Config{Lockout: Lockout{Failures: 1000}}, u, mustCompile(t, allow("*", Publish, "#")), nil)
	byCN := NewGate(Config{CertificateName: "cn"}, u, nil, nil)
	for _, name := range hostileNames {
		users := map[string]userRecord{name: {User: User{Name: name}, hash: record.hash}}
		u.table.Store(&userTable{users: users, file: u.table.Load().file})
		for proof, try := range map[string]func() (Identity, error){
			"password": func() (Identity, error) { return g.Authenticate(t.Context(), login(name, right)) },
			"URI": func() (Identity, error) {
				c := certificate("", "")
				c.URIs = append(c.URIs, &url.URL{Scheme: "urn", Opaque: clientURN + name})
				return g.Authenticate(t.Context(), Credentials{Certificate: c})
			},
			"DNS": func() (Identity, error) {
				return g.Authenticate(t.Context(), Credentials{Certificate: certificate("", "", name)})
			},
			"common name": func() (Identity, error) {
				return byCN.Authenticate(t.Context(), Credentials{Certificate: certificate(name, "")})
			},
		} {
			if id, err := try(); err == nil || id.Name != "" {
				t.Errorf("%s: %q got in as %+v", proof, name, id)
			}
		}
	}
}

// A name that came in some other way widens no rule.
func TestHostileNamesInRules(t *testing.T) {
	r := mustCompile(t, allow("*", Publish, "plant/{id}/x"), allow("*", Subscribe, "plant/{id}/#"))
	for _, name := range []string{"+", "#", "a/#", "a/b", "a\x00", "$SYS"} {
		for _, topic := range []string{"plant/a/x", "plant/a/b/x", "plant/" + name + "/x", "plant/x"} {
			if r.Allow(Identity{Name: name}, Publish, topic) || r.AllowFilter(Identity{Name: name}, topic) {
				t.Errorf("%q may use %q", name, topic)
			}
		}
	}
}

// A users file with a damaged line lets nobody in who was not let in before.
func TestFuzzedUserRecords(t *testing.T) {
	u := openUsers(t, "anna")
	secret, err := u.AddGenerated("press-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Import([]Imported{alice}, nil); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(u.path)
	if err != nil {
		t.Fatal(err)
	}
	genuine := map[string]Secret{"anna": right, "press-1": secret, "alice": Secret("secret")}
	for range 10_000 {
		data := mutate(good)
		users, err := decodeUsers(bytes.NewReader(data))
		if err != nil {
			continue
		}
		for name, r := range users {
			// A changed name is another user, but never one without a password.
			for _, password := range []Secret{nil, Secret(name), wrong} {
				if !bytes.Equal(password, genuine[name]) && r.hash.verify(password) {
					t.Fatalf("%q logs in with %q by\n%s", name, []byte(password), data)
				}
			}
		}
	}
}

// mutate changes a few bytes, drops some, doubles some, or swaps fields.
func mutate(data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + rand.IntN(3) {
		i := rand.IntN(len(data))
		j := min(len(data), i+rand.IntN(60))
		switch rand.IntN(5) {
		case 0:
			data[i] = byte(rand.IntN(256))
		case 1:
			const special = "$\"{}:,=0aA/+\n"
			data[i] = special[rand.IntN(len(special))]
		case 2:
			data = slices.Delete(data, i, j)
		case 3:
			data = slices.Insert(data, i, data[i:j]...)
		case 4:
			data = bytes.Replace(data, []byte("$argon2id$"), []byte([]string{"$argon2i$", "$7$", "$hmac-sha256$", "$pbkdf2-sha512$", "$$"}[rand.IntN(5)]), 1)
		}
		if len(data) == 0 {
			data = []byte("\n")
		}
	}
	return data
}

// What is wrong takes the same time, whatever it is (PROVE=1: it takes a minute
// of an idle machine).
func TestWrongPasswordsTakeTheSameTime(t *testing.T) {
	if os.Getenv("PROVE") == "" {
		t.Skip("set PROVE=1 to measure; TestUnknownUsersCostTheSame counts bytes instead")
	}
	defer func(c cost) { wantedCost = c }(wantedCost)
	wantedCost = productCost
	u := openUsers(t, "wrong", "disabled")
	if err := u.SetDisabled("disabled", true); err != nil {
		t.Fatal(err)
	}
	if _, err := u.AddGenerated("generated", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Import([]Imported{alice}, nil); err != nil {
		t.Fatal(err)
	}
	names := []string{"unknown", "wrong", "disabled", "generated", "alice"}
	took := make(map[string][]time.Duration)
	for range 200 {
		for _, name := range names {
			began := time.Now()
			if verifies(t, u, name, wrong) {
				t.Fatal(name)
			}
			took[name] = append(took[name], time.Since(began))
		}
	}
	median := func(name string) time.Duration {
		slices.Sort(took[name])
		return took[name][len(took[name])/2]
	}
	base := median("unknown")
	for _, name := range names {
		if d := (median(name) - base).Abs(); d > base/20 {
			t.Errorf("%s: median %v, unknown users %v", name, median(name), base)
		}
		t.Logf("%s: median %v", name, median(name))
	}
}
