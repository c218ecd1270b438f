package modbus

import (
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/southbound"
)

func digits(n int) *int { return &n }

// decodings are every type beside the eight that TestDecode has, and every step
// of the calculation, by hand.
var decodings = []struct {
	tag  Tag
	wire string
	want any
}{
	{Tag{Type: "bool"}, "0000", false},
	{Tag{Type: "bool"}, "0100", true},
	{Tag{Type: "bit", Bit: 3}, "0008", true},
	{Tag{Type: "bit", Bit: 3}, "fff7", false},
	{Tag{Type: "bits[4..7]"}, "12a4", uint64(0xA)},
	{Tag{Type: "bits"}, "8001", uint64(0x8001)},
	{Tag{Type: "int8"}, "12fe", int64(-2)},
	{Tag{Type: "uint8", Byte: "hi"}, "12fe", uint64(0x12)},
	{Tag{Type: "uint8", Byte: "hi", Order: "BA"}, "12fe", uint64(0xFE)},
	{Tag{Type: "int24"}, "00fffffe", int64(-2)},
	{Tag{Type: "uint24", Order: "CDAB"}, "03040102", uint64(0x020304)},
	{Tag{Type: "int48"}, "fffffffffffe", int64(-2)},
	{Tag{Type: "uint48", Order: "CDAB"}, "050603040102", uint64(0x010203040506)},
	{Tag{Type: "uint64", Order: "CDABGHEF"}, "0304010207080506", uint64(0x0102030405060708)},
	{Tag{Type: "uint64", Order: "EFGHABCD"}, "0506070801020304", uint64(0x0102030405060708)},
	{Tag{Type: "uint32", Order: "intel"}, "0d0c0b0a", uint64(0x0A0B0C0D)},
	{Tag{Type: "uint32", Order: "Word_Swap"}, "0c0d0a0b", uint64(0x0A0B0C0D)},
	{Tag{Type: "uint32", Order: "#LL"}, "0a0b0c0d", uint64(0x0A0B0C0D)},
	{Tag{Type: "uint32", Order: "#LB"}, "0b0a0d0c", uint64(0x0A0B0C0D)},
	{Tag{Type: "uint32", Order: "#BL"}, "0c0d0a0b", uint64(0x0A0B0C0D)},
	{Tag{Type: "uint32", Order: "#BB"}, "0d0c0b0a", uint64(0x0A0B0C0D)},
	{Tag{Type: "float16"}, "3555", 0.33325195},
	{Tag{Type: "float16"}, "c000", -2.0},
	{Tag{Type: "float16"}, "0001", 5.9604645e-08},
	{Tag{Type: "bcd16"}, "9876", uint64(9876)},
	{Tag{Type: "bcd32", Order: "CDAB"}, "56781234", uint64(12345678)},
	{Tag{Type: "bcd64"}, "1234567890123456", uint64(1234567890123456)},
	{Tag{Type: "mod10k32"}, "00010002", uint64(10002)},
	{Tag{Type: "mod10k48"}, "000100020003", uint64(100020003)},
	{Tag{Type: "mod10k64", Order: "CDAB"}, "0004000300020001", uint64(1000200030004)},
	{Tag{Type: "sm16"}, "8005", int64(-5)},
	{Tag{Type: "sm16"}, "8000", int64(0)},
	{Tag{Type: "sm32"}, "80000005", int64(-5)},
	{Tag{Type: "int64", BigAsText: true}, "0020000000000001", "9007199254740993"},
	{Tag{Type: "int64", BigAsText: true}, "ffdfffffffffffff", "-9007199254740993"},
	{Tag{Type: "uint64", BigAsText: true}, "0020000000000000", uint64(1 << 53)},
	{Tag{Type: "uint16", Mask: 0x0FF0, Shift: 4}, "abcd", uint64(0xBC)},
	{Tag{Type: "int16", Mask: 0x0FFF}, "1ffe", int64(-2)},
	{Tag{Type: "int16", Shift: 4}, "ffe1", int64(-2)},
	{Tag{Type: "int16", Mask: 0xFF, Scale: number(0.5)}, "12fe", -1.0},
	{Tag{Type: "uint16", ScaleMap: []float64{4000, 20000, 0, 10}}, "2ee0", 5.0},
	{Tag{Type: "int16", Scale: number(0.001), Round: digits(1)}, "04d2", 1.2},
	{Tag{Type: "bcd16", Scale: number(0.1)}, "0123", 12.3},
	{Tag{Type: "uint16", Labels: map[int64]string{1: "run"}}, "0001", "run"},
	{Tag{Type: "int16", Labels: map[int64]string{-1: "fault"}}, "ffff", "fault"},
	{Tag{Type: "string", Length: 4}, "4142430020202020", "ABC"},
	{Tag{Type: "string", Length: 2, Order: "BADC"}, "42414443", "ABCD"},
	{Tag{Type: "string", Length: 2, Byte: "lo"}, "00410042", "AB"},
	{Tag{Type: "string", Length: 2, Byte: "hi"}, "41004200", "AB"},
	{Tag{Type: "string", Length: 2, Encoding: "latin1"}, "e4f6fc00", "äöü"},
	{Tag{Type: "string", Length: 2, Encoding: "utf8"}, "c3a42000", "ä"},
	{Tag{Type: "string", Length: 3, Encoding: "utf16"}, "00e4d83dde00", "ä😀"},
	{Tag{Type: "string", Length: 1}, "0000", ""},
	{Tag{Type: "bytes", Length: 2, Encoding: "hex"}, "00ff10ab", "00ff10ab"},
	{Tag{Type: "time"}, "69214a00", "2025-11-22T05:28:32Z"},
	{Tag{Type: "time", Encoding: "unix64"}, "0000000069214a00", "2025-11-22T05:28:32Z"},
	{Tag{Type: "time", Encoding: "date"}, "00190b16051d0fa2", "2025-11-22T05:29:04.002Z"},
}

