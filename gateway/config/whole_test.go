package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A configuration that is not whole opens nothing: it is refused, or it has no
// rules, which refuses everything.
func TestRulesThatAreNotThere(t *testing.T) {
	whole := "version: 1\naccess:\n  rules:\n    - {allow: publish, who: \"*\", topics: [\"a/#\"]}\n"
	dir := t.TempDir()
	file := filepath.Join(dir, "headgate.yaml")
	put := func(text string) func() error {
		return func() error { return os.WriteFile(file, []byte(text), 0o600) }
	}
	for name, c := range map[string]struct {
		make  func() error
		rules int // -1: refused
	}{
		"whole":             {put(whole), 1},
		"byte order mark":   {put("\ufeff" + whole), 1},
		"CRLF":              {put(strings.ReplaceAll(whole, "\n", "\r\n")), 1},
		"no access":         {put("version: 1\n"), 0},
		"no rules":          {put("version: 1\naccess:\n  rules: []\n"), 0},
		"rules commented":   {put("version: 1\n# access: {}\n"), 0},
		"nothing":           {put(""), -1},
		"comments":          {put("# version: 1\n"), -1},
		"byte order alone":  {put("\ufeff"), -1},
		"cut in the rule":   {put(whole[:len(whole)-6]), -1},
		"cut after the who": {put(whole[:strings.Index(whole, ", topics")]), -1},
		"rules of nothing":  {put("version: 1\naccess:\n  rules:\n    - {}\n"), -1},
		"NUL":               {put("version: 1\x00\n"), -1},
		"a folder":          {func() error { return os.Mkdir(file, 0o755) }, -1},
		"a FIFO":            {func() error { return syscall.Mkfifo(file, 0o600) }, -1},
		"a device":          {func() error { return os.Symlink("/dev/zero", file) }, -1},
		"a link to nothing": {func() error { return os.Symlink(filepath.Join(dir, "gone"), file) }, -1},
		"a link to itself":  {func() error { return os.Symlink(file, file) }, -1},
		"nobody is there":   {func() error { return nil }, -1},
	} {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(file)
		switch {
		case c.rules < 0 && err == nil:
			t.Errorf("%s: taken, with %d rules", name, len(cfg.Access.Rules))
		case c.rules >= 0 && (err != nil || len(cfg.Access.Rules) != c.rules):
			t.Errorf("%s: %v", name, err)
		}
	}
}
