package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// loadFiles writes files into a new folder and loads its headgate.yaml.
func loadFiles(t *testing.T, files map[string]string) (dir string, c *Config, err error) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err = Load(filepath.Join(dir, "headgate.yaml"))
	return dir, c, err
}

func TestSeveralFiles(t *testing.T) {
	link := func(name string) string {
		return "  - {name: " + name + ", servers: [\"mqtts://" + name + "\"], ca: pki/ca.crt, certificate: a, key: b, send: [{topics: [x]}]}\n"
	}
	dir, c, err := loadFiles(t, map[string]string{
		"headgate.yaml":          "version: 1\ngateway: {id: a}\nnorthbound:\n" + link("first"),
		"conf.d/20-b.yaml":       "northbound:\n" + link("third") + "buses:\n  two: {url: \"tcp://i\"}\n",
		"conf.d/10-a.yaml":       "version: 1\ngateway: {data: data}\nnorthbound:\n" + link("second") + "buses: {one: {url: \"tcp://h\"}}\n",
		"conf.d/.hidden.yaml":    "nonsense",
		"conf.d/10-a.yaml~":      "nonsense",
		"conf.d/README":          "nonsense",
		"conf.d/empty.yaml":      "# nothing\n",
		"conf.d/deeper/no.yaml":  "nonsense",
		"conf.d/x.yaml.dpkg-new": "nonsense",
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range c.Northbound {
		names = append(names, l.Name)
	}
	if want := []string{"first", "second", "third"}; !slices.Equal(names, want) {
		t.Errorf("links %v, want %v", names, want)
	}
	if len(c.Buses) != 2 || c.Gateway.ID != "a" {
		t.Errorf("got %+v", c)
	}
	if want := filepath.Join(dir, "pki/ca.crt"); c.Northbound[2].CA != want {
		t.Errorf("path of a file in conf.d: %s, want %s", c.Northbound[2].CA, want)
	}
	if want := filepath.Join(dir, "data"); c.Gateway.Data != want {
		t.Errorf("data %s, want %s", c.Gateway.Data, want)
	}
}

func TestGivenTwice(t *testing.T) {
	dir, _, err := loadFiles(t, map[string]string{
		"headgate.yaml":     "version: 1\ngateway:\n  id: a\nbuses: {line: {url: \"tcp://h\"}}\ndevices:\n  - {id: d, adapter: x}\n",
		"conf.d/b.yaml":     "gateway:\n  id: b\nbuses:\n  line: {url: \"tcp://h\"}\ndevices:\n  - {id: d, adapter: x}\n",
		"conf.d/c.yml":      "version: 1\n",
		"conf.d/d.bad.yaml": "gatway: {}\n",
	})
	var problems *Problems
	if !errors.As(err, &problems) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range problems.List {
		got = append(got, strings.ReplaceAll(p.File+": "+p.Message, dir+"/", ""))
	}
	want := []string{
		`conf.d/b.yaml: "id" is given twice, first at headgate.yaml:3:7`,
		`conf.d/b.yaml: "line" is given twice, first at headgate.yaml:4:9`,
		`conf.d/b.yaml: device "d" is there twice, first at headgate.yaml:6:10`,
		`conf.d/d.bad.yaml: unknown key "gatway" (did you mean "gateway"?)`,
		`conf.d/c.yml: only *.yaml is read here`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A file that is not YAML hides only what may stand in it.
func TestOneFileBroken(t *testing.T) {
	_, _, err := loadFiles(t, map[string]string{
		"headgate.yaml": "version: 1\nfoo: 1\naccess:\n  rules:\n    - {allow: publish, who: \"link:cloud\", topics: [\"#\"]}\n",
		"conf.d/b.yaml": "northbound:\n\t- name: cloud\n",
	})
	var problems *Problems
	if !errors.As(err, &problems) || len(problems.List) != 2 {
		t.Fatalf("got %v", err)
	}
}

func TestNotThere(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "headgate.yaml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "headgate init") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("folder: %v", err)
	}
	_, _, err = loadFiles(t, map[string]string{"headgate.yaml": "version: 1\n", "conf.d/a.yaml/x": ""})
	if err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("folder in conf.d: %v", err)
	}
}

func TestBounds(t *testing.T) {
	entries := "version: 1\nx:\n" + strings.Repeat("  - a\n", maxEntries)
	for name, text := range map[string]string{
		"larger than 1MiB":                        strings.Repeat("#", maxFileSize+1),
		"more than 10000 entries in one file":     entries,
		"nested deeper than 32 levels":            strings.Repeat("[", maxFileSize),
		`unknown key "x"`:                         "version: 1\nx: [" + strings.Repeat("a,", maxFileSize/32) + "]\n",
		"an explicit key (\"?\") is not accepted": strings.Repeat("? ", maxFileSize/2),
	} {
		_, _, err := loadFiles(t, map[string]string{"headgate.yaml": text})
		var problems *Problems
		if !errors.As(err, &problems) || problems.List[0].Message != name {
			t.Errorf("%s: got %.200v", name, err)
		}
	}
}

func TestManyProblems(t *testing.T) {
	_, err := loadText("f", "version: 1\nbuses:\n"+strings.Repeat("  a: {}\n", 300))
	problems, ok := err.(*Problems)
	if !ok || len(problems.List) != maxProblems || problems.More == 0 {
		t.Fatalf("got %.200v", err)
	}
	if !strings.Contains(problems.Error(), "and 200 more: correct these first") {
		t.Errorf("the rest is not counted: ...%s", problems.Error()[len(problems.Error())-80:])
	}
}