func TestDecodeTypes(t *testing.T) {
	for _, test := range decodings {
		test.tag.Table = Holding
		if got, quality := decodeOne(t, test.tag, test.wire); got != test.want || quality != southbound.Good {
			t.Errorf("%+v %s: got %v (%T) %s, want %v", test.tag, test.wire, got, got, quality, test.want)
		}
	}
	if got, _ := decodeOne(t, Tag{Table: Holding, Type: "bytes", Length: 1}, "00ff"); !reflect.DeepEqual(got, []byte{0, 0xFF}) {
		t.Errorf("bytes are %v", got)
	}
}

func decodeOne(t *testing.T, tag Tag, wire string) (any, southbound.Quality) {
	t.Helper()
	data, err := hex.DecodeString(wire)
	if err != nil {
		t.Fatal(err)
	}
	return fieldsAt(t, tag)[0].decode(data)
}

// What is no value of its type is none, whatever a calculation would make of it.
func TestDecodeTypesNoValue(t *testing.T) {
	for _, test := range []struct {
		tag  Tag
		wire string
	}{
		{Tag{Type: "float16"}, "7e00"},
		{Tag{Type: "float16"}, "7c00"},
		{Tag{Type: "bcd16"}, "12a4"},
		{Tag{Type: "mod10k32"}, "00012710"},
		{Tag{Type: "string", Length: 1}, "41ff"},
		{Tag{Type: "string", Length: 1, Encoding: "utf8"}, "c328"},
		{Tag{Type: "string", Length: 1, Encoding: "utf16"}, "d83d"},
		{Tag{Type: "string", Length: 1, SunSpec: true}, "0000"},
		{Tag{Type: "time", Encoding: "unix64"}, "ffffffffffffffff"},
		{Tag{Type: "time", Encoding: "date"}, "001902" + "1f" + "051d0fa2"},
		{Tag{Type: "int16", SunSpec: true, Scale: number(0.1)}, "8000"},
		{Tag{Type: "uint16", SunSpec: true, Mask: 0xFF}, "ffff"},
		{Tag{Type: "int32", SunSpec: true}, "80000000"},
		{Tag{Type: "uint64", SunSpec: true}, "ffffffffffffffff"},
		{Tag{Type: "uint16", Invalid: []uint64{0xFFFF}, Clamp: []float64{0, 10}}, "ffff"},
		{Tag{Type: "bcd16", Invalid: []uint64{0x9999}}, "9999"},
	} {
		test.tag.Table = Holding
		if got, quality := decodeOne(t, test.tag, test.wire); got != nil || quality != southbound.BadSensor {
			t.Errorf("%+v %s: got %v, %s", test.tag, test.wire, got, quality)
		}
	}
}

