package config

import (
	"errors"
	"strconv"
	"strings"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// tags builds a device's tags, in the order of the file.
func (b *builder) tags(d *fileDevice, dev *Device) {
	if d.order.good() {
		if err := modbus.CheckOrder(d.order.v); err != nil {
			b.tagError(err, map[string]place{"order": d.order.at})
			d.order.v = ""
		}
	}
	var fromZero, fromOne *fileTag
	for _, e := range d.tags.entries {
		tag, address := b.tag(d, e.name, e.item)
		dev.Tags = append(dev.Tags, tag)
		b.writable(dev, e.item, tag)
		switch {
		case address == nil:
		case address.FromOne:
			fromOne = e.item
		default:
			fromZero = e.item
		}
	}
	b.interlocks(d, dev)
	if fromZero != nil && fromOne != nil && !d.addressBase.set {
		b.rep.add(fromOne.address.at, "add address_base: 0 to the device if holding:10 counts from 0, or 1 if it counts from 1 like this",
			"%q counts from 1, and %q of the same device perhaps from 0", fromOne.address.v, fromZero.address.v)
	}
}

// tag returns one tag, and its address if that could be read.
func (b *builder) tag(d *fileDevice, name string, t *fileTag) (modbus.Tag, *modbus.Address) {
	tag := modbus.Tag{
		Name: name, Group: b.groupOf(d, t), Type: t.kind.v, Length: int(t.length.v), Encoding: t.encoding.v, Byte: t.half.v, Order: t.order.v,
		Mask: t.mask.v, Shift: int(t.shift.v), ScaleFrom: t.scaleFrom.v, Offset: t.offset.v, Unit: t.unit.v, BigAsText: d.int64As.v == "string", Atomic: t.atomic.v,
		ScaleMap: numbers(&t.scaleMap), Clamp: numbers(&t.clamp), Writable: t.access.v == "rw",
	}
	tag.Report, tag.Range = b.tagReport(d, t)
	if t.scale.good() {
		tag.Scale = &t.scale.v
	}
	if t.round.good() {
		digits := int(t.round.v)
		tag.Round = &digits
	}
	for _, i := range t.invalid.items {
		switch {
		case i.v.name == "sunspec":
			tag.SunSpec = true
		case i.v.name == "" && i.good():
			tag.Invalid = append(tag.Invalid, i.v.bits)
		}
	}
	tag.Labels = names(b, &t.labels, func(n int) int64 { return int64(n) })
	tag.Flags = names(b, &t.flags, func(n int) int { return n })
	address := b.tagAddress(d, t)
	if address == nil {
		return tag, nil
	}
	tag.Table, tag.Address = address.Table, address.Number
	if address.Bit >= 0 {
		tag.Bit = address.Bit
	}
	if tag.Order == "" {
		tag.Order = address.Order
	}
	if tag.Order == "" {
		tag.Order = d.order.v
	}
	if t.kind.good() {
		b.tagError(modbus.CheckTag(tag), t.places())
	}
	return tag, address
}

// places are where the keys of a tag stand that a check may complain of.
func (t *fileTag) places() map[string]place {
	all := map[string]place{
		"type": t.kind.at, "address": t.address.at, "length": t.length.at, "encoding": t.encoding.at, "byte": t.half.at, "order": t.order.at,
		"invalid": t.invalid.at, "mask": t.mask.at, "scale": t.scale.at, "scale_from": t.scaleFrom.at, "scale_map": t.scaleMap.at,
		"clamp": t.clamp.at, "round": t.round.at, "labels": t.labels.at, "flags": t.flags.at, "access": t.access.at,
	}
	for k, at := range all {
		if at.src == nil { // it is missing, or another key is meant
			all[k] = t.at
		}
	}
	return all
}

func (b *builder) tagError(err error, places map[string]place) {
	var e *modbus.ConfigError
	if errors.As(err, &e) {
		b.rep.add(places[e.Key], e.Fix, "%s", e.Problem)
	}
}

// tagAddress reads a tag's address in any of its forms.
func (b *builder) tagAddress(d *fileDevice, t *fileTag) *modbus.Address {
	if !t.address.good() {
		return nil
	}
	text := t.address.v
	if t.table.good() && !strings.Contains(text, ":") {
		text = t.table.v + ":" + text
	}
	a, err := modbus.ParseAddress(text, int(d.addressBase.v))
	if err != nil {
		b.tagError(err, map[string]place{"address": t.address.at})
		return nil
	}
	if a.Unit >= 0 && d.unit.good() && a.Unit != int(d.unit.v) {
		b.rep.add(t.address.at, "leave the unit out", "%q is of unit %d, and the device is unit %d", text, a.Unit, d.unit.v)
	}
	return &a
}

func numbers(l *list[number]) []float64 {
	var all []float64
	for _, n := range l.items {
		all = append(all, n.v)
	}
	return all
}

// names turns {0: off} into what a tag has.
func names[K comparable](b *builder, d *dict[text], as func(int) K) map[K]string {
	if len(d.entries) == 0 {
		return nil
	}
	all := make(map[K]string, len(d.entries))
	for _, e := range d.entries {
		n, err := strconv.Atoi(e.name)
		if err != nil {
			b.rep.add(e.at, "write {0: off, 1: on}", "%q is no whole number", e.name)
		}
		all[as(n)] = e.item.v
	}
	return all
}

// groupOf is the group of a tag: the one it names, or the only one.
func (b *builder) groupOf(d *fileDevice, t *fileTag) string {
	var names []string
	for _, g := range d.groups.entries {
		names = append(names, g.name)
	}
	switch {
	case t.group.good():
		b.known(&t.group, "group", t.group.v, names)
		return t.group.v
	case t.group.set:
	case len(names) == 1:
		t.group.v, t.group.has = names[0], true
		return names[0]
	case len(names) > 1:
		b.rep.add(t.at, "add group: one of "+strings.Join(names, ", "), "a tag without group, on a device with several")
	}
	return ""
}
