package migrate

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// readTOML returns a file as a mapping. The library checks it; its parser is
// then asked again for the lines.
func readTOML(f File) (*node, error) {
	var all map[string]any
	if err := toml.Unmarshal(f.Text, &all); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, column := at.Position()
			return nil, fmt.Errorf("%s:%d:%d: not TOML: %s; correct it, as telegraf would not take the file either", f.Name, row, column, at.Error())
		}
		return nil, fmt.Errorf("%s: not TOML: %w; correct it, as telegraf would not take the file either", f.Name, err)
	}
	r := tomlReader{text: f.Text, root: newMapping(1)}
	r.table = r.root
	var p unstable.Parser
	p.Reset(f.Text)
	for p.NextExpression() {
		if err := r.expression(p.Expression()); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.Name, r.line, err)
		}
	}
	return r.root, p.Error()
}

type tomlReader struct {
	text  []byte
	root  *node
	table *node // the one that is open
	line  int
	seen  int // bytes of text whose lines are counted
}

// at is the line of a part of the text; parts come in order.
func (r *tomlReader) at(n *unstable.Node) int {
	if to := int(n.Raw.Offset); n.Raw.Length > 0 && to > r.seen && to <= len(r.text) {
		r.line += bytes.Count(r.text[r.seen:to], []byte("\n"))
		r.seen = to
	}
	return r.line + 1
}

func (r *tomlReader) expression(e *unstable.Node) error {
	switch e.Kind {
	case unstable.Table:
		parent, last, err := r.walk(r.root, e.Key())
		if err != nil {
			return err
		}
		r.table, err = child(parent, last, r.line+1)
		return err
	case unstable.ArrayTable:
		parent, last, err := r.walk(r.root, e.Key())
		if err != nil {
			return err
		}
		list := parent.fields[last]
		if list == nil {
			list = &node{line: r.line + 1, list: true}
			parent.add(last, list)
		}
		r.table = newMapping(r.line + 1)
		list.items = append(list.items, r.table)
	case unstable.KeyValue:
		return r.keyValue(r.table, e, 0)
	}
	return nil
}

func (r *tomlReader) keyValue(into *node, e *unstable.Node, depth int) error {
	parent, last, err := r.walk(into, e.Key())
	if err != nil {
		return err
	}
	line := r.line + 1
	v, err := r.value(e.Value(), depth+1)
	if err == nil {
		v.line = line
		parent.add(last, v)
	}
	return err
}

func (r *tomlReader) value(n *unstable.Node, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	out := &node{line: r.at(n)}
	switch n.Kind {
	case unstable.Array:
		out.list = true
		for it := n.Children(); it.Next(); {
			item, err := r.value(it.Node(), depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, item)
		}
	case unstable.InlineTable:
		out.fields = make(map[string]*node)
		for it := n.Children(); it.Next(); {
			if err := r.keyValue(out, it.Node(), depth+1); err != nil {
				return nil, err
			}
		}
		if len(out.keys) > 0 {
			out.line = out.fields[out.keys[0]].line
		}
	default:
		out.text, out.plain = string(n.Data), n.Kind != unstable.String
	}
	return out, nil
}

// walk goes down a dotted key to the mapping that its last part belongs to.
func (r *tomlReader) walk(from *node, key unstable.Iterator) (parent *node, last string, err error) {
	parent = from
	for depth := 0; key.Next(); depth++ {
		if depth > maxDepth {
			return nil, "", errDeep
		}
		r.at(key.Node())
		last = string(key.Node().Data)
		if key.IsLast() {
			return parent, last, nil
		}
		if parent, err = child(parent, last, r.line+1); err != nil {
			return nil, "", err
		}
	}
	return nil, "", errors.New("a key without a name")
}

// child returns the mapping under a key, the newest of a list of them.
func child(parent *node, key string, line int) (*node, error) {
	v := parent.fields[key]
	if v == nil {
		v = newMapping(line)
		parent.add(key, v)
	}
	if v.list && len(v.items) > 0 {
		v = v.items[len(v.items)-1]
	}
	if v.fields == nil {
		return nil, fmt.Errorf("%s is no table", key)
	}
	return v, nil
}