func TestDecodeOutOfRange(t *testing.T) {
	for _, test := range []struct {
		tag  Tag
		wire string
		want any
	}{
		{Tag{Type: "int16", Clamp: []float64{0, 100}}, "ffff", 0.0},
		{Tag{Type: "int16", Scale: number(0.1), Clamp: []float64{0, 100}}, "7fff", 100.0},
		{Tag{Type: "uint16", Labels: map[int64]string{1: "run"}}, "0007", "7"},
	} {
		test.tag.Table = Holding
		if got, quality := decodeOne(t, test.tag, test.wire); got != test.want || quality != southbound.UncertainRange {
			t.Errorf("%+v %s: got %v, %s", test.tag, test.wire, got, quality)
		}
	}
}

func TestArraysAndFlagsAreSeveralTags(t *testing.T) {
	names := func(tag Tag) string {
		tag.Name, tag.Table, tag.Address = "x", Holding, 10
		fields, err := compile(tag)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, f := range fields {
			all = append(all, f.Name+" "+f.published()+" "+string(rune('0'+f.Address-10)))
		}
		return strings.Join(all, ", ")
	}
	if got, want := names(Tag{Type: "int32[3]"}), "x[0] int32 0, x[1] int32 2, x[2] int32 4"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := names(Tag{Type: "bits", Flags: map[int]string{7: "comms", 0: "over"}}), "x.over bit 0, x.comms bit 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestScaleFromAnotherTag(t *testing.T) {
	f := &field{}
	good := func(v any) southbound.Reading { return southbound.Reading{Value: v, Quality: southbound.Good} }
	for _, test := range []struct {
		value, power southbound.Reading
		want         any
		quality      southbound.Quality
	}{
		{good(uint64(2301)), good(int64(-1)), 230.1, southbound.Good},
		{good(int64(-5)), good(int64(3)), -5000.0, southbound.Good},
		{good(int64(5)), good(int64(math.MinInt16)), nil, southbound.BadSensor},
		{good(int64(5)), southbound.Reading{Quality: southbound.BadTimeout}, nil, southbound.BadTimeout},
		{southbound.Reading{Quality: southbound.BadCRC}, good(int64(0)), nil, southbound.BadCRC},
	} {
		if got := f.powerOfTen(test.value, test.power); got.Value != test.want || got.Quality != test.quality {
			t.Errorf("%v and %v: %+v", test.value, test.power, got)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"holding:0":      {Holding, 0, -1, -1, "", false},
		"holding:0x9C40": {Holding, 40000, -1, -1, "", false},
		"input:10.3":     {Input, 10, 3, -1, "", false},
		"coil:7":         {Coil, 7, -1, -1, "", false},
		"40001":          {Holding, 0, -1, -1, "", true},
		"400001":         {Holding, 0, -1, -1, "", true},
		"4x00001":        {Holding, 0, -1, -1, "", true},
		"465536":         {Holding, 65535, -1, -1, "", true},
		"30010":          {Input, 9, -1, -1, "", true},
		"10001":          {Discrete, 0, -1, -1, "", true},
		"00001":          {Coil, 0, -1, -1, "", true},
		"HR1":            {Holding, 0, -1, -1, "", true},
		"400011.3":       {Holding, 10, 3, -1, "", true},
		"1!400001#BB":    {Holding, 0, -1, 1, "#BB", true},
		"1!400001#LB":    {Holding, 0, -1, 1, "#LB", true},
	} {
		if got, err := ParseAddress(text, 0); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if got, err := ParseAddress("holding:10", 1); err != nil || got.Number != 9 {
		t.Errorf("holding:10 counted from 1 is %+v, %v", got, err)
	}
	for _, text := range []string{"", "holding", "holding:65536", "holding:-1", "40000", "465537", "50001", "coil:1.1", "holding:1.16", "300!40001", "holding:1 "} {
		if got, err := ParseAddress(text, 0); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}
