package modbus

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"testing"

	"github.com/headgate-io/headgate/southbound"
)

func number(v float64) *float64 { return &v }

func TestDecode(t *testing.T) {
	tests := []struct {
		tag  Tag
		wire string
		want any
	}{
		{Tag{Type: "int16"}, "8000", int64(math.MinInt16)},
		{Tag{Type: "int16", Order: "BA"}, "feff", int64(-2)},
		{Tag{Type: "int16", Order: "CDAB"}, "fffe", int64(-2)},
		{Tag{Type: "uint16"}, "ffff", uint64(math.MaxUint16)},
		{Tag{Type: "uint16", Order: "AB"}, "0102", uint64(0x0102)},
		{Tag{Type: "uint16", Order: "DCBA"}, "0102", uint64(0x0201)},
		{Tag{Type: "int32"}, "fffffffe", int64(-2)},
		{Tag{Type: "int32", Order: "CDAB"}, "fffeffff", int64(-2)},
		{Tag{Type: "uint32", Order: "ABCD"}, "0a0b0c0d", uint64(0x0A0B0C0D)},
		{Tag{Type: "uint32", Order: "CDAB"}, "0c0d0a0b", uint64(0x0A0B0C0D)},
		{Tag{Type: "uint32", Order: "BADC"}, "0b0a0d0c", uint64(0x0A0B0C0D)},
		{Tag{Type: "uint32", Order: "DCBA"}, "0d0c0b0a", uint64(0x0A0B0C0D)},
		{Tag{Type: "uint64", Order: "ABCDEFGH"}, "0102030405060708", uint64(0x0102030405060708)},
		{Tag{Type: "uint64", Order: "GHEFCDAB"}, "0708050603040102", uint64(0x0102030405060708)},
		{Tag{Type: "uint64", Order: "BADCFEHG"}, "0201040306050807", uint64(0x0102030405060708)},
		{Tag{Type: "uint64", Order: "HGFEDCBA"}, "0807060504030201", uint64(0x0102030405060708)},
		{Tag{Type: "uint64", Order: "CDAB"}, "0708050603040102", uint64(0x0102030405060708)},
		{Tag{Type: "uint64"}, "ffffffffffffffff", uint64(math.MaxUint64)},
		{Tag{Type: "int64"}, "8000000000000000", int64(math.MinInt64)},
		{Tag{Type: "float32"}, "3dcccccd", 0.1},
		{Tag{Type: "float32", Order: "CDAB"}, "cccd3dcc", 0.1},
		{Tag{Type: "float32"}, "7f7fffff", 3.4028235e38},
		{Tag{Type: "float64"}, "3ff8000000000000", 1.5},
		{Tag{Type: "float64", Order: "DCBA"}, "000000000000f83f", 1.5},
		{Tag{Type: "int16", Scale: number(0.1)}, "02c9", 71.3},
		{Tag{Type: "int16", Scale: number(0.1)}, "fd37", -71.3},
		{Tag{Type: "int16", Scale: number(0.1), Offset: -40}, "02c9", 31.3},
		{Tag{Type: "int16", Offset: 273.15}, "0014", 293.15},
		{Tag{Type: "int16", Scale: number(1)}, "0014", 20.0},
		{Tag{Type: "uint16", Scale: number(0.001)}, "10e1", 4.321},
		{Tag{Type: "uint16", Scale: number(1e-7)}, "0003", 3e-7},
		{Tag{Type: "int32", Scale: number(0.01)}, "fffffff9", -0.07},
		{Tag{Type: "uint64", Scale: number(0.1)}, "0000000000000003", 0.3},
		{Tag{Type: "float32", Scale: number(0.1)}, "428e999a", 7.13},
		{Tag{Type: "uint16", Scale: number(1.0 / 3)}, "0003", 1.0},
		{Tag{Type: "int16", Scale: number(-0.1)}, "0000", 0.0},
	}
	for _, test := range tests {
		test.tag.Table = Holding
		wire, err := hex.DecodeString(test.wire)
		if err != nil {
			t.Fatal(err)
		}
		f := &fieldsAt(t, test.tag)[0]
		got, quality := f.decode(wire)
		if got != test.want || quality != southbound.Good {
			t.Errorf("%s %s %s: got %v (%T) %s, want %v (%T)",
				test.tag.Type, test.tag.Order, test.wire, got, got, quality, test.want, test.want)
		}
	}
}

