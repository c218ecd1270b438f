package modbus

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate-io/headgate/southbound"
)

// A Table is one of the four that a unit has.
type Table string

// The four tables, read with the function codes 1 to 4.
const (
	Coil     Table = "coil"
	Discrete Table = "discrete"
	Holding  Table = "holding"
	Input    Table = "input"
)

func (t Table) bits() bool { return t == Coil || t == Discrete }

// A Tag is one value in a unit's tables, or several that lie in a row.
//
// A number is made of the raw bits in this order: is it Invalid? Mask, Shift,
// sign; then Scale, ScaleMap or ScaleFrom; Offset, Clamp, Round.
type Tag struct {
	Name    string
	Group   string
	Table   Table
	Address uint16 // as on the wire, from zero
	Bit     int    // of type bit

	// Type is bool, bit, bits[n..m], int8, uint8, int16 and so on to 64
	// bits in steps of 16 with 24 and 48, float16, float32, float64, bcd16,
	// bcd32, bcd64, mod10k32, mod10k48, mod10k64, sm16, sm32, string, bytes
	// or time. With [n] after it, it is n tags NAME[0], NAME[1], … in a row.
	// The type bits with Flags is a bool tag NAME.FLAG for each.
	Type     string
	Order    string // see the documentation of the configuration
	Length   int    // of string and bytes, in registers
	Encoding string // string: ascii, latin1, utf8, utf16; bytes: base64, hex; time: unix32, unix64, date
	Byte     string // of each register: hi, lo, or both for strings and bytes

	Invalid []uint64 // raw bits by which the device says that it has no value
	SunSpec bool     // it says so as SunSpec has it for the type

	Mask      uint64 // zero: all
	Shift     int
	Scale     *float64  // zero value: an integer stays an integer
	ScaleFrom string    // tag of the same group that holds the power of ten
	ScaleMap  []float64 // raw low, raw high, value low, value high
	Offset    float64
	Clamp     []float64 // least and most
	Round     *int      // digits after the point

	Labels    map[int64]string // names of integers: the value is a string
	Flags     map[int]string   // names of bits
	Range     southbound.Range
	Report    southbound.Report
	Atomic    string // tags of a group with the same are read in one request
	BigAsText bool   // integers beyond 2^53 are strings
	Unit      string // UCUM, may be empty
	Writable  bool   // in tables coil and holding
}

// A class is how bits become a value.
type class byte

const (
	integer class = iota
	floating
	decimal  // BCD
	modulo   // registers of 0 to 9999
	signed1s // sign and magnitude
	truth
	field1 // bits n to m
	text
	octets
	moment
)

// A kind is what a Type means.
type kind struct {
	name   string
	words  int // registers; zero: by length or encoding
	width  int // bits
	class  class
	signed bool
}

var kinds = []kind{
	{"bool", 1, 16, truth, false}, {"bit", 1, 1, truth, false}, {"bits", 1, 16, field1, false},
	{"int8", 1, 8, integer, true}, {"uint8", 1, 8, integer, false},
	{"int16", 1, 16, integer, true}, {"uint16", 1, 16, integer, false},
	{"int24", 2, 24, integer, true}, {"uint24", 2, 24, integer, false},
	{"int32", 2, 32, integer, true}, {"uint32", 2, 32, integer, false},
	{"int48", 3, 48, integer, true}, {"uint48", 3, 48, integer, false},
	{"int64", 4, 64, integer, true}, {"uint64", 4, 64, integer, false},
	{"float16", 1, 16, floating, false}, {"float32", 2, 32, floating, false}, {"float64", 4, 64, floating, false},
	{"bcd16", 1, 16, decimal, false}, {"bcd32", 2, 32, decimal, false}, {"bcd64", 4, 64, decimal, false},
	{"mod10k32", 2, 32, modulo, false}, {"mod10k48", 3, 48, modulo, false}, {"mod10k64", 4, 64, modulo, false},
	{"sm16", 1, 16, signed1s, true}, {"sm32", 2, 32, signed1s, true},
	{"string", 0, 0, text, false}, {"bytes", 0, 0, octets, false}, {"time", 0, 0, moment, false},
}

// Types lists the names of all types.
func Types() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// numeric says that a calculation makes sense.
func (k kind) numeric() bool { return k.class <= signed1s || k.class == field1 }

