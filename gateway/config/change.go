package config

import (
	"slices"
	"strings"
)

// A Change is one setting that differs between two configurations.
type Change struct {
	Path string // broker.limits.connections, devices[boiler].unit, access.rules
	Old  string // as Show writes it; empty: it was not there
	New  string // empty: it is gone
}

// Changes tells what is different in next, in the order of the file. Both were
// made by Load. What a plugin is configured with is not told: it may hold
// secrets.
func (c *Config) Changes(next *Config) []Change {
	before, after := flatten(c.written, ""), flatten(next.written, "")
	index := map[string]int{}
	for i := range after {
		index[after[i].path] = i
	}
	var all []Change
	seen := map[string]bool{}
	for _, old := range before {
		seen[old.path] = true
		if i, ok := index[old.path]; ok {
			all = append(all, compare(old, after[i])...)
		} else {
			all = append(all, compare(old, setting{path: old.path})...)
		}
	}
	for _, s := range after {
		if !seen[s.path] {
			all = append(all, compare(setting{path: s.path}, s)...)
		}
	}
	return all
}

// Adopt is c with what a running gateway can take over from next: access, with
// the exception of where certificates have their names, limits, lockout,
// limits of the queue and of its lanes, and the routes of links.
// Everything else takes a restart.
func (c *Config) Adopt(next *Config) *Config {
	adopted, written := *c, *c.written
	adopted.Access, adopted.Broker.Limits, adopted.Broker.Lockout = next.Access, next.Broker.Limits, next.Broker.Lockout
	adopted.Access.CertificateName = c.Access.CertificateName
	adopted.Queue.MaxSize, adopted.Queue.MinFree = next.Queue.MaxSize, next.Queue.MinFree
	written.queue.maxSize, written.queue.minFree = next.written.queue.maxSize, next.written.queue.minFree
	if sameLanes(c.Queue.Lanes, next.Queue.Lanes) {
		adopted.Queue.Lanes, written.queue.lanes = next.Queue.Lanes, next.written.queue.lanes
	}
	adopted.adoptRoutes(next, &written)
	written.access, written.broker.limits, written.broker.lockout = next.written.access, next.written.broker.limits, next.written.broker.lockout
	written.access.certificateName = c.written.access.certificateName
	adopted.written = &written
	return &adopted
}

// adoptRoutes takes over the routes of links that both have.
func (c *Config) adoptRoutes(next *Config, written *file) {
	c.Northbound, written.northbound.items = slices.Clone(c.Northbound), slices.Clone(written.northbound.items)
	for i := range c.Northbound {
		j := slices.IndexFunc(next.Northbound, func(l Link) bool { return l.Name == c.Northbound[i].Name })
		if j < 0 {
			continue
		}
		c.Northbound[i].Send, c.Northbound[i].Receive = next.Northbound[j].Send, next.Northbound[j].Receive
		l := *written.northbound.items[i]
		l.send, l.receive = next.written.northbound.items[j].send, next.written.northbound.items[j].receive
		written.northbound.items[i] = &l
	}
}

// sameLanes reports whether lanes differ in nothing but their limits.
func sameLanes(a, b []Lane) bool {
	return slices.EqualFunc(a, b, func(x, y Lane) bool {
		return x.Name == y.Name && x.Priority == y.Priority && slices.Equal(x.Topics, y.Topics)
	})
}

// A setting is one path and what stands there: one value, or the elements of a
// list that have no names, in order.
type setting struct {
	path   string
	values []string
	secret string // compared, not told
}

// compare tells the values that are only in old or only in now; elements of a
// list that stay in their order are no change.
func compare(old, now setting) (changes []Change) {
	if old.secret != now.secret {
		return []Change{{Path: old.path, Old: veil(old.secret), New: veil(now.secret)}}
	}
	a, b := old.values, now.values
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a) == 1 && len(b) == 1 {
		return []Change{{old.path, a[0], b[0]}}
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			a, b = a[1:], b[1:]
		case len(a) > 0 && !slices.Contains(b, a[0]):
			changes, a = append(changes, Change{Path: old.path, Old: a[0]}), a[1:]
		case len(b) > 0 && !slices.Contains(a, b[0]):
			changes, b = append(changes, Change{Path: old.path, New: b[0]}), b[1:]
		case len(a) > 0: // it moved down: its next place is told as new
			changes, a = append(changes, Change{Path: old.path, Old: a[0]}), a[1:]
		}
	}
	return changes
}

func veil(secret string) string {
	if secret == "" {
		return ""
	}
	return "(not shown)"
}

// flatten lists every setting of s that has a value.
func flatten(s section, path string) []setting {
	var all []setting
	for _, k := range s.keys() {
		all = append(all, settingsOf(k.into, path+k.name)...)
	}
	return all
}

func settingsOf(into any, path string) []setting {
	switch into := into.(type) {
	case section:
		return flatten(into, path+".")
	case group:
		return flattenGroup(into, path)
	case *free:
		if into.set {
			return []setting{{path: path, secret: string(into.json)}}
		}
	case shown:
		if into.given() {
			return []setting{{path: path, values: []string{into.show()}}}
		}
	}
	return nil
}

func flattenGroup(g group, path string) (all []setting) {
	list := setting{path: path}
	for _, c := range g.children() {
		name := c.name
		if s, ok := c.into.(section); ok && name == "" {
			name = nameOf(s)
		}
		if name != "" {
			all = append(all, settingsOf(c.into, path+"["+name+"]")...)
		} else {
			list.values = append(list.values, inline(c.into))
		}
	}
	if len(list.values) > 0 {
		all = append(all, list)
	}
	return all
}

// nameOf is what the elements of a list are told apart by, if anything.
func nameOf(s section) string {
	for _, k := range s.keys() {
		if v, ok := k.into.(shown); ok && (k.name == "name" || k.name == "id" || k.name == "address") && v.given() {
			return v.show()
		}
	}
	return ""
}

// inline is a value in YAML's flow style.
func inline(into any) string {
	var parts []string
	switch into := into.(type) {
	case section:
		for _, k := range into.keys() {
			if text := inline(k.into); text != "" {
				parts = append(parts, k.name+": "+text)
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case group:
		for _, c := range into.children() {
			parts = append(parts, inline(c.into))
		}
		if len(parts) > 0 {
			return "[" + strings.Join(parts, ", ") + "]"
		}
	case shown:
		if into.given() {
			return into.show()
		}
	}
	return ""
}
