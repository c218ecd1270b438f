package config

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// A key is one row of the declaration: what may be written, what it means, and
// where it goes.
type key struct {
	name     string
	into     any      // a section, or a field
	def      string   // default, as it would be written
	min, max string   // inclusive range, as it would be written
	oneOf    []string // the only values
	required bool
	single   bool   // a list that may be written as its only element
	doc      string // one or more sentences
}

// advice is doc for the end of a problem.
func (k key) advice() string {
	advice := strings.ReplaceAll(k.doc, "`", "")
	if len(k.oneOf) > 0 {
		advice += " One of " + strings.Join(k.oneOf, ", ") + "."
	}
	return advice
}

// A section is a mapping with known keys.
type section interface {
	keys() []key
	as() *block
}

// A field is a value that decodes itself.
type field interface {
	decode(r *reader, n ast.Node, k key)
	written() bool // in a file
}

// A group is a field that holds others.
type group interface {
	field
	children() []child
	blank() any // a new, empty child
	kind() string
}

type child struct {
	name string // empty in a list
	into any
}

// block makes a struct with keys a section.
type block struct {
	at    place
	meant []string // keys that were probably meant by unknown ones
}

func (b *block) as() *block { return b }

// lacks says that a key is not there, and not misspelt either.
func (b *block) lacks(name string, f field) bool {
	return !f.written() && !slices.Contains(b.meant, name)
}

// reader decodes one file into the file's shape, adding to what others left.
type reader struct {
	src *source
	dir string // of the first file: what relative paths are relative to
	rep *report
}

func (r *reader) decode(n ast.Node, k key) {
	switch into := k.into.(type) {
	case section:
		r.section(n, into, k.name)
	case field:
		into.decode(r, n, k)
	}
}

func (r *reader) section(n ast.Node, s section, name string) {
	entries, ok := r.mapping(n, name)
	if !ok {
		return
	}
	if s.as().at.src == nil {
		s.as().at = r.at(n)
	}
	keys := s.keys()
	seen := make(map[string]place)
	for _, e := range entries {
		at := r.at(e.Key)
		written := e.Key.GetToken().Value
		if first, again := seen[written]; again {
			r.twice(at, written, first)
			continue
		}
		seen[written] = at
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == written })
		if i < 0 {
			s.as().meant = append(s.as().meant, r.unknown(at, written, keys))
			continue
		}
		r.decode(e.Value, keys[i])
	}
}

// unknown reports a key and returns the one that was probably meant, if any.
func (r *reader) unknown(at place, written string, keys []key) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	suffix, nearest := didYouMean(written, names)
	fix := "remove it; known here are " + strings.Join(names, ", ")
	if nearest != "" {
		fix = "write " + nearest + ", or remove it"
	}
	r.rep.add(at, fix, "unknown key %q%s", written, suffix)
	return nearest
}

func (r *reader) twice(at place, name string, first place) {
	r.rep.add(at, "keep one of the two", "%q is given twice, first at %s", name, first)
}

// mapping returns the entries of n. Nothing at all is an empty mapping.
func (r *reader) mapping(n ast.Node, name string) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return nil, true
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	r.rep.add(r.at(n), "write keys with values, or remove it", "%s must be a mapping of keys, not %s", name, describe(n))
	return nil, false
}

// at is where n begins. The parser says of a block mapping where its first
// colon stands.
func (r *reader) at(n ast.Node) place {
	switch n := n.(type) {
	case nil:
		return place{r.src, 1, 1}
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return r.src.at(n.Values[0].Key.GetToken())
		}
	case *ast.MappingValueNode:
		return r.src.at(n.Key.GetToken())
	}
	return r.src.at(n.GetToken())
}

// describe names what was written in the words of a message.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode, nil:
		return "nothing"
	}
	return "text"
}

// word is a scalar as written.
type word struct {
	text   string
	quoted bool
	plain  string // what YAML takes it for, in the words of describe
	dir    string
}

// word returns the scalar n, or reports that it is none.
func (r *reader) word(n ast.Node, k key, kind string) (word, bool) {
	w := word{plain: describe(n), dir: r.dir}
	switch n := n.(type) {
	case *ast.StringNode:
		w.text = n.Value
		w.quoted = n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		w.text, w.quoted = n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		w.text = n.GetToken().Value
	case *ast.NullNode, nil:
		r.rep.add(r.at(n), "write a value, or remove the key", "%s has no value", k.name)
		return w, false
	default:
		r.rep.add(r.at(n), "write one value", "%s must be a %s, not %s", k.name, kind, describe(n))
		return w, false
	}
	return w, true
}

// complete fills in defaults and reports what is required and missing.
func (r *report) complete(s section) {
	for _, k := range s.keys() {
		switch into := k.into.(type) {
		case section:
			r.complete(into)
			continue
		case group:
			r.completeAll(into)
		case interface{ preset(k key) }:
			into.preset(k)
		}
		if f, ok := k.into.(field); ok && k.required && s.as().lacks(k.name, f) {
			r.add(s.as().at, "add "+k.name+". "+k.advice(), "%s is missing", k.name)
		}
	}
}

func (r *report) completeAll(g group) {
	for _, c := range g.children() {
		if s, ok := c.into.(section); ok {
			r.complete(s)
		}
	}
}
