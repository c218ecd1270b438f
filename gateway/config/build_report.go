package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/southbound"
)

// Telemetry is how what a device reads is published.
type Telemetry struct {
	TagTopic string // with {group} and {tag}; empty: together, by group
	Retain   bool   // each tag's last value
	CBOR     bool   // not JSON
}

// report builds a rule, whose keys that are not given are those of over.
func (b *builder) report(r, over *fileReport) southbound.Report {
	for _, k := range []struct {
		name string
		n    *number
		most float64
	}{{"deadband", &r.deadband, 0}, {"deadband_percent", &r.percent, 100}} {
		switch {
		case k.n.good() && k.n.v < 0:
			b.rep.add(k.n.at, "write 0 or more", "%s is negative", k.name)
		case k.most > 0 && k.n.v > k.most:
			b.rep.add(k.n.at, "write 0 to 100", "%s of more than all", k.name)
		}
	}
	return southbound.Report{
		When:     southbound.When(given(&r.when, &over.when)),
		Deadband: given(&r.deadband, &over.deadband), DeadbandPercent: given(&r.percent, &over.percent),
		Heartbeat: given(&r.heartbeat, &over.heartbeat), MinInterval: given(&r.minInterval, &over.minInterval),
	}
}

func given[T any, S syntax[T]](first, second *scalar[T, S]) T {
	if first.set {
		return first.v
	}
	return second.v
}

// tagReport builds the rule and the range of a tag.
func (b *builder) tagReport(d *fileDevice, t *fileTag) (southbound.Report, southbound.Range) {
	r := b.report(&t.report, &d.report)
	if r.When == "" && t.labels.set {
		r.When = southbound.ChangeHeartbeat
	}
	limits := numbers(&t.span)
	switch {
	case !t.span.set:
		if t.report.percent.good() {
			b.rep.add(t.report.percent.at, "add range: [0, 100], or write deadband", "deadband_percent without a range to take it of")
		}
		return r, southbound.Range{}
	case len(limits) != 2 || limits[0] >= limits[1]:
		b.rep.add(t.span.at, "write [least, most]", "range %v", limits)
		return r, southbound.Range{}
	}
	return r, southbound.Range{Low: limits[0], High: limits[1]}
}

// telemetry builds how a device publishes. Labels that its topic needs must be
// there.
func (b *builder) telemetry(d *fileDevice) Telemetry {
	all := &b.file.telemetry
	b.labels(&d.labels)
	t := Telemetry{CBOR: given(&d.payload, &all.payload) == "cbor"}
	switch given(&d.publish, &all.publish) {
	case "per_tag":
		t.TagTopic = "hg/" + b.config.Gateway.ID + "/" + d.id.v + "/{group}/{tag}"
	case "uns":
		t.TagTopic, t.Retain = b.uns(d), true
	}
	return t
}

var ownPlaceholders = []string{"gateway", "device", "group", "tag"}

// labels reports those that would be taken for something else.
func (b *builder) labels(labels *dict[label]) {
	for _, e := range labels.entries {
		if slices.Contains(ownPlaceholders, e.name) {
			b.rep.add(e.at, "choose another name", "a label named %s: that is a placeholder already", e.name)
		}
	}
}

func (b *builder) uns(d *fileDevice) string {
	known := map[string]string{"gateway": b.config.Gateway.ID, "device": d.id.v, "group": "{group}", "tag": "{tag}"}
	for _, labels := range []*dict[label]{&b.file.telemetry.labels, &d.labels} {
		for _, e := range labels.entries {
			if !slices.Contains(ownPlaceholders, e.name) {
				known[e.name] = e.item.v
			}
		}
	}
	missing := []string{}
	topic := placeholders.ReplaceAllStringFunc(b.file.telemetry.uns.v, func(p string) string {
		v, ok := known[strings.Trim(p, "{}")]
		if name := strings.Trim(p, "{}"); !ok && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		return v
	})
	if len(missing) > 0 {
		var fix []string
		for _, name := range missing {
			fix = append(fix, name+": NAME")
		}
		b.rep.add(d.at, "add labels: {"+strings.Join(fix, ", ")+"} to it or to telemetry, or leave that out of telemetry.uns",
			"device %q has no label %s, and its topic is to be %s", d.id.v, strings.Join(missing, ", "), b.file.telemetry.uns.v)
	}
	return topic
}

// unsTemplate checks the template itself.
func (b *builder) unsTemplate() {
	b.labels(&b.file.telemetry.labels)
	t := &b.file.telemetry.uns
	if !t.good() {
		return
	}
	bad := ""
	switch {
	case strings.ContainsAny(t.v, "+#"):
		bad = "contains a wildcard"
	case slices.Contains(strings.Split(t.v, "/"), ""):
		bad = "has an empty level"
	case strings.HasPrefix(t.v, "$") || strings.HasPrefix(t.v, "hg/"):
		bad = "begins like topics that have another meaning"
	case !strings.Contains(t.v, "{device}") || !strings.Contains(t.v, "{tag}"):
		bad = "lacks {device} or {tag}, so that values would share a topic"
	}
	if bad != "" {
		b.rep.add(t.at, fmt.Sprintf("write %q for example", unsTemplate), "uns %s", bad)
	}
}