// A field is a tag made ready for decoding.
type field struct {
	Tag
	kind     kind
	size     int // registers, or bits in a table of bits
	order    order
	low      int // first bit of bits[n..m]
	mask     uint64
	scale    float64
	scaled   bool
	decimals [2]int // of scale and offset
	from     int    // index of the tag with the power of ten, or -1
}

// power reports whether the value can be another's power of ten.
func (f *field) power() bool {
	return f.kind.class == integer && f.kind.signed && !f.scaled && f.ScaleFrom == "" && len(f.Labels) == 0 && f.Clamp == nil && f.Round == nil
}

// published is the type that metadata name: that of one value of an array.
func (f *field) published() string {
	name, _, _ := strings.Cut(f.Type, "[")
	return name
}

// CheckTag says what is wrong with a tag, or nothing.
func CheckTag(tag Tag) error {
	_, err := compile(tag)
	return err
}

// Names lists the tags that a tag is: itself, or those of its flags or its array.
// A tag that CheckTag refuses has none.
func Names(tag Tag) []string {
	fields, err := compile(tag)
	if err != nil {
		return nil
	}
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return names
}

var typeForm = regexp.MustCompile(`^([a-z]+[0-9k]*)(?:\[([0-9]+)\.\.([0-9]+)\])?(?:\[([0-9]+)\])?$`)

const maxArray = 1000

// compile checks a tag and returns what it stands for: one field, or one for
// each of an array or of named flags.
func compile(tag Tag) ([]field, error) {
	f := field{Tag: tag, scale: 1, from: -1}
	count, err := f.setType()
	if err != nil {
		return nil, err
	}
	for _, set := range []func() error{f.setPlace, f.setOrder, f.setForm, f.setInvalid, f.setBits, f.setScale, f.setAccess} {
		if err := set(); err != nil {
			return nil, err
		}
	}
	if last := int(tag.Address) + count*f.size - 1; last > math.MaxUint16 {
		return nil, wrong("address", "write a lower address: the last is 65535", "%d leaves no room for %s: it would end at %d", tag.Address, tag.Type, last)
	}
	if len(tag.Flags) > 0 {
		return f.flags()
	}
	if f.array() == "" {
		return []field{f}, nil
	}
	all := make([]field, count)
	for i := range all {
		all[i] = f
		all[i].Name = fmt.Sprintf("%s[%d]", tag.Name, i)
		all[i].Address += uint16(i * f.size)
	}
	return all, nil
}

// array returns the number in brackets after the type, or nothing.
func (f *field) array() string { return typeForm.FindStringSubmatch(f.Type)[4] }

// setType takes the type apart and returns how many values it is.
func (f *field) setType() (count int, err error) {
	m := typeForm.FindStringSubmatch(f.Type)
	i := -1
	if m != nil {
		i = slices.IndexFunc(kinds, func(k kind) bool { return k.name == m[1] })
	}
	if i < 0 || (m[2] != "") && m[1] != "bits" {
		return 0, wrong("type", "use one of "+strings.Join(Types(), ", ")+", bits[0..3] for a part of a register, uint16[8] for eight in a row",
			"type %q is unknown", f.Type)
	}
	f.kind = kinds[i]
	if m[2] != "" {
		low, high := atoi(m[2]), atoi(m[3])
		if low > high || high > 15 {
			return 0, wrong("type", "write bits[0..15] or a part of it, the lower bit first", "%q is no part of a register", f.Type)
		}
		f.low, f.mask = low, (1<<(high-low+1)-1)<<low
	}
	if m[4] == "" {
		return 1, nil
	}
	if count = atoi(m[4]); count < 1 || count > maxArray || len(f.Flags) > 0 {
		return 0, wrong("type", fmt.Sprintf("write 1 to %d values, and no flags", maxArray), "%q is no array", f.Type)
	}
	return count, nil
}

// atoi reads digits; too many are a large number.
func atoi(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return math.MaxInt32
	}
	return n
}

