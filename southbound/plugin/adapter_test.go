package plugin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDescribe(t *testing.T) {
	info, err := Describe(t.Context(), Config{
		Path: install(t, "probe"), RuntimeDir: runtimeDir(t), Logger: new(logBuffer).logger(),
	})
	if err != nil || info.Name != "probe" || info.Version == "" {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestPluginInheritsNothing(t *testing.T) {
	t.Setenv("HEADGATE_TEST_SECRET", "hunter2")
	secret, err := os.CreateTemp(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	s := openSession(t, newTestAdapter(t, "probe", ""))
	defer closeSession(t, s)
	got := values(t, s)
	environ, descriptors := got["environ"].(string), got["descriptors"].(string)
	if strings.Contains(environ, "HEADGATE_TEST_SECRET") || strings.Contains(environ, "PATH=") {
		t.Errorf("the plugin sees the environment:\n%s", environ)
	}
	if !strings.Contains(environ, "HEADGATE_PLUGIN=") {
		t.Errorf("the plugin reports no environment:\n%s", environ)
	}
	if strings.Contains(descriptors, "secret") || !strings.Contains(descriptors, "pipe:") {
		t.Errorf("the plugin holds:\n%s", descriptors)
	}
	if got["sensor"] != nil {
		t.Errorf("bad reading came with %v", got["sensor"])
	}
}

func TestOpenErrors(t *testing.T) {
	tests := []struct {
		plugin, do string
		want       []string
	}{
		{"quitter", "", []string{"start plugin quitter", "exit status 3", "no licence found"}},
		{"stranger", "", []string{"start plugin stranger", "10.0.0.1:22", "only a unix socket in its own folder"}},
		{"babbler", "", []string{"start plugin babbler", "tcp|10.0.0.1:22"}},
		{"endless", "", []string{"start plugin endless"}},
		{"elsewhere", "", []string{"only a unix socket in its own folder"}},
		{"climber", "", []string{"only a unix socket in its own folder"}},
		{"file", "", []string{"is no socket"}},
		{"naked", "", []string{"sent no certificate", "plugins/sdk"}},
		{"ancient", "", []string{"Plugin version: 99"}},
		{"probe", "open fails", []string{"open plugin probe: no route to press [2J"}},
		{"probe", "refuse settings", []string{"do: nobody does that", "correct the `settings:` of device press"}},
		{"liar", "no tags", []string{"plugin liar breaks the contract", "0 tags"}},
		{"liar", "tag twice", []string{"plugin liar breaks the contract", "declared twice"}},
		{"liar", "slash in group", []string{"plugin liar breaks the contract", "cannot name a group"}},
	}
	for _, test := range tests {
		t.Run(test.plugin+" "+test.do, func(t *testing.T) {
			a := newTestAdapter(t, test.plugin, test.do)
			s, err := a.Open(t.Context())
			if err == nil {
				closeSession(t, s)
			}
			wantError(t, err, test.want...)
			noChildren(t)
		})
	}
}

func TestOpenEndsWithContext(t *testing.T) {
	for _, test := range []struct{ plugin, do string }{{"mute", ""}, {"probe", "open hangs"}} {
		t.Run(test.plugin, func(t *testing.T) {
			a := newTestAdapter(t, test.plugin, test.do)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			within(t, 3*time.Second, "open", func() {
				if _, err := a.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error is %v", err)
				}
			})
			noChildren(t)
		})
	}
}

func TestOpenGivesUpOnMutePlugin(t *testing.T) {
	a := newTestAdapter(t, "mute", "")
	a.patience.start = 200 * time.Millisecond
	_, err := a.Open(t.Context())
	wantError(t, err, "start plugin mute", "timeout")
	noChildren(t)
}

func TestRuntimeDirIsChecked(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "relative", "/nowhere/at/all", open, "/" + strings.Repeat("x", 80)} {
		_, err := New(Config{Path: install(t, "probe"), RuntimeDir: dir}).Open(t.Context())
		wantError(t, err, "start plugin probe", "runtime folder")
	}
}

func TestOnlySafeFilesAreStarted(t *testing.T) {
	path := install(t, "probe")
	dir := filepath.Dir(path)
	file := func(name string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("#!/bin/sh\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if err := os.Symlink(path, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"link":                     "symbolic link",
		"fifo":                     "not a regular file",
		"folder":                   "not a regular file",
		file("group", 0o775):       "chmod 0755",
		file("others", 0o757):      "chmod 0755",
		file("text", 0o644):        "not executable",
		"missing":                  "no such file",
		"":                         "not a name",
		"../" + filepath.Base(dir): "not a name",
		"/bin/sh":                  "not a name",
		"Probe":                    "not a name",
		"probe\x00":                "not a name",
		"probe\n":                  "not a name",
		strings.Repeat("a", 65):    "not a name",
		"..":                       "not a name",
		"probe/../probe":           "not a name",
		"проба":                    "not a name",
	}
	if os.Geteuid() == 0 {
		name := file("theirs", 0o755)
		if err := os.Chown(filepath.Join(dir, name), 12345, -1); err != nil {
			t.Fatal(err)
		}
		tests[name] = "another user"
	}
	for name, want := range tests {
		_, err := Find(dir, name)
		wantError(t, err, want)
		_, err = New(Config{Path: dir + "/" + name, RuntimeDir: runtimeDir(t)}).Open(t.Context())
		if err == nil {
			t.Errorf("%q was opened", name)
		}
	}
	if got, err := Find(dir, "probe"); err != nil || got != path {
		t.Errorf("found %q, %v; want %q", got, err, path)
	}
}

// noChildren fails if a child of ours lives or waits to be reaped.
func noChildren(t testing.TB) {
	t.Helper()
	var status unix.WaitStatus
	if pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("child %d is left: status %v, error %v", pid, status, err)
	}
}
