package modbus

import (
	"fmt"
	"math"
	"slices"
	"strconv"
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

// A Tag is one value in a unit's registers.
type Tag struct {
	Name    string
	Group   string
	Table   Table
	Address uint16 // as on the wire, from zero

	// Type is int16, uint16, int32, uint32, int64, uint64, float32 or
	// float64.
	Type string

	// Order says how the bytes of a value, A the most significant, lie on
	// the wire. Empty and ABCD are as the protocol has it; CDAB swaps the
	// registers, BADC the bytes of each register, DCBA both. For 64 bits
	// the four mean the same over four registers (ABCDEFGH, GHEFCDAB,
	// BADCFEHG and HGFEDCBA are accepted too); 16 bits know AB and BA, and
	// take from the four what is left of them.
	Order string

	// The value is raw*Scale + Offset, a float64, if either is given, and
	// otherwise the integer or float that the device holds.
	Scale  *float64
	Offset float64

	Unit    string   // UCUM, may be empty
	Invalid []uint64 // raw bits by which the device says that it has no value
}

// A kind is what a Type means.
type kind struct {
	name   string
	words  int // registers
	signed bool
	float  bool
}

var kinds = []kind{
	{name: "int16", words: 1, signed: true},
	{name: "uint16", words: 1},
	{name: "int32", words: 2, signed: true},
	{name: "uint32", words: 2},
	{name: "int64", words: 4, signed: true},
	{name: "uint64", words: 4},
	{name: "float32", words: 2, float: true},
	{name: "float64", words: 4, float: true},
}

// An order is which of the two swaps lead from the wire to the value.
type order struct {
	words int // registers it is for; zero: any
	swapWords,
	swapBytes bool
}

var orders = map[string]order{
	"":         {},
	"AB":       {words: 1},
	"BA":       {words: 1, swapBytes: true},
	"ABCD":     {},
	"CDAB":     {swapWords: true},
	"BADC":     {swapBytes: true},
	"DCBA":     {swapWords: true, swapBytes: true},
	"ABCDEFGH": {words: 4},
	"GHEFCDAB": {words: 4, swapWords: true},
	"BADCFEHG": {words: 4, swapBytes: true},
	"HGFEDCBA": {words: 4, swapWords: true, swapBytes: true},
}

// A field is a tag made ready for decoding.
type field struct {
	Tag
	kind     kind
	order    order
	scale    float64
	scaled   bool
	decimals [2]int // of scale and offset
}

// compile checks a tag.
func compile(tag Tag) (field, error) {
	f := field{Tag: tag, scale: 1}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == tag.Type })
	if i < 0 {
		return f, fmt.Errorf("type %q is unknown; use one of int16, uint16, int32, uint32, int64, uint64, float32, float64", tag.Type)
	}
	f.kind = kinds[i]
	if tag.Table != Holding && tag.Table != Input {
		return f, fmt.Errorf("table %q is unknown; use holding or input", tag.Table)
	}
	if int(tag.Address)+f.kind.words > math.MaxUint16+1 {
		return f, fmt.Errorf("address %d leaves no room for %s; the last address is 65535", tag.Address, tag.Type)
	}
	var known bool
	f.order, known = orders[tag.Order]
	if !known || f.order.words != 0 && f.order.words != f.kind.words {
		return f, fmt.Errorf("order %q does not fit %s; use one of ABCD, CDAB, BADC, DCBA", tag.Order, tag.Type)
	}
	for _, bits := range tag.Invalid {
		if bits>>(16*f.kind.words-1)>>1 != 0 {
			return f, fmt.Errorf("invalid value %#x does not fit %s; give the raw bits", bits, tag.Type)
		}
	}
	return f, f.setScale()
}

func (f *field) setScale() error {
	if f.Scale != nil {
		f.scale = *f.Scale
	}
	for _, v := range []float64{f.scale, f.Offset} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("scale or offset %v is not a number; give a decimal", v)
		}
	}
	if f.scale == 0 {
		return fmt.Errorf("scale 0 makes every value 0; leave it out or give another")
	}
	f.scaled = f.Scale != nil || f.Offset != 0
	f.decimals = [2]int{decimals(f.scale), decimals(f.Offset)}
	return nil
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