// setPlace checks table and size.
func (f *field) setPlace() error {
	if !slices.Contains([]Table{Coil, Discrete, Holding, Input}, f.Table) {
		return wrong("address", "use holding, input, coil or discrete", "table %q is unknown", f.Table)
	}
	f.size = f.kind.words
	if f.Table.bits() && f.kind.name != "bool" && f.kind.name != "bit" {
		return wrong("type", "write bool", "%s holds bits, and %s is none", f.Table, f.Type)
	}
	if f.Bit != 0 && (f.kind.name != "bit" || f.Bit < 0 || f.Bit > 15) {
		return wrong("address", "write type: bit, and a bit from 0 to 15", "bit %d of %s", f.Bit, f.Type)
	}
	if f.kind.name == "bit" && !f.Table.bits() {
		f.low, f.mask = f.Bit, 1<<f.Bit
	}
	variable := f.kind.class == text || f.kind.class == octets
	switch {
	case variable && (f.Length < 1 || f.Length > maxRegisters):
		return wrong("length", fmt.Sprintf("write the number of registers, 1 to %d", maxRegisters), "a %s of %d registers", f.kind.name, f.Length)
	case !variable && f.Length != 0:
		return wrong("length", "remove length", "%s has a length of its own", f.Type)
	case variable:
		f.size = f.Length
	case f.kind.class == moment:
		f.size = map[string]int{"unix64": 4, "date": 4}[f.Encoding]
		if f.size == 0 {
			f.size = 2
		}
	}
	return nil
}

func (f *field) setOrder() error {
	var known bool
	f.order, known = parseOrder(f.Order)
	if !known {
		return wrong("order", "use one of ABCD, CDAB, BADC, DCBA", "order %q is unknown", f.Order)
	}
	if w := f.order.words; w != 0 && w != f.size {
		return wrong("order", "use one of ABCD, CDAB, BADC, DCBA, or AB and BA for one register", "order %s does not fit %s", f.Order, f.Type)
	}
	return nil
}

// setForm checks what only some types have.
func (f *field) setForm() error {
	encodings := map[class][]string{
		text: {"ascii", "latin1", "utf8", "utf16"}, octets: {"base64", "hex"}, moment: {"unix32", "unix64", "date"},
	}[f.kind.class]
	if f.Encoding == "" && len(encodings) > 0 {
		f.Encoding = encodings[0]
	}
	if f.Encoding != "" && !slices.Contains(encodings, f.Encoding) {
		return wrong("encoding", "use one of "+strings.Join(encodings, ", ")+", or remove it", "encoding %q of a %s", f.Encoding, f.kind.name)
	}
	halves := f.kind.width == 8 || f.kind.class == text && f.Encoding != "utf16" || f.kind.class == octets
	if !slices.Contains([]string{"", "both", "hi", "lo"}, f.Byte) || f.Byte != "" && !halves || f.Byte == "both" && f.kind.width == 8 {
		return wrong("byte", "use hi or lo with int8, uint8, string and bytes", "byte %q of a %s", f.Byte, f.kind.name)
	}
	if len(f.Labels) > 0 && (f.kind.class == floating || !f.kind.numeric()) {
		return wrong("labels", "use an integer type", "labels of a %s", f.kind.name)
	}
	if len(f.Flags) > 0 && (f.kind.name != "bits" || f.low != 0 || f.mask != 0) {
		return wrong("flags", "write type: bits", "flags of a %s", f.Type)
	}
	return nil
}

func (f *field) setInvalid() error {
	width := 16 * f.size
	if f.kind.width > 0 {
		width = max(f.kind.width, 16)
	}
	for _, raw := range f.Invalid {
		if f.kind.width == 0 || width < 64 && raw>>width != 0 {
			return wrong("invalid", "write the bits as read from the device, 0xFFFF for -1 of 16 bits", "invalid value %#x does not fit %s", raw, f.Type)
		}
	}
	if !f.SunSpec {
		return nil
	}
	f.Invalid = slices.Clone(f.Invalid)
	switch {
	case f.kind.class == integer && f.kind.signed:
		f.Invalid = append(f.Invalid, 1<<(f.kind.width-1))
	case f.kind.class == integer || f.kind.class == field1:
		f.Invalid = append(f.Invalid, math.MaxUint64>>(64-f.kind.width))
	}
	return nil
}

