package config

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the tests compare with")

// loadText is Load for a file /etc/headgate/NAME and no conf.d.
func loadText(name, text string) (*Config, error) {
	return parse([]*source{{name: name, text: text}}, "/etc/headgate", "host-1", &report{})
}

// golden compares got with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; run: go generate ./gateway/config", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if that is right, run: go generate ./gateway/config\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// each runs fn for every file of testdata with that suffix.
func each(t *testing.T, suffix string, least int, fn func(t *testing.T, name, text string)) {
	t.Helper()
	names, err := filepath.Glob("testdata/*" + suffix)
	if err != nil || len(names) < least {
		t.Fatalf("%d files testdata/*%s, %v", len(names), suffix, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), suffix), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fn(t, name, string(text))
		})
	}
}

// TestGeneratedGood holds what good files come to, in the words of Show, and
// that what Show says loads again to the same.
func TestGeneratedGood(t *testing.T) {
	each(t, ".good.yaml", 8, func(t *testing.T, name, text string) {
		first, err := loadText(filepath.Base(name), text)
		if err != nil {
			t.Fatal(err)
		}
		shown := first.Show()
		golden(t, strings.TrimSuffix(name, ".yaml")+".shown", shown)
		again, err := loadText("shown", shown)
		if err != nil {
			t.Fatalf("what Show says does not load: %v", err)
		}
		if s := again.Show(); s != shown {
			t.Errorf("shown again:\n%s\nwant:\n%s", s, shown)
		}
		first.written, again.written = nil, nil
		if !reflect.DeepEqual(first, again) {
			t.Errorf("loaded from Show:\n%+v\nwant:\n%+v", again, first)
		}
	})
}

// TestGeneratedBad holds every word, place and cure of every problem.
func TestGeneratedBad(t *testing.T) {
	each(t, ".bad.yaml", 50, func(t *testing.T, name, text string) {
		_, err := loadText(filepath.Base(name), text)
		problems, ok := err.(*Problems)
		if !ok {
			t.Fatalf("got %v, want problems", err)
		}
		for _, p := range problems.List {
			if p.File != filepath.Base(name) || p.Line < 1 || p.Column < 1 || p.Message == "" || p.Fix == "" {
				t.Errorf("incomplete: %+v", p)
			}
			if text != "" && !strings.HasSuffix(p.Excerpt, "^\n") {
				t.Errorf("no caret: %+v", p)
			}
		}
		golden(t, strings.TrimSuffix(name, ".yaml")+".txt", problems.Error()+"\n")
	})
}
