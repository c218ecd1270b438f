package config

// The file's shape, part three: the tags of Modbus devices.

type fileTag struct {
	block
	group     text
	table     text
	address   register
	kind      text
	length    whole
	encoding  text
	half      text
	order     text
	invalid   list[sentinel]
	mask      raw
	shift     whole
	scale     number
	scaleFrom text
	scaleMap  list[number]
	offset    number
	clamp     list[number]
	round     whole
	labels    dict[text]
	flags     dict[text]
	unit      text
	atomic    text
	span      list[number]
	report    fileReport
	access    text
	min       number
	max       number
	step      number
	maxRate   whole
	interlock fileInterlock
	verify    boolean
}

func (t *fileTag) keys() []key {
	all := []key{
		{name: "group", into: &t.group, doc: "The group it is read with. Default: the only group."},
		{name: "table", into: &t.table, oneOf: []string{"holding", "input", "coil", "discrete"}, doc: "The table of an address that is only a number."},
		{name: "address", into: &t.address, required: true,
			doc: "`holding:10`, `input:10`, `coil:10` or `discrete:10`, counted from 0 as in the protocol, in hexadecimal as `holding:0x0A`; `40011`, `400011`, `4x00011` or `HR11`, counted from 1 as in manuals; a bit as `holding:10.3`."},
		{name: "type", into: &t.kind, required: true,
			doc: "How its registers are read: bool, bit, bits, bits[0..3]; int and uint of 8, 16, 24, 32, 48, 64 bits; float16, 32, 64; bcd16, 32, 64; mod10k32, 48, 64 (registers of four decimal digits); sm16, sm32 (sign and magnitude); string; bytes; time. uint16[8] is eight in a row, TAG[0] to TAG[7]. See [modbus.md](modbus.md)."},
		{name: "length", into: &t.length, min: "1", max: "125", doc: "Of string and bytes, in registers."},
		{name: "encoding", into: &t.encoding, oneOf: []string{"ascii", "latin1", "utf8", "utf16", "base64", "hex", "unix32", "unix64", "date"},
			doc: "string: ascii, latin1, utf8, utf16. bytes: base64, hex. time: unix32, unix64, date (four registers). Default: the first."},
		{name: "byte", into: &t.half, oneOf: []string{"both", "hi", "lo"}, doc: "Which byte of each register counts. Default: lo for 8-bit types, both for string and bytes."},
		{name: "order", into: &t.order,
			doc: "Bytes on the wire: ABCD is big-endian, CDAB has its words swapped, BADC its bytes, DCBA both. One register: AB or BA. Four: also CDABGHEF, EFGHABCD. Names as big, little, word_swap, byte_swap do, too. Default: the device's."},
		{name: "invalid", into: &t.invalid, doc: "Raw values by which the device says that it has no value; sunspec: those that SunSpec has for the type. NaN is always one."},
		{name: "mask", into: &t.mask, doc: "Bits of an integer that count. Default: all."},
		{name: "shift", into: &t.shift, min: "0", max: "63", doc: "Bits by which it is then shifted down. Default: 0."},
		{name: "scale", into: &t.scale, doc: "The value is raw * scale + offset. Not 0. Default: an integer stays an integer."},
		{name: "scale_from", into: &t.scaleFrom, doc: "Tag of the same group that holds the power of ten, as SunSpec has it."},
		{name: "scale_map", into: &t.scaleMap, doc: "[raw low, raw high, value low, value high] instead of scale and offset."},
		{name: "offset", into: &t.offset, def: "0", doc: "See scale."},
		{name: "clamp", into: &t.clamp, doc: "[least, most]: what lies beyond becomes that, of quality uncertain.range."},
		{name: "round", into: &t.round, min: "0", max: "15", doc: "Digits after the point. Default: as many as it has."},
		{name: "labels", into: &t.labels, doc: "Names of integers, `{0: off, 1: on}`: the value is the name."},
		{name: "flags", into: &t.flags, doc: "Type bits: names of bits, `{0: overvolt, 7: comms}`: each is a tag TAG.NAME of its own."},
		{name: "unit", into: &t.unit, doc: "Unit of measure (UCUM), Cel for example; sent as metadata."},
		{name: "range", into: &t.span, doc: "[least, most]: a number beyond is of quality uncertain.range; sent as metadata."},
		{name: "atomic", into: &t.atomic, doc: "Name of a set: tags of a group with the same one are read in one request, so that their values belong together. A value that takes several registers always is."},
		{name: "access", into: &t.access, def: "r", oneOf: []string{"r", "rw"}, doc: "rw: commands may write it, if the device has writes: allow and a rule lets their sender publish to `hg/{gateway}/{device}/cmd/write`. Coils and holding registers only."},
		{name: "min", into: &t.min, doc: "With access: rw: the least value that is written. Default: what the type holds."},
		{name: "max", into: &t.max, doc: "The greatest."},
		{name: "step", into: &t.step, doc: "Values in between are refused, counted from min, or else from 0."},
		{name: "max_rate", into: &t.maxRate, min: "1", max: "6000", doc: "Commands in a minute, at most: the memory of many devices wears out. Default: any."},
		{name: "interlock", into: &t.interlock, doc: "It is written only while another tag has a value. That tag is read before."},
		{name: "verify", into: &t.verify, doc: "Whether it is read back after it was written. false for what falls back by itself, or cannot be read. Default: true."},
	}
	return append(all, t.report.keys()...)
}

type fileInterlock struct {
	block
	tag    text
	equals literal
}

func (i *fileInterlock) keys() []key {
	return []key{
		{name: "tag", into: &i.tag, doc: "A tag of the same device."},
		{name: "equals", into: &i.equals, doc: "The value that it must have: true, a number, or text."},
	}
}
