package config

import (
	"bytes"
	"encoding/json"

	"github.com/goccy/go-yaml/ast"
)

// list is a sequence of sections or scalars. Several files append to it.
type list[T any] struct {
	at    place
	set   bool
	items []*T
}

func (l *list[T]) decode(r *reader, n ast.Node, k key) {
	var nodes []ast.Node
	switch n := n.(type) {
	case nil, *ast.NullNode: // every element is commented out
		return
	case *ast.SequenceNode:
		nodes = n.Values
	default:
		if _, scalar := n.(ast.ScalarNode); !scalar || !k.single {
			r.rep.add(r.at(n), "put it in brackets: "+k.name+": [...]", "%s must be a list, not %s", k.name, describe(n))
			l.set = true
			return
		}
		nodes = []ast.Node{n}
	}
	if !l.set {
		l.at = r.at(n)
	}
	l.set = l.set || len(nodes) > 0
	for _, node := range nodes {
		item := new(T)
		if s, ok := any(item).(section); ok {
			s.as().at = r.at(node)
		}
		element := key{name: k.name, into: item, oneOf: k.oneOf, min: k.min, max: k.max, doc: k.doc}
		r.decode(node, element)
		l.items = append(l.items, item)
	}
}

func (l *list[T]) written() bool { return l.set }
func (l *list[T]) blank() any    { return new(T) }
func (l *list[T]) kind() string  { return "list" }

func (l *list[T]) children() []child {
	all := make([]child, len(l.items))
	for i, item := range l.items {
		all[i].into = item
	}
	return all
}

// dict is a mapping from names that people choose, in the order of the files.
type dict[T any] struct {
	at      place
	set     bool
	entries []entry[T]
}

type entry[T any] struct {
	name string
	at   place
	item *T
}

func (d *dict[T]) decode(r *reader, n ast.Node, k key) {
	nodes, ok := r.mapping(n, k.name)
	if !ok || len(nodes) == 0 {
		d.set = d.set || !ok
		return
	}
	if !d.set {
		d.at, d.set = r.at(n), true
	}
	for _, node := range nodes {
		name, at := node.Key.GetToken().Value, r.at(node.Key)
		if first := d.find(name); first != nil {
			r.twice(at, name, first.at)
			continue
		}
		if f := checkName(name); f != nil {
			r.rep.add(at, f.fix, "name %q in %s %s", name, k.name, f.message)
		}
		e := entry[T]{name: name, at: at, item: new(T)}
		if s, ok := any(e.item).(section); ok {
			s.as().at = at
		}
		r.decode(node.Value, key{name: name, into: e.item})
		d.entries = append(d.entries, e)
	}
}

func (d *dict[T]) find(name string) *entry[T] {
	for i := range d.entries {
		if d.entries[i].name == name {
			return &d.entries[i]
		}
	}
	return nil
}

func (d *dict[T]) written() bool { return d.set }
func (d *dict[T]) blank() any    { return new(T) }
func (d *dict[T]) kind() string  { return "mapping by name" }

func (d *dict[T]) children() []child {
	all := make([]child, len(d.entries))
	for i, e := range d.entries {
		all[i] = child{e.name, e.item}
	}
	return all
}

// free is a mapping that only a plugin understands, kept as JSON.
type free struct {
	at   place
	set  bool
	json json.RawMessage
}

func (f *free) written() bool { return f.set }

func (f *free) decode(r *reader, n ast.Node, k key) {
	if _, ok := r.mapping(n, k.name); !ok {
		return
	}
	f.at, f.set = r.at(n), true
	var b bytes.Buffer
	if _, null := n.(*ast.NullNode); null || n == nil {
		b.WriteString("{}")
	} else {
		r.json(&b, n)
	}
	f.json = b.Bytes()
}

// json writes n as JSON, keys in the order of the file.
func (r *reader) json(b *bytes.Buffer, n ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		entries, _ := r.mapping(n, "")
		r.jsonObject(b, entries)
	case *ast.SequenceNode:
		b.WriteByte('[')
		for i, v := range n.Values {
			if i > 0 {
				b.WriteByte(',')
			}
			r.json(b, v)
		}
		b.WriteByte(']')
	case *ast.LiteralNode:
		b.Write(quoteJSON(n.Value.Value))
	case *ast.StringNode:
		b.Write(quoteJSON(n.Value))
	case *ast.NullNode, nil:
		b.WriteString("null")
	case ast.ScalarNode:
		out, err := json.Marshal(n.GetValue())
		if err != nil { // an infinity, or not a number
			r.rep.add(r.at(n), "write a finite number, or text in quotes", "%s cannot be handed to a plugin", n.GetToken().Value)
		}
		b.Write(out)
	}
}

func (r *reader) jsonObject(b *bytes.Buffer, entries []*ast.MappingValueNode) {
	seen := make(map[string]place)
	b.WriteByte('{')
	for i, e := range entries {
		name, at := e.Key.GetToken().Value, r.at(e.Key)
		if first, again := seen[name]; again {
			r.twice(at, name, first)
		}
		seen[name] = at
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quoteJSON(name))
		b.WriteByte(':')
		r.json(b, e.Value)
	}
	b.WriteByte('}')
}

// quoteJSON is s as a JSON string, which is also a YAML one.
func quoteJSON(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // text always encodes, and a buffer takes it
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