func TestDecodeNoValue(t *testing.T) {
	tests := []struct {
		tag  Tag
		wire string
	}{
		{Tag{Type: "int16", Invalid: []uint64{0x7FFF, 0x8000}}, "8000"},
		{Tag{Type: "int16", Order: "BA", Invalid: []uint64{0x8000}}, "0080"},
		{Tag{Type: "int16", Scale: number(0.1), Invalid: []uint64{0xFFFF}}, "ffff"},
		{Tag{Type: "uint64", Invalid: []uint64{math.MaxUint64}}, "ffffffffffffffff"},
		{Tag{Type: "float32"}, "7fc00000"},
		{Tag{Type: "float32"}, "7f800000"},
		{Tag{Type: "float32"}, "ff800000"},
		{Tag{Type: "float64"}, "7ff8000000000001"},
		{Tag{Type: "float64", Scale: number(10)}, "7fefffffffffffff"},
	}
	for _, test := range tests {
		test.tag.Table = Holding
		wire, err := hex.DecodeString(test.wire)
		if err != nil {
			t.Fatal(err)
		}
		f := &fieldsAt(t, test.tag)[0]
		if got, quality := f.decode(wire); got != nil || quality != southbound.BadSensor {
			t.Errorf("%s %s: got %v, %s", test.tag.Type, test.wire, got, quality)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := map[string]Tag{
		"type":           {Table: Holding, Type: "int7"},
		"table":          {Table: "coils", Type: "bool"},
		"bits of a word": {Table: Coil, Type: "int16"},
		"part":           {Table: Holding, Type: "bits[4..2]"},
		"part of int":    {Table: Holding, Type: "int16[4..2]"},
		"no array":       {Table: Holding, Type: "int16[0]"},
		"array's end":    {Table: Holding, Address: 65530, Type: "int32[4]"},
		"length":         {Table: Holding, Type: "string"},
		"too long":       {Table: Holding, Type: "bytes", Length: 126},
		"length of int":  {Table: Holding, Type: "int16", Length: 1},
		"encoding":       {Table: Holding, Type: "string", Length: 4, Encoding: "hex"},
		"byte":           {Table: Holding, Type: "int16", Byte: "hi"},
		"mask too wide":  {Table: Holding, Type: "int16", Mask: 0x10000},
		"mask of float":  {Table: Holding, Type: "float32", Mask: 1},
		"two scales":     {Table: Holding, Type: "int16", ScaleFrom: "sf", Scale: number(2)},
		"map":            {Table: Holding, Type: "int16", ScaleMap: []float64{0, 0, 1, 2}},
		"clamp":          {Table: Holding, Type: "int16", Clamp: []float64{2, 1}},
		"scaled text":    {Table: Holding, Type: "string", Length: 2, Scale: number(2)},
		"labels":         {Table: Holding, Type: "float32", Labels: map[int64]string{0: "off"}},
		"flags of int":   {Table: Holding, Type: "int16", Flags: map[int]string{0: "x"}},
		"bit 16":         {Table: Holding, Type: "bit", Bit: 16},
		"past the end":   {Table: Holding, Address: 65535, Type: "int32"},
		"order":          {Table: Holding, Type: "int32", Order: "ACBD"},
		"order of 16":    {Table: Holding, Type: "int32", Order: "BA"},
		"order of 64":    {Table: Holding, Type: "int32", Order: "GHEFCDAB"},
		"invalid of 32":  {Table: Holding, Type: "int16", Invalid: []uint64{0x80000000}},
		"scale NaN":      {Table: Holding, Type: "int16", Scale: number(math.NaN())},
		"scale zero":     {Table: Holding, Type: "int16", Scale: number(0)},
		"offset endless": {Table: Holding, Type: "int16", Offset: math.Inf(1)},
	}
	for name, tag := range tests {
		if _, err := compile(tag); err == nil {
			t.Errorf("%s: accepted %+v", name, tag)
		}
	}
}

// Every scaled value is what a person gets who shifts the point of the raw one.
func TestScaleHasNoNoise(t *testing.T) {
	f := &fieldsAt(t, Tag{Table: Holding, Type: "int16", Scale: number(0.1)})[0]
	var wire [2]byte
	for raw := math.MinInt16; raw <= math.MaxInt16; raw++ {
		binary.BigEndian.PutUint16(wire[:], uint16(raw))
		if got, _ := f.decode(wire[:]); got != float64(raw)/10 {
			t.Fatalf("raw %d is %v, want %v", raw, got, float64(raw)/10)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint64(0x8000), 0.1, 0.0)
	f.Add(uint8(6), uint8(3), uint64(0x7FC00000), 0.0, 0.0)
	f.Add(uint8(7), uint8(1), uint64(math.MaxUint64), 1e300, -1e300)
	f.Fuzz(func(t *testing.T, typ, ord uint8, raw uint64, scale, offset float64) {
		k := kinds[int(typ)%len(kinds)]
		order := []string{"ABCD", "CDAB", "BADC", "DCBA"}[ord%4]
		tag := Tag{Table: Input, Type: k.name, Order: order, Offset: offset}
		if scale != 0 {
			tag.Scale = &scale
		}
		if k.words == 0 {
			return
		}
		fields, err := compile(tag)
		if err != nil {
			return
		}
		field := &fields[0]
		raw &= math.MaxUint64 >> (64 - 16*k.words)
		wire := encode(raw, k.words, order)
		if got := field.bits(wire); got != raw {
			t.Fatalf("%s %s: %x came back as %x", k.name, order, raw, got)
		}
		v, quality := field.decode(wire)
		if number, ok := v.(float64); ok && (math.IsNaN(number) || math.IsInf(number, 0)) {
			t.Fatalf("%+v: %x is %v", tag, raw, v)
		}
		if (v == nil) == quality.HasValue() {
			t.Fatalf("%+v: %x is %v of quality %s", tag, raw, v, quality)
		}
	})
}

// encode lays raw out as the table of orders in the manual has it, letter by
// letter, independently of decode.
func encode(raw uint64, words int, order string) []byte {
	letters := map[string][]string{
		"ABCD": {"", "AB", "ABCD", "ABCDEF", "ABCDEFGH"},
		"CDAB": {"", "AB", "CDAB", "EFCDAB", "GHEFCDAB"},
		"BADC": {"", "BA", "BADC", "BADCFE", "BADCFEHG"},
		"DCBA": {"", "BA", "DCBA", "FEDCBA", "HGFEDCBA"},
	}[order][words]
	wire := make([]byte, 2*words)
	for i := range wire {
		significance := 2*words - 1 - int(letters[i]-'A')
		wire[i] = byte(raw >> (8 * significance))
	}
	return wire
}
