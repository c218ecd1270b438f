package packaging_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// built remembers the packages of this run, so that tests share a build.
var built struct {
	sync.Mutex
	paths map[string]string
	dir   string
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

// build makes the package of a version after the shell commands in setup, and returns its path.
func build(t *testing.T, version, setup string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path, ok := built.paths[version+setup]; ok {
		return path
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "headgate-packaging-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.paths = dir, make(map[string]string)
	}
	dist := filepath.Join(built.dir, fmt.Sprint(len(built.paths)))
	cmd := exec.Command("sh", "-ec", setup+"\nexec make -C .. package VERSION="+version+" DIST="+dist)
	// An outer make must not pass its own flags and variables on.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKEOVERRIDES=", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dist, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("make package made %q, want one .deb", debs)
	}
	built.paths[version+setup] = debs[0]
	return debs[0]
}

// root is a folder with a dpkg database of its own and nothing else in it.
type root struct {
	t   *testing.T
	dir string
}

func newRoot(t *testing.T) root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("dpkg sets owners, which needs root: sudo make test")
	}
	r := root{t, t.TempDir()}
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("/var/lib/dpkg/status", nil)
	r.write("/var/lib/dpkg/updates/.keep", nil)
	r.write("/var/lib/dpkg/info/format", []byte("1\n"))
	return r
}

// dpkg runs the maintainer scripts with DPKG_ROOT set, as the builder of an image does.
func (r root) dpkg(args ...string) string {
	r.t.Helper()
	args = append([]string{"--root=" + r.dir, "--log=/dev/null", "--force-script-chrootless", "--force-depends"}, args...)
	cmd := exec.Command("dpkg", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("dpkg %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// command is a program that sees r as the whole file system.
func (r root) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Path = name
	cmd.Err = nil
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir}
	return cmd
}

// files lists "mode owner group path" of everything outside the databases of dpkg,
// systemd and the users.
func (r root) files() []string {
	names := r.userNames()
	var lines []string
	err := filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, r.dir), "/")
		switch name {
		case "/var/lib/dpkg", "/var/lib/systemd":
			return filepath.SkipDir
		case "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/.pwd.lock":
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		lines = append(lines, fmt.Sprintf("%v %s %s %s", info.Mode(), names[owner.Uid], names[owner.Gid], name))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	sort.Strings(lines)
	return lines
}

// userNames maps the numbers of users to their names. The package's user and group have
// the same.
func (r root) userNames() map[uint32]string {
	names := map[uint32]string{0: "root"}
	passwd, _ := os.ReadFile(filepath.Join(r.dir, "/etc/passwd"))
	for line := range strings.Lines(string(passwd)) {
		fields := strings.Split(line, ":")
		var uid uint32
		if _, err := fmt.Sscan(fields[2], &uid); err != nil {
			r.t.Fatalf("passwd line %q: %v", line, err)
		}
		names[uid] = fields[0]
	}
	return names
}

// addTargets gives r the units of this machine that ours refers to.
func (r root) addTargets() {
	r.t.Helper()
	for _, pattern := range []string{"*.target", "*.slice", "*.mount", "*.socket"} {
		units, err := filepath.Glob("/lib/systemd/system/" + pattern)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, unit := range units {
			if text, err := os.ReadFile(unit); err == nil {
				r.write("/usr/lib/systemd/system/"+filepath.Base(unit), text)
			}
		}
	}
}

func (r root) write(path string, content []byte) {
	r.t.Helper()
	path = filepath.Join(r.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r root) read(path string) []byte {
	r.t.Helper()
	return read(r.t, filepath.Join(r.dir, path))
}

func (r root) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, path))
	return err == nil
}
