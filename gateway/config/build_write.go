package config

import (
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
)

// writable notes how a tag may be written.
func (b *builder) writable(dev *Device, t *fileTag, tag modbus.Tag) {
	b.checkLimits(t)
	if !tag.Writable {
		return
	}
	w := southbound.Writable{
		Step: t.step.v, MaxRate: int(t.maxRate.v), Unverified: t.verify.good() && !t.verify.v,
		Interlock: southbound.Interlock{Tag: t.interlock.tag.v, Equals: t.interlock.equals.v},
	}
	if t.min.good() {
		w.Min = &t.min.v
	}
	if t.max.good() {
		w.Max = &t.max.v
	}
	if dev.Writable == nil {
		dev.Writable = map[string]southbound.Writable{}
	}
	for _, name := range modbus.Names(tag) {
		dev.Writable[name] = w
	}
}

func (b *builder) checkLimits(t *fileTag) {
	for _, k := range []struct {
		name string
		set  bool
		at   place
	}{
		{"min", t.min.set, t.min.at}, {"max", t.max.set, t.max.at}, {"step", t.step.set, t.step.at}, {"max_rate", t.maxRate.set, t.maxRate.at},
		{"verify", t.verify.set, t.verify.at}, {"interlock", t.interlock.tag.set || t.interlock.equals.set, t.interlock.at},
	} {
		if k.set && t.access.v != "rw" {
			b.rep.add(k.at, "remove it, or add access: rw", "%s has no meaning for a tag that is not written", k.name)
		}
	}
	if t.min.good() && t.max.good() && t.min.v > t.max.v {
		b.rep.add(t.min.at, "write the lesser as min", "min %v is above max %v", t.min.v, t.max.v)
	}
	if t.step.good() && t.step.v <= 0 {
		b.rep.add(t.step.at, "write a number above 0, or remove it", "step %v", t.step.v)
	}
	if i := &t.interlock; i.tag.set != i.equals.set {
		b.rep.add(i.at, "write interlock: {tag: NAME, equals: VALUE}", "half an interlock")
	}
}

// interlocks looks for the tags that interlocks name.
func (b *builder) interlocks(d *fileDevice, dev *Device) {
	var names []string
	for _, tag := range dev.Tags {
		names = append(names, modbus.Names(tag)...)
	}
	for _, e := range d.tags.entries {
		if tag := &e.item.interlock.tag; tag.good() {
			b.known(tag, "tag", tag.v, names)
		}
	}
}
