package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of one file, checked before the parser sees it: it recurses once a
// level, and its time grows with the square of the block entries.
const (
	maxFileSize = 1 << 20
	maxDepth    = 32
	maxEntries  = 10_000
)

// source is one file, as read.
type source struct {
	name  string // as problems name it
	order int    // among the files of one run
	text  string
	split []string
}

func (s *source) lines() []string {
	if s.split == nil {
		s.split = strings.Split(strings.ReplaceAll(s.text, "\r\n", "\n"), "\n")
	}
	return s.split
}

// place is where something stands. Its zero value is nowhere.
type place struct {
	src    *source
	line   int
	column int
}

func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.src.name, p.line, p.column) }

func (s *source) at(tk *token.Token) place {
	if tk == nil || tk.Position == nil {
		return place{s, 1, 1}
	}
	return place{s, max(tk.Position.Line, 1), max(tk.Position.Column, 1)}
}

// parse returns the one document of s, or nil if it is empty or was reported.
func (s *source) parse(rep *report) ast.Node {
	s.text = strings.TrimPrefix(s.text, "\ufeff")
	if !s.checkText(rep) {
		return nil
	}
	tokens := lexer.Tokenize(s.text)
	if !s.checkTokens(tokens, rep) {
		return nil
	}
	// The parser would stop at the first duplicate key; reader reports them all.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	var syntax interface {
		error
		GetMessage() string
		GetToken() *token.Token
	}
	switch {
	case errors.As(err, &syntax):
		rep.add(s.at(syntax.GetToken()), "correct the YAML here: mind indentation (spaces, no tabs), quotes and brackets",
			"not YAML: %s", syntax.GetMessage())
		return nil
	case err != nil:
		rep.add(place{s, 1, 1}, "correct the YAML", "not YAML: %v", err)
		return nil
	case len(file.Docs) == 0:
		return nil
	case len(file.Docs) > 1:
		rep.add(s.at(file.Docs[1].Start), `remove the "---", or make it a file of its own in conf.d`,
			"a second document in one file")
	}
	return file.Docs[0].Body
}

// checkText refuses what is not text.
func (s *source) checkText(rep *report) bool {
	if len(s.text) > maxFileSize {
		s.text = ""
		rep.add(place{s, 1, 1}, "split it into several files in conf.d", "larger than %s", showSize(maxFileSize))
		return false
	}
	line, column := 1, 1
	for i, r := range s.text {
		_, width := utf8.DecodeRuneInString(s.text[i:])
		switch {
		case r == '\n':
			line, column = line+1, 0
		case r == utf8.RuneError && width == 1:
			rep.add(place{s, line, column}, "save the file as UTF-8", "not UTF-8")
			return false
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			rep.add(place{s, line, column}, "remove it", "control character %U", r)
			return false
		}
		column++
	}
	return true
}

var refusedTokens = map[token.Type]string{
	token.AnchorType: "an anchor", token.AliasType: "an alias", token.MergeKeyType: "a merge key",
	token.TagType: "a type tag", token.DirectiveType: "a directive", token.MappingKeyType: "an explicit key",
}

// checkTokens refuses what a configuration does not need and what would make
// the parser slow: no output is larger than its input, nor deeper than maxDepth.
func (s *source) checkTokens(tokens token.Tokens, rep *report) bool {
	ok := true
	n := nesting{}
	for _, tk := range tokens {
		if what := refusedTokens[tk.Type]; what != "" {
			rep.add(s.at(tk), "write the value itself, in quotes if it starts with this character",
				"%s (%q) is not accepted", what, tk.Value)
			ok = false
		}
		n.step(tk)
		switch {
		case n.depth() > maxDepth:
			rep.add(s.at(tk), "remove levels", "nested deeper than %d levels", maxDepth)
			return false
		case n.entries > maxEntries:
			rep.add(s.at(tk), "split the file into several in conf.d", "more than %d entries in one file", maxEntries)
			return false
		}
	}
	return ok
}

// nesting follows the depth of tokens: brackets, and the columns of block
// entries. A list at the column of its key counts as one level with it.
type nesting struct {
	brackets int
	columns  []int
	entries  int
}

func (n *nesting) depth() int { return n.brackets + len(n.columns) }

func (n *nesting) step(tk *token.Token) {
	switch tk.Type {
	case token.MappingStartType, token.SequenceStartType:
		n.brackets++
	case token.MappingEndType, token.SequenceEndType:
		n.brackets = max(n.brackets-1, 0)
	case token.SequenceEntryType:
		n.enter(tk)
	case token.MappingValueType:
		if tk.Prev != nil {
			tk = tk.Prev
		}
		n.enter(tk)
	}
}

func (n *nesting) enter(tk *token.Token) {
	if n.brackets > 0 {
		return
	}
	n.entries++
	column := tk.Position.Column
	for len(n.columns) > 0 && n.columns[len(n.columns)-1] >= column {
		n.columns = n.columns[:len(n.columns)-1]
	}
	n.columns = append(n.columns, column)
}

// Document parses one YAML file of another program, with the bounds that a
// configuration has. It is nil if the file is empty; the error is a *Problems.
func Document(name, text string) (ast.Node, error) {
	rep := &report{}
	n := (&source{name: name, text: text}).parse(rep)
	return n, rep.err()
}
