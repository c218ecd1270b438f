package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// builder turns the file's shape into the program's, and reports what is
// impossible on the way. A value that could not be read was reported and is
// passed over: good says whether one is there to check.
type builder struct {
	file   *file
	rep    *report
	config *Config
}

func (b *builder) build(host string) {
	b.gateway(host)
	b.broker()
	b.queue()
	b.northbound()
	b.unsTemplate()
	b.buses()
	b.devices()
	b.access()
	b.admin()
}

func (b *builder) gateway(host string) {
	g := &b.file.gateway
	if !g.id.set {
		g.id.v, g.id.has = hostID(host), true
	}
	b.config.Gateway = Gateway{ID: g.id.v, Data: g.data.v, Plugins: g.plugins.v}
}

// hostID makes a gateway id of a host's name.
func hostID(host string) string {
	id := strings.Map(func(r rune) rune {
		if namePattern.MatchString(string(r)) {
			return r
		}
		return '-'
	}, host)
	if id = strings.Trim(id[:min(len(id), 64)], "-."); id == "" {
		return "gateway"
	}
	return id
}

// unique reports names that were given before.
type unique map[string]place

func (u unique) add(b *builder, what, name string, at place) bool {
	first, again := u[name]
	if again {
		b.rep.add(at, "give one of them another, or remove it", "%s %q is there twice, first at %s", what, name, first)
		return false
	}
	u[name] = at
	return true
}

var placeholders = regexp.MustCompile(`\{[^{}]*\}`)

// expand replaces {gateway}. Of the other placeholders it leaves in what may
// stand here, and reports the rest.
func (b *builder) expand(t *text, left ...string) string {
	allowed := append([]string{"{gateway}"}, left...)
	return placeholders.ReplaceAllStringFunc(t.v, func(p string) string {
		if p == "{gateway}" {
			return b.config.Gateway.ID
		}
		if !slices.Contains(allowed, p) {
			suffix, _ := didYouMean(p, allowed)
			b.rep.add(t.at, "write "+strings.Join(allowed, " or ")+", or spell it out", "placeholder %s means nothing here%s", p, suffix)
		}
		return p
	})
}

// filters expands and checks a list of topic filters.
func (b *builder) filters(l *list[text]) []string {
	var all []string
	for _, t := range l.items {
		if !t.good() {
			continue
		}
		f := b.expand(t)
		if err := checkFilter(f); err != nil {
			b.rep.add(t.at, `write a filter: levels between "/", "+" for any one level, "#" only as the last`,
				"topic filter %q: %v", f, err)
			continue
		}
		all = append(all, f)
	}
	return all
}

func checkFilter(filter string) error {
	if err := mqtt.CheckFilter(filter); err != nil {
		return inShort(err)
	}
	if _, _, shared := mqtt.SplitShared(filter); shared {
		return fmt.Errorf("a shared subscription has no meaning here")
	}
	return nil
}

// inShort leaves out of an error what the message around it says.
func inShort(err error) error {
	var e *mqtt.Error
	if errors.As(err, &e) {
		return fmt.Errorf("%s [%s]", e.Text, e.Clause)
	}
	return err
}

// coveredBy says whether every filter of sub is covered by one of filters.
func coveredBy(sub, filters []string) bool {
	return len(sub) > 0 && !slices.ContainsFunc(sub, func(s string) bool {
		return !slices.ContainsFunc(filters, func(f string) bool { return mqtt.Covers(f, s) })
	})
}

func (b *builder) queue() {
	q := &b.file.queue
	b.config.Queue = Queue{MaxSize: q.maxSize.v, MinFree: q.minFree.v, CommitLinger: q.commitLinger.v, Encryption: q.encryption.v, KeyFile: q.keyFile.v}
	names := make(unique)
	var before []string
	var total int64 // that lanes may use
	for i, l := range q.lanes.items {
		if l.name.good() {
			names.add(b, "lane", l.name.v, l.name.at)
		}
		topics := b.filters(&l.topics)
		if coveredBy(topics, before) {
			b.rep.add(l.at, "move it up, or remove it", "lane %q can never match: the lanes above take all its topics", l.name.v)
		}
		before = append(before, topics...)
		last := i == len(q.lanes.items)-1
		if last && !slices.Contains(topics, "#") && len(topics) == len(l.topics.items) && l.topics.set {
			b.rep.add(l.topics.at, `write topics: ["#"]`, `the last lane must take the rest: its topics must contain "#"`)
		}
		b.config.Queue.Lanes = append(b.config.Queue.Lanes, Lane{
			Name: l.name.v, Topics: topics, Priority: int(l.priority.v), MaxSize: l.maxSize.v, MaxAge: l.maxAge.v, WhenFull: WhenFull(l.whenFull.v),
		})
		if total += l.maxSize.v; l.maxSize.good() && total > q.maxSize.v && q.maxSize.has {
			b.rep.add(l.maxSize.at, "make max_size of the lanes smaller, or that of the queue larger",
				"the lanes down to %q may use %s together, and the queue only %s", l.name.v, showSize(total), showSize(q.maxSize.v))
		}
	}
	if len(q.lanes.items) == 0 {
		b.config.Queue.Lanes = []Lane{{Name: "all", Topics: []string{"#"}, WhenFull: Refuse}}
	}
}

func (b *builder) admin() {
	a := &b.file.admin.address
	if !a.has || a.v == "" {
		return
	}
	address, ok := b.address(a)
	if ok && !isLoopback(address) {
		b.rep.add(a.at, `write "127.0.0.1:9883", and reach it through SSH or a proxy with TLS`,
			"admin address %q is not a loopback address: what it serves would be open to the network", a.v)
	}
	b.config.Admin.Address = address
}
