package access

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// alice is as mosquitto_passwd 2.0.11 made her; the password is "secret".
var alice = func() Imported {
	list, refused := ReadMosquittoUsers(strings.NewReader(aliceLine))
	if len(list) != 1 || len(refused) != 0 {
		panic(fmt.Sprint(refused))
	}
	return list[0]
}()

const aliceLine = "alice:$7$101$AXP9W4OSHBhOP2n/$ZTiN48Ddynf3DlxZpDdavXY9NYkLAorVFBVR1HO5oPXzhQUThdqvmpn0hbTbCi71a+T8IAKedFWCc6kI1rITUQ==\n"

func TestReadMosquittoUsers(t *testing.T) {
	salt, digest := "AXP9W4OSHBhOP2n/", strings.Repeat("A", 86)+"=="
	text := strings.Join([]string{
		"# a comment", "",
		strings.TrimSpace(aliceLine) + "\r",
		"bob:$6$" + salt + "$" + digest,
		"plain:secret",
		"empty:",
		"nocolon",
		":$7$101$" + salt + "$" + digest,
		"a/b:$7$101$" + salt + "$" + digest,
		"#hash:$7$101$" + salt + "$" + digest,
		"zero:$7$0$" + salt + "$" + digest,
		"endless:$7$1000000000$" + salt + "$" + digest,
		"signed:$7$+101$" + salt + "$" + digest,
		"short:$7$101$AAAA$" + digest,
		"cut:$7$101$" + salt + "$" + digest[:40],
		"nothing:$7$101$" + salt + "$",
		"more:$7$101$" + salt + "$" + digest + "$",
		"alice:$7$101$" + salt + "$" + digest,
	}, "\n")
	list, refused := ReadMosquittoUsers(strings.NewReader(text))
	if len(list) != 1 || list[0].Name != "alice" || list[0].Line != 3 {
		t.Errorf("taken: %+v", list)
	}
	var lines []int
	for _, r := range refused {
		lines = append(lines, r.Line)
	}
	if got := fmt.Sprint(lines); got != "[4 5 6 7 8 9 11 12 13 14 15 16 17 18]" {
		t.Errorf("refused lines %s: %v", got, refused)
	}
	if !strings.Contains(refused[0].Error(), "one round of SHA-512") {
		t.Errorf("a $6$ line: %v", refused[0])
	}
}

func TestImport(t *testing.T) {
	u := openUsers(t, "bob")
	theirs := alice
	theirs.Name = "bob"
	added, err := u.Import([]Imported{alice, theirs}, []string{"sensor"})
	if err != nil || fmt.Sprint(added) != "[alice]" {
		t.Fatalf("added %v, %v", added, err)
	}
	if verifies(t, u, "bob", Secret("secret")) || !verifies(t, u, "bob", right) {
		t.Error("an import replaced a user's password")
	}
	kept := func() string {
		r, _ := u.lookup("alice")
		return r.hash.String()
	}
	if verifies(t, u, "alice", right) || !strings.HasPrefix(kept(), "$pbkdf2-sha512$i=101$") {
		t.Errorf("after a wrong password: %s", kept())
	}
	if !verifies(t, u, "alice", Secret("secret")) || !strings.HasPrefix(kept(), "$argon2id$") {
		t.Errorf("after a right password: %s", kept())
	}
	again, err := OpenUsers(u.path, nil)
	if err != nil || !verifies(t, again, "alice", Secret("secret")) || verifies(t, again, "alice", right) {
		t.Errorf("after a restart: %v", err)
	}
}

// What mosquitto_passwd writes here and now is understood.
func TestMosquittoPasswd(t *testing.T) {
	program, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("mosquitto is not installed")
	}
	file := filepath.Join(t.TempDir(), "passwords")
	for i, name := range []string{"press-1", "press-2"} {
		args := []string{"-b", file, name, "secret of " + name}
		if i == 0 {
			args = append([]string{"-c"}, args...)
		}
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, refused := ReadMosquittoUsers(f)
	if len(list) != 2 || len(refused) != 0 {
		t.Fatalf("%v, refused %v", list, refused)
	}
	u := openUsers(t)
	if _, err := u.Import(list, nil); err != nil {
		t.Fatal(err)
	}
	if !verifies(t, u, "press-2", Secret("secret of press-2")) || verifies(t, u, "press-2", Secret("secret of press-1")) {
		t.Error("the passwords are not mosquitto's")
	}
}

func TestGenerated(t *testing.T) {
	u := openUsers(t, "anna")
	secret, err := u.AddGenerated("press-1", []string{"sensor"})
	if err != nil || len(secret) != 26 {
		t.Fatalf("%d characters, %v", len(secret), err)
	}
	if !verifies(t, u, "press-1", secret) || verifies(t, u, "press-1", right) || verifies(t, u, "anna", secret) {
		t.Error("wrong answer")
	}
	other, err := u.Generate("anna")
	if err != nil || !verifies(t, u, "anna", other) || verifies(t, u, "anna", right) || string(other) == string(secret) {
		t.Errorf("Generate: %v", err)
	}
	data, err := os.ReadFile(u.path)
	if err != nil || strings.Contains(string(data), string(secret)) {
		t.Errorf("the secret is in the file: %v", err)
	}
	if s, err := u.AddGenerated("anna", nil); err == nil || s != nil {
		t.Errorf("a second anna: %v", err)
	}
	if err := u.SetDisabled("press-1", true); err != nil || verifies(t, u, "press-1", secret) {
		t.Errorf("a disabled device logged in: %v", err)
	}
}

// Thousands of devices come back after a power cut of theirs, or of ours.
func BenchmarkLogin(b *testing.B) {
	defer func(c cost) { wantedCost = c }(wantedCost)
	wantedCost = productCost
	u := openUsers(b, "cached")
	secret, err := u.AddGenerated("generated", nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, password := range map[string]Secret{"cached": right, "generated": secret} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if !verifies(b, u, name, password) {
					b.Fatal("refused")
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
		})
	}
}
