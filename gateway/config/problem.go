package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Problem is one thing that is wrong with the configuration.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Message string `json:"message"`
	Excerpt string `json:"excerpt"` // the line, the one above it and a caret; may be empty
	Fix     string `json:"fix"`     // what to do
}

// String is the problem as "headgate check" prints it, without a last newline.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s\n", p.File, p.Line, p.Column, p.Message)
	b.WriteString(p.Excerpt)
	fmt.Fprintf(&b, "   fix: %s", p.Fix)
	return b.String()
}

// Problems is the error of Load for a configuration that was read and is not
// right. It holds at least one problem, in the order of files and lines.
type Problems struct {
	List []Problem `json:"problems"`
	More int       `json:"more"` // problems beyond the first 100, counted only
}

// Error lists all problems, a blank line between them.
func (p *Problems) Error() string {
	all := make([]string, 0, len(p.List)+1)
	for _, one := range p.List {
		all = append(all, one.String())
	}
	if p.More > 0 {
		all = append(all, fmt.Sprintf("and %d more: correct these first", p.More))
	}
	return strings.Join(all, "\n\n")
}

const maxProblems = 100

// report collects problems.
type report struct {
	found []found
	more  int
}

type found struct {
	at      place
	message string
	fix     string
}

func (r *report) add(at place, fix, format string, args ...any) {
	if len(r.found) == maxProblems {
		r.more++
		return
	}
	r.found = append(r.found, found{at, fmt.Sprintf(format, args...), fix})
}

// err is nil if nothing was found.
func (r *report) err() error {
	if len(r.found) == 0 {
		return nil
	}
	slices.SortStableFunc(r.found, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.at.src.order, b.at.src.order), cmp.Compare(a.at.line, b.at.line),
			cmp.Compare(a.at.column, b.at.column))
	})
	p := &Problems{More: r.more}
	for _, f := range r.found {
		p.List = append(p.List, Problem{
			File: f.at.src.name, Line: f.at.line, Column: f.at.column,
			Message: printable(f.message), Excerpt: f.at.excerpt(), Fix: printable(f.fix),
		})
	}
	return p
}

const excerptWidth = 100 // characters of a source line that are shown

// excerpt shows the line at p below the one before it, with a caret.
func (p place) excerpt() string {
	lines := p.src.lines()
	if p.src.text == "" || p.line > len(lines) {
		return ""
	}
	from := 0
	if p.column > excerptWidth-20 {
		from = p.column - excerptWidth/2
	}
	var b strings.Builder
	if p.line > 1 {
		fmt.Fprintf(&b, " %3d | %s\n", p.line-1, window(lines[p.line-2], from))
	}
	mark := fmt.Sprintf(">%3d | ", p.line)
	fmt.Fprintf(&b, "%s%s\n", mark, window(lines[p.line-1], from))
	fmt.Fprintf(&b, "%s^\n", strings.Repeat(" ", len(mark)+max(p.column-1-from, 0)))
	return b.String()
}

// window cuts a line to what fits, a column a character.
func window(line string, from int) string {
	runes := []rune(line[:min(len(line), (from+excerptWidth)*utf8.UTFMax)])
	runes = runes[min(from, len(runes)):]
	return strings.TrimRight(printable(string(runes[:min(excerptWidth, len(runes))])), " ")
}

// printable keeps a configuration file from driving the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '·'
	}, s)
}

// didYouMean is the known word nearest to the one written, as an addition to a
// message, and alone; both are empty if none is near.
func didYouMean(written string, known []string) (suffix, nearest string) {
	best := 3
	for _, k := range known {
		if d := distance(strings.ToLower(written), strings.ToLower(k)); d < best && d <= max(1, len(k)/2) {
			best, nearest = d, k
		}
	}
	if nearest == "" {
		return "", ""
	}
	return fmt.Sprintf(" (did you mean %q?)", nearest), nearest
}

// distance is the number of letters to insert, remove or change.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
