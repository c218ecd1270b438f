package gateway_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/threats.md names exists.
func TestThreatsNameTests(t *testing.T) {
	page, err := os.ReadFile("../docs/threats.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, file := range sources(t) {
		if !strings.HasSuffix(file.name, "_test.go") {
			continue
		}
		for _, m := range declared.FindAllStringSubmatch(file.text, -1) {
			there[m[1]] = true
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(page), -1)
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("docs/threats.md names %s, which does not exist", m[1])
		}
	}
	if len(named) < 60 {
		t.Errorf("only %d tests are named", len(named))
	}
}
