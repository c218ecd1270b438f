package config

import (
	"fmt"
	"strings"
)

// Show returns the configuration in force as YAML: the merged files, with
// defaults filled in and paths made absolute. It loads again to the same
// Config. A Config that Load did not make shows nothing.
func (c *Config) Show() string {
	if c.written == nil {
		return ""
	}
	return showSection(c.written, "")
}

// shown is every scalar.
type shown interface {
	given() bool
	show() string
}

// showSection has a line for each key with a value, all behind indent.
func showSection(s section, indent string) string {
	var b strings.Builder
	for _, k := range s.keys() {
		switch into := k.into.(type) {
		case section:
			if inner := showSection(into, indent+"  "); inner != "" {
				fmt.Fprintf(&b, "%s%s:\n%s", indent, k.name, inner)
			}
		case group:
			b.WriteString(showGroup(k.name, into, indent))
		case *free:
			if into.set {
				fmt.Fprintf(&b, "%s%s: %s\n", indent, k.name, into.json)
			}
		case shown:
			if into.given() {
				fmt.Fprintf(&b, "%s%s: %s\n", indent, k.name, into.show())
			}
		}
	}
	return b.String()
}

// showGroup shows a list of scalars in brackets, everything else in lines.
func showGroup(name string, g group, indent string) string {
	children := g.children()
	if len(children) == 0 {
		return ""
	}
	var lines strings.Builder
	var scalars []string
	for _, c := range children {
		switch into := c.into.(type) {
		case shown:
			if c.name != "" {
				fmt.Fprintf(&lines, "%s  %s: %s\n", indent, textSyntax{}.show(c.name), into.show())
				continue
			}
			scalars = append(scalars, into.show())
		case section:
			inner := showSection(into, indent+"    ")
			if c.name == "" {
				inner = indent + "  - " + strings.TrimPrefix(inner, indent+"    ")
			} else {
				fmt.Fprintf(&lines, "%s  %s:\n", indent, textSyntax{}.show(c.name))
			}
			lines.WriteString(inner)
		}
	}
	if len(scalars) > 0 {
		return fmt.Sprintf("%s%s: [%s]\n", indent, name, strings.Join(scalars, ", "))
	}
	return fmt.Sprintf("%s%s:\n%s", indent, name, lines.String())
}