func (f *field) setBits() error {
	if f.Mask == 0 && f.Shift == 0 {
		return nil
	}
	if f.kind.class != integer {
		return wrong("mask", "remove mask and shift, or use an integer type", "mask of a %s", f.kind.name)
	}
	f.mask, f.low = f.Mask, f.Shift
	if f.mask == 0 {
		f.mask = math.MaxUint64 >> (64 - f.kind.width)
	}
	if f.low < 0 || f.low >= f.kind.width || bits.Len64(f.mask) > f.kind.width {
		return wrong("mask", fmt.Sprintf("stay within the %d bits of the type", f.kind.width), "mask %#x, shift %d of %s", f.Mask, f.Shift, f.Type)
	}
	return nil
}

func (f *field) setScale() error {
	f.scaled = f.Scale != nil || f.Offset != 0 || f.ScaleMap != nil
	if (f.scaled || f.ScaleFrom != "" || f.Clamp != nil || f.Round != nil) && (!f.kind.numeric() || len(f.Labels)+len(f.Flags) > 0) {
		return wrong("scale", "remove scale, offset, clamp and round", "a calculation on %s, which is no number", f.Type)
	}
	if f.Scale != nil {
		f.scale = *f.Scale
	}
	if m := f.ScaleMap; m != nil {
		if len(m) != 4 || m[0] == m[1] || f.Scale != nil || f.Offset != 0 || f.ScaleFrom != "" {
			return wrong("scale_map", "write [raw low, raw high, value low, value high], and neither scale nor offset", "scale_map %v", m)
		}
		f.scale = (m[3] - m[2]) / (m[1] - m[0])
		f.Offset = m[2] - m[0]*f.scale
	}
	for _, v := range append([]float64{f.scale, f.Offset}, f.Clamp...) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return wrong("scale", "give a decimal", "scale or offset %v is not a number", v)
		}
	}
	switch {
	case f.scale == 0:
		return wrong("scale", "leave it out or give another", "scale 0 makes every value the same")
	case f.ScaleFrom != "" && f.scaled:
		return wrong("scale_from", "remove scale and offset", "two scales")
	case f.Clamp != nil && (len(f.Clamp) != 2 || f.Clamp[0] > f.Clamp[1]):
		return wrong("clamp", "write [least, most]", "clamp %v", f.Clamp)
	case f.Round != nil && (*f.Round < 0 || *f.Round > maxDecimals):
		return wrong("round", fmt.Sprintf("write 0 to %d digits after the point", maxDecimals), "round %d", *f.Round)
	}
	f.decimals = [2]int{decimals(f.scale), decimals(f.Offset)}
	return nil
}

// maxWritten is how many registers one request writes (Modbus Application
// Protocol 6.12).
const maxWritten = 123

func (f *field) setAccess() error {
	switch {
	case !f.Writable:
		return nil
	case f.Table != Holding && f.Table != Coil:
		return wrong("access", "remove access: rw, or name a coil or holding register", "table %s cannot be written", f.Table)
	case f.size > maxWritten:
		return wrong("access", fmt.Sprintf("make length at most %d", maxWritten), "%d registers cannot be written at once", f.size)
	case f.kind.name == "bool" && f.Table == Holding:
		return wrong("access", "write type: bit and the bit, or type: uint16", "a register read as bool has more values than two")
	}
	return nil
}

// flags returns a field for each named bit, in the order of the bits.
func (f *field) flags() ([]field, error) {
	var all []field
	for _, bit := range slices.Sorted(maps.Keys(f.Flags)) {
		if bit < 0 || bit > 15 {
			return nil, wrong("flags", "name bits from 0 to 15", "bit %d of a register", bit)
		}
		flag := *f
		flag.Name = f.Name + "." + f.Flags[bit]
		flag.kind, flag.low, flag.mask = kinds[1], bit, 1<<bit
		flag.Type = flag.kind.name
		all = append(all, flag)
	}
	return all, nil
}

// decimals returns how many digits follow the point when v is written as the
// shortest decimal.
func decimals(v float64) int {
	if v == math.Trunc(v) {
		return 0
	}
	var buf [32]byte
	text := strconv.AppendFloat(buf[:0], v, 'e', -1, 64) // d.ddde±xx
	e := slices.Index(text, 'e')
	mantissa := 0
	if point := slices.Index(text[:e], '.'); point >= 0 {
		mantissa = e - point - 1
	}
	exponent, err := strconv.Atoi(string(text[e+1:]))
	if err != nil {
		return 0
	}
	return max(0, mantissa-exponent)
}
