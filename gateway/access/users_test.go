package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var productCost = wantedCost

// Most tests need a hash, not an expensive one.
func TestMain(m *testing.M) {
	if os.Args[len(os.Args)-1] == helperMode {
		if err := AnswerHashes(os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	}
	wantedCost = cost{memory: minMemory, time: 1, threads: 1}
	os.Exit(m.Run())
}

var (
	right = Secret("correct horse battery")
	wrong = Secret("incorrect horse battery")
)

func openUsers(t testing.TB, names ...string) *Users {
	t.Helper()
	u, err := OpenUsers(filepath.Join(t.TempDir(), "users"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := u.Add(name, right, []string{"sensor"}); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func verifies(t testing.TB, u *Users, name string, password Secret) bool {
	t.Helper()
	user, err := u.Verify(t.Context(), name, password)
	if err != nil && !errors.Is(err, ErrBadCredentials) {
		t.Fatal(err)
	}
	return err == nil && user.Name == name
}

func TestUsersLifeCycle(t *testing.T) {
	u := openUsers(t, "press-1", "anna")
	if !verifies(t, u, "press-1", right) || verifies(t, u, "press-1", wrong) || verifies(t, u, "nobody", right) {
		t.Error("wrong answer after Add")
	}
	if err := u.Add("anna", right, nil); err == nil || !strings.Contains(err.Error(), "there is one already") {
		t.Errorf("second Add: %v", err)
	}
	if err := u.SetPassword("anna", wrong); err != nil || verifies(t, u, "anna", right) || !verifies(t, u, "anna", wrong) {
		t.Errorf("SetPassword: %v", err)
	}
	if err := u.SetRoles("anna", []string{"operator", "viewer"}); err != nil {
		t.Error(err)
	}
	if err := u.SetDisabled("press-1", true); err != nil || verifies(t, u, "press-1", right) {
		t.Errorf("SetDisabled: %v", err)
	}
	again, err := OpenUsers(u.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := again.List()
	if len(list) != 2 || list[0].Name != "anna" || fmt.Sprint(list[0].Roles) != "[operator viewer]" || !list[1].Disabled || list[1].Created.IsZero() {
		t.Errorf("List = %+v", list)
	}
	if err := again.Remove("anna"); err != nil || verifies(t, u, "anna", wrong) {
		t.Errorf("Remove: %v, or it is not seen by the other", err)
	}
	if err := u.Remove("anna"); err == nil || !strings.Contains(err.Error(), "headgate user list") {
		t.Errorf("second Remove: %v", err)
	}
}

func TestRefusedNamesAndPasswords(t *testing.T) {
	u := openUsers(t)
	for _, name := range []string{"", "link:cloud", "device:x", "gateway", "@sensor", "*", "a b", "a/b", "+", "#", "-x", ".x", "ä", "a\n", strings.Repeat("a", 129)} {
		if err := u.Add(name, right, nil); err == nil {
			t.Errorf("user %q was added", name)
		}
	}
	if err := u.Add("anna", right, []string{"@x"}); err == nil {
		t.Error("role @x was given")
	}
	for password, want := range map[string]string{
		"":                                "too short",
		"elevenchars":                     "too short",
		"ääääääööööö":                     "too short", // characters, not bytes
		strings.Repeat("x1y2z3", 200):     "over 1024 bytes",
		"hello-Press-1-hello":             "contains the user's name",
		"Password1234":                    "first that are guessed",
		"121212121212":                    "first that are guessed",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "first that are guessed",
	} {
		if err := u.Add("press-1", Secret(password), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", password, err, want)
		}
	}
	if len(u.List()) != 0 {
		t.Error("a refused user is there")
	}
}

func TestUsersFileMode(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	u := openUsers(t, "press-1")
	for _, path := range []string{u.path, u.path + ".lock"} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(u.path))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: something was left over", entries, err)
	}
	data, err := os.ReadFile(u.path)
	if err != nil || bytes.Contains(data, right) {
		t.Errorf("the password is in the file: %v", err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o666} {
		if err := os.Chmod(u.path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenUsers(u.path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// write puts content where the users file is, as another program would.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestBadUsersFiles(t *testing.T) {
	const header = `{"format":"headgate-users","version":1}` + "\n"
	good := userLineFor(t, "anna")
	path := filepath.Join(t.TempDir(), "users")
	for name, c := range map[string]struct{ content, want string }{
		"empty":          {"", "line 1"},
		"blank":          {"\n", "line 1"},
		"byte order":     {"\ufeff" + header, "line 1"},
		"no header":      {good, "line 1"},
		"other version":  {`{"format":"headgate-users","version":2}` + "\n", "line 1"},
		"truncated":      {header + good[:len(good)/2], "line 2"},
		"twice":          {header + good + good, "line 3: user \"anna\" is there twice"},
		"unknown field":  {header + strings.Replace(good, "{", `{"admin":true,`, 1), "line 2: not a user"},
		"two in a line":  {header + strings.TrimSpace(good) + good, "line 2"},
		"no password":    {header + `{"name":"anna","created":"2026-01-02T03:04:05Z"}` + "\n", "malformed password hash"},
		"plain password": {header + `{"name":"anna","password":"correct horse battery"}` + "\n", "malformed password hash"},
		"bad name":       {header + strings.Replace(good, "anna", "link:cloud", 1), "not allowed"},
		"bad role":       {header + strings.Replace(good, "sensor", "@sensor", 1), "not a role"},
		"long line":      {header + strings.Repeat("x", maxUserLine+1), "line 2: the line is over"},
	} {
		write(t, path, c.content)
		if _, err := OpenUsers(path, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, special := range []string{t.TempDir(), "/dev/null"} {
		if _, err := OpenUsers(special, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", special, err)
		}
	}
	if err := os.Symlink(path, path+".link"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUsers(path+".link", nil); err == nil {
		t.Error("a symbolic link was followed")
	}
}

func userLineFor(t *testing.T, name string) string {
	u := openUsers(t, name)
	data, err := os.ReadFile(u.path)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(data), "\n")
	return line
}

func TestBrokenChangeKeepsTheUsers(t *testing.T) {
	u := openUsers(t, "anna")
	var log bytes.Buffer
	u.logger = slog.New(slog.NewTextHandler(&log, nil))
	write(t, u.path, "garbage")
	for range 3 {
		if !verifies(t, u, "anna", right) {
			t.Fatal("the users are gone")
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, &log)
	}
	if err := u.Reload(); err == nil {
		t.Error("Reload did not say")
	}
	if err := u.Add("berta", right, nil); err == nil {
		t.Error("Add replaced a file that it does not understand")
	}
	if err := os.Remove(u.path); err != nil {
		t.Fatal(err)
	}
	if verifies(t, u, "anna", right) {
		t.Error("a user of a removed file got in")
	}
}

// Two openers stand for two processes: the lock file is per opener.
func TestChangesAtOnceAreAllKept(t *testing.T) {
	a := openUsers(t)
	b, err := OpenUsers(a.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		for j, u := range []*Users{a, b} {
			wg.Go(func() {
				if err := u.Add(fmt.Sprintf("user-%d-%d", j, i), right, nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := len(a.List()); n != 40 {
		t.Errorf("%d users", n)
	}
}

func TestHashIsRenewedAtLogin(t *testing.T) {
	u := openUsers(t, "anna")
	old := wantedCost
	defer func() { wantedCost = old }()
	wantedCost.time = 2
	if !verifies(t, u, "anna", right) {
		t.Fatal("refused")
	}
	r, _ := u.lookup("anna")
	if r.hash.(argonHash).cost != wantedCost || r.Roles[0] != "sensor" {
		t.Errorf("the record is %+v", r.User)
	}
	if !verifies(t, u, "anna", right) || verifies(t, u, "anna", wrong) {
		t.Error("wrong answer after renewal")
	}
}

// What an unknown, a disabled and a known user cost is the same. Bytes are
// counted and not time, so that a busy machine does not matter.
func TestUnknownUsersCostTheSame(t *testing.T) {
	old := wantedCost
	defer func() { wantedCost = old }()
	wantedCost = productCost
	u := openUsers(t, "known", "disabled")
	if err := u.SetDisabled("disabled", true); err != nil {
		t.Fatal(err)
	}
	if _, err := u.AddGenerated("generated", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Import([]Imported{alice}, nil); err != nil {
		t.Fatal(err)
	}
	for name, password := range map[string]Secret{"known": wrong, "disabled": right, "unknown": right, "generated": wrong, "alice": wrong} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if verifies(t, u, name, password) {
			t.Error(name, "got in")
		}
		runtime.ReadMemStats(&after)
		got, want := after.TotalAlloc-before.TotalAlloc, uint64(productCost.memory)<<10
		if got < want || got > want+want/8 {
			t.Errorf("%s took %d bytes, want about %d", name, got, want)
		}
	}
}

// takeAllTurns leaves no turn for a password check.
func takeAllTurns(u *Users) {
	for range cap(u.checks.running) {
		u.checks.running <- struct{}{}
	}
}

func TestChecksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := openUsers(t, "anna")
		takeAllTurns(u)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, checksWaiting)
		for range checksWaiting {
			go func() { // ends with ctx
				_, err := u.Verify(ctx, "anna", right)
				results <- err
			}()
		}
		synctest.Wait()
		if _, err := u.Verify(ctx, "anna", right); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		cancel()
		for range checksWaiting {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("waiting: %v", err)
			}
		}
		if len(u.checks.waiting) != 0 {
			t.Error("somebody still waits")
		}
	})
}

// With all places taken, only those can get in whose password was proved.
func TestReconnectsAreFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := openUsers(t, "anna", "berta")
		if !verifies(t, u, "anna", right) || !verifies(t, u, "berta", right) {
			t.Fatal("refused")
		}
		takeAllTurns(u)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		fast := func(name string, password Secret) bool {
			_, err := u.Verify(gone, name, password)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			return err == nil
		}
		if !fast("anna", right) {
			t.Error("a reconnect had to wait")
		}
		if fast("anna", wrong) || fast("anna", right[:len(right)-1]) || fast("nobody", right) {
			t.Error("something else was taken for a reconnect")
		}
		if err := u.SetDisabled("berta", true); err != nil || fast("berta", right) {
			t.Errorf("disabled: %v, and still remembered", err)
		}
		if err := u.SetPassword("anna", wrong); err != nil || fast("anna", right) {
			t.Errorf("changed password: %v, and the old one is still remembered", err)
		}
		<-u.checks.running
		if !verifies(t, u, "anna", wrong) {
			t.Error("the new password is refused")
		}
		u.checks.running <- struct{}{}
		time.Sleep(reconnectFor - 1)
		if !fast("anna", wrong) {
			t.Error("forgotten too soon")
		}
		time.Sleep(time.Nanosecond)
		if fast("anna", wrong) {
			t.Error("remembered for too long")
		}
		for i := range reconnectMax + 1000 {
			u.proved.remember(fmt.Sprint(i), right, u.nobody)
		}
		if len(u.proved.until) > reconnectMax {
			t.Errorf("%d remembered", len(u.proved.until))
		}
	})
}
