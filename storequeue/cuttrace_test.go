package storequeue

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a process that is recorded may do to files. The second line is what the
// model of the disk does not know; a folder that sees one of them is no proof.
const (
	cutCalls   = "openat,open,creat,close,write,pwrite64,lseek,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,exit_group"
	cutUnknown = "writev,pwritev,pwritev2,copy_file_range,sendfile,splice,fallocate,truncate,link,linkat,symlink,symlinkat,sync,syncfs,sync_file_range,io_uring_setup"
)

// A systemCall began at one line of the trace and ended at
// another.
type systemCall struct {
	name   string
	args   string // as strace writes them, strings in hexadecimal
	ret    int64
	forged bool // strace answered in the kernel's place
	began  int
	ended  int
}

// strace runs this test binary as a child with env, and returns its calls by
// their ends. It ends the test where strace is missing.
func strace(t *testing.T, env []string, more ...string) []systemCall {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: make need installs it")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	args := []string{"-f", "--seccomp-bpf", "-qq", "-xx", "-s", "1000000", "-o", trace, "-e", "signal=none", "-e", "trace=" + cutCalls + "," + cutUnknown}
	cmd := exec.Command(path, append(append(args, more...), os.Args[0])...)
	cmd.Env = append(os.Environ(), env...)
	out := bytes.Buffer{}
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil && len(more) == 0 {
		t.Fatalf("the child: %v: %s", err, out.Bytes())
	}
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	defer os.Remove(trace)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	var calls []systemCall
	begun := map[string]systemCall{} // by thread
	for n := 1; lines.Scan(); n++ {
		c, whole, err := parseCall(lines.Text(), n, begun)
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			calls = append(calls, c)
		}
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return calls
}

// parseCall reads one line; a call that others interrupt has two.
func parseCall(line string, n int, begun map[string]systemCall) (c systemCall, whole bool, err error) {
	thread, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimLeft(rest, " ")
	if strings.HasPrefix(rest, "+++") || strings.HasPrefix(rest, "---") {
		return systemCall{}, false, nil
	}
	if tail, ok := strings.CutPrefix(rest, "<... "); ok {
		c = begun[thread]
		_, tail, _ = strings.Cut(tail, " resumed>")
		rest = c.name + "(" + c.args + tail
	} else {
		c = systemCall{began: n}
	}
	c.ended = n
	var found bool
	if c.name, rest, found = strings.Cut(rest, "("); !found {
		return systemCall{}, false, fmt.Errorf("line %d of the trace: %.100q", n, line)
	}
	if args, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
		c.args = args
		begun[thread] = c
		return c, false, nil
	}
	at := strings.LastIndex(rest, " = ")
	if at < 0 {
		return systemCall{}, false, fmt.Errorf("line %d of the trace: %.100q", n, line)
	}
	c.args = strings.TrimSuffix(strings.TrimRight(rest[:at], " "), ")")
	ret, _, _ := strings.Cut(rest[at+3:], " ")
	c.forged = strings.HasSuffix(rest, "(INJECTED)")
	if c.ret, err = strconv.ParseInt(ret, 0, 64); err != nil { // "?": the process ended in it
		c.ret, err = -1, nil
	}
	return c, true, nil
}

// parts are a call's arguments.
func (c *systemCall) parts() []string { return strings.Split(c.args, ", ") }

func (c *systemCall) number(i int) int64 {
	n, _ := strconv.ParseInt(c.parts()[i], 0, 64)
	return n
}

// text is an argument that is a string.
func (c *systemCall) text(i int) []byte {
	s := strings.Trim(c.parts()[i], `"`)
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		panic(fmt.Sprintf("%s: %.60q: %v", c.name, s, err))
	}
	return b
}

// path is the first or, in a rename, the second path that a call names.
func (c *systemCall) path(nth int) string {
	for i, p := range c.parts() {
		if strings.HasPrefix(p, `"`) {
			if nth == 0 {
				return string(c.text(i))
			}
			nth--
		}
	}
	return ""
}

// unknown reports a call that the model of the disk does not know.
func (c *systemCall) unknown() bool {
	return c.ret >= 0 && slices.Contains(strings.Split(cutUnknown, ","), c.name)
}
