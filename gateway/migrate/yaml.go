package migrate

import (
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
	"github.com/headgate-io/headgate/gateway/config"
)

// readYAML returns a file's document, nil if it is empty. Anchors and the like
// are refused.
func readYAML(f File) (*node, error) {
	doc, err := config.Document(f.Name, string(f.Text))
	if err != nil {
		return nil, err
	}
	return fromYAML(doc, 0)
}

func fromYAML(n ast.Node, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return nil, nil
	case *ast.MappingNode:
		return mappingOf(n, n.Values, depth)
	case *ast.MappingValueNode:
		return mappingOf(n, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out := &node{line: lineOf(n), list: true}
		for _, v := range n.Values {
			item, err := fromYAML(v, depth+1)
			if err != nil {
				return nil, err
			}
			if item != nil {
				out.items = append(out.items, item)
			}
		}
		return out, nil
	case *ast.LiteralNode:
		return &node{line: lineOf(n), text: n.Value.Value}, nil
	}
	tk := n.GetToken()
	if tk == nil {
		return nil, nil
	}
	quoted := tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType
	return &node{line: lineOf(n), text: tk.Value, plain: !quoted}, nil
}

func mappingOf(n ast.Node, values []*ast.MappingValueNode, depth int) (*node, error) {
	out := newMapping(lineOf(n))
	for _, kv := range values {
		v, err := fromYAML(kv.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if v != nil {
			v.line = lineOf(kv.Key)
			out.add(kv.Key.GetToken().Value, v)
		}
	}
	return out, nil
}

func lineOf(n ast.Node) int {
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return max(tk.Position.Line, 1)
	}
	return 1
}
