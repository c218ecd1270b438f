package migrate

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxDepth bounds how deep a file may be nested.
const maxDepth = 32

// A node is a value of a file: a mapping if fields is not nil, a list if it says
// so, or else text. A nil node is one that is not there: it is empty.
type node struct {
	line   int
	text   string
	plain  bool // written without quotes
	keys   []string
	fields map[string]*node
	list   bool
	items  []*node
	seen   bool
}

func newMapping(line int) *node { return &node{line: line, fields: make(map[string]*node)} }

// add puts a value under a key that is not there yet.
func (n *node) add(key string, value *node) {
	if _, there := n.fields[key]; !there {
		n.keys = append(n.keys, key)
	}
	n.fields[key] = value
}

// get returns what stands under a key and marks it as looked at.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	v := n.fields[key]
	if v != nil {
		v.seen = true
	}
	return v
}

// each returns the elements of a list.
func (n *node) each() []*node {
	if n == nil {
		return nil
	}
	for _, i := range n.items {
		i.seen = true
	}
	return n.items
}

// str is a scalar's text, empty if there is none.
func (n *node) str() string {
	if n == nil || n.fields != nil || n.list {
		return ""
	}
	return n.text
}

// is reports whether a switch is on.
func (n *node) is() bool { return strings.EqualFold(n.str(), "true") }

// whole reads a number between least and most; absent is what it is without.
func (n *node) whole(least, most, absent int) (int, error) {
	if n == nil {
		return absent, nil
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(n.str(), "_", ""), 0, 64)
	if err != nil || v < int64(least) || v > int64(most) {
		return 0, fmt.Errorf("%q is no whole number from %d to %d", n.text, least, most)
	}
	return int(v), nil
}

// number reads a decimal that may stand in quotes; ok says that there is one.
func (n *node) number() (v float64, ok bool, err error) {
	if n == nil || n.str() == "" && n.fields == nil && !n.list {
		return 0, false, nil
	}
	v, err = strconv.ParseFloat(strings.ReplaceAll(n.str(), "_", ""), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, false, fmt.Errorf("%q is no number", n.text)
	}
	return v, true, nil
}

// unseen calls tell for each key that nobody looked at.
func (n *node) unseen(path string, tell func(line int, path string)) {
	for _, key := range n.keys {
		v, at := n.fields[key], key
		if path != "" {
			at = path + "." + key
		}
		if !v.seen {
			tell(v.line, at)
			continue
		}
		v.unseen(at, tell)
	}
	for _, v := range n.items {
		if v.seen {
			v.unseen(path, tell)
		}
	}
}

var errDeep = errors.New("nested deeper than 32 levels: is it the right file?")
