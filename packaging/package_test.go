// Package packaging_test proves the Debian package: it is built twice, installed in an
// empty root folder, started, upgraded, removed and purged there. Nothing outside the
// test's own folders changes, and no service of this machine is touched.
package packaging_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/config"
)

func TestSameBytesFromEveryBuild(t *testing.T) {
	first := sha256.Sum256(read(t, build(t, "v1.0.0", "")))
	second := sha256.Sum256(read(t, build(t, "v1.0.0", "umask 077; export TZ=Pacific/Auckland LC_ALL=C")))
	if first != second {
		t.Errorf("two builds of one version differ: %x and %x", first, second)
	}
}

// The edit and the state of the first version outlive an upgrade and a removal, and no
// trace of either outlives a purge.
func TestLifecycle(t *testing.T) {
	r := newRoot(t)
	conf, queue, key := "/etc/headgate/headgate.yaml", "/var/lib/headgate/queue/1.db", "/etc/headgate/pki/cloud.key"

	r.dpkg("--install", build(t, "v1.0.0", ""))
	r.write(conf, append(r.read(conf), "# edited\n"...))
	r.write(queue, []byte("backlog"))
	r.write(key, []byte("operator's key"))
	kept := func(after string) {
		t.Helper()
		if !bytes.HasSuffix(r.read(conf), []byte("# edited\n")) {
			t.Errorf("%s: the edited configuration was replaced", after)
		}
		for _, path := range []string{queue, key} {
			if !r.exists(path) {
				t.Errorf("%s: %s is gone", after, path)
			}
		}
	}

	r.dpkg("--install", build(t, "v1.1.0", ""))
	kept("upgrade")
	if out := r.dpkg("--status", "headgate"); !strings.Contains(out, "Version: 1.1.0\n") {
		t.Errorf("status after upgrade:\n%s", out)
	}
	r.dpkg("--remove", "headgate")
	kept("remove")
	if r.exists("/usr/bin/headgate") {
		t.Error("remove: the program is still there")
	}
	r.dpkg("--purge", "headgate")
	for _, path := range []string{"/etc/headgate", "/var/lib/headgate", "/etc/systemd/system/multi-user.target.wants/headgate.service"} {
		if r.exists(path) {
			t.Errorf("purge: %s is still there", path)
		}
	}
}

// Every file has the owner and mode that testdata/files.txt says, and there is no file
// that it does not name: no key, no password, nothing made by a maintainer script.
func TestFiles(t *testing.T) {
	r := newRoot(t)
	before := r.files()
	r.dpkg("--install", build(t, "v1.0.0", ""))

	var got []string
	for _, line := range r.files() {
		if !slices.Contains(before, line) {
			got = append(got, line)
		}
	}
	want := strings.Split(strings.TrimSpace(string(read(t, "testdata/files.txt"))), "\n")
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("not in testdata/files.txt: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("not installed: %s", line)
		}
	}
}

func TestUnit(t *testing.T) {
	r := newRoot(t)
	r.dpkg("--install", build(t, "v1.0.0", ""))
	r.addTargets()
	// verify only prints what it does not know, and exits 0.
	out, err := exec.Command("systemd-analyze", "verify", "--root="+r.dir, "headgate.service").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	unit := filepath.Join(r.dir, "/usr/lib/systemd/system/headgate.service")
	out, err = exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", unit).CombinedOutput()
	if err != nil {
		t.Errorf("the service is exposed by more than 2.0: %v\n%s", err, out)
	}
	t.Logf("%s", regexp.MustCompile(`Overall exposure.*`).Find(out))
}

func TestShippedConfiguration(t *testing.T) {
	if _, err := config.Load("headgate.yaml"); err != nil {
		t.Error(err)
	}
}

// Every module linked into a program is in the copyright file.
func TestCopyright(t *testing.T) {
	text := string(read(t, "copyright"))
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/...", "./plugins/...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list modules: %v", err)
	}
	for _, module := range slices.Compact(strings.Fields(string(out))) {
		if !strings.Contains(text, module) {
			t.Errorf("packaging/copyright does not name %s: add its holder and licence", module)
		}
	}
}

func TestLintian(t *testing.T) {
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("lintian is not installed: apt-get install lintian")
	}
	out, err := exec.Command("lintian", "--allow-root", "--fail-on=error,warning", build(t, "v1.0.0", "")).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
