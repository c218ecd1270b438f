package modbus

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/headgate-io/headgate/southbound"
)

// compiled returns the one field of a tag.
func compiled(t *testing.T, tag Tag) *field {
	t.Helper()
	if tag.Table == "" {
		tag.Table = Holding
	}
	fields, err := compile(tag)
	if err != nil {
		t.Fatalf("%+v: %v", tag, err)
	}
	return &fields[0]
}

var everyOrder = []string{"ABCD", "CDAB", "BADC", "DCBA"}

// tagsOfEveryKind is a tag of each type in each order, with and without what can
// be said about it.
func tagsOfEveryKind() (all []Tag) {
	scale, digits := 0.1, 3
	for _, k := range kinds {
		for _, order := range everyOrder {
			tag := Tag{Name: "t", Table: Holding, Type: k.name, Order: order}
			switch k.class {
			case text, octets:
				tag.Length = 4
				for _, half := range []string{"", "hi", "lo"} {
					for _, encoding := range map[class][]string{text: {"ascii", "latin1", "utf8"}, octets: {"base64", "hex"}}[k.class] {
						tag.Byte, tag.Encoding = half, encoding
						all = append(all, tag)
					}
				}
				tag.Byte = ""
				if k.class == text {
					tag.Encoding = "utf16"
					all = append(all, tag)
				}
				continue
			case moment:
				for _, encoding := range []string{"unix32", "unix64", "date"} {
					tag.Encoding = encoding
					all = append(all, tag)
				}
				continue
			case truth:
				if k.name == "bit" {
					tag.Bit = 5
					all = append(all, tag)
				}
				continue
			}
			all = append(all, tag)
			if k.width == 8 {
				tag.Byte = "hi"
				all = append(all, tag)
			}
			tag.Scale = &scale
			all = append(all, tag)
			tag.Offset = -40
			all = append(all, tag)
			tag.Round = &digits
			all = append(all, tag)
			if k.class == integer {
				all = append(all, Tag{Name: "t", Table: Holding, Type: k.name, Order: order, Mask: 0x7C, Shift: 2})
			}
		}
	}
	return append(all, Tag{Name: "t", Table: Holding, Type: "bits[4..9]"},
		Tag{Name: "t", Table: Holding, Type: "int16", Labels: map[int64]string{-1: "fault", 0: "off", 1: "on"}},
		Tag{Name: "t", Table: Holding, Type: "uint16", ScaleMap: []float64{4000, 20000, 0, 100}},
		Tag{Name: "t", Table: Coil, Type: "bool"})
}

// Whatever registers decode to is written as registers that decode to the same,
// and of the rest nothing is meant to change.
func TestEncodeIsTheInverseOfDecode(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 22))
	for _, tag := range tagsOfEveryKind() {
		f := compiled(t, tag)
		name := fmt.Sprintf("%s %s %s %s scale=%v offset=%v mask=%#x", tag.Type, tag.Order, tag.Encoding, tag.Byte, tag.Scale != nil, tag.Offset, tag.Mask)
		tried := 0
		for i := 0; tried < 300 && i < 200_000; i++ {
			wire := make([]byte, 2*f.size)
			for j := range wire {
				wire[j] = byte(random.Uint32())
				if i%3 == 1 && f.kind.class != floating { // digits, letters, small numbers
					wire[j] &= 0x07
				}
			}
			if f.Table.bits() {
				wire = []byte{wire[0] & 1}
			}
			value, quality := f.decode(wire)
			if quality != southbound.Good {
				continue
			}
			tried++
			w, fit, err := f.encode(value, 0)
			if err != nil {
				if math.Abs(asNumber(value)) > 1<<50 { // a scaled value with more digits than a float64 has
					continue
				}
				t.Fatalf("%s: %x is %v, and cannot be written: %v", name, wire, value, err)
			}
			if !sameReading(fit, value) {
				t.Fatalf("%s: %v is written as %v", name, value, fit)
			}
			merged := append([]byte(nil), w.data...)
			for j := range w.mask {
				merged[j] = wire[j]&^w.mask[j] | w.data[j]&w.mask[j]
			}
			again, quality := f.decode(merged)
			if quality != southbound.Good || !sameReading(again, value) {
				t.Fatalf("%s: %v was %x, is written as %x (mask %x), and reads back %v, %s", name, value, wire, w.data, w.mask, again, quality)
			}
		}
		if tried < 5 {
			t.Errorf("%s: only %d values tried", name, tried)
		}
	}
}

func asNumber(v any) float64 {
	n, _ := asFloat(v)
	return n
}

func sameReading(a, b any) bool {
	if x, ok := a.(float64); ok {
		return math.Abs(x-asNumber(b)) <= 1e-12*math.Abs(x)
	}
	return exact(a) == exact(b)
}

// What a tag cannot hold is refused, and never becomes another value.
func TestUnfitValuesAreRefused(t *testing.T) {
	tenth := 0.1
	for _, tt := range []struct {
		tag   Tag
		value any
	}{
		{Tag{Type: "int16"}, int64(32768)}, {Tag{Type: "int16"}, int64(-32769)}, {Tag{Type: "uint16"}, int64(-1)}, {Tag{Type: "uint16"}, int64(65536)},
		{Tag{Type: "uint16"}, 1.5}, {Tag{Type: "uint16"}, "12"}, {Tag{Type: "uint16"}, true}, {Tag{Type: "uint16"}, nil},
		{Tag{Type: "int8"}, int64(128)}, {Tag{Type: "uint8"}, int64(256)}, {Tag{Type: "int24"}, int64(1 << 23)}, {Tag{Type: "uint24"}, int64(1 << 24)},
		{Tag{Type: "int32"}, int64(1 << 31)}, {Tag{Type: "uint48"}, uint64(1 << 48)}, {Tag{Type: "int64"}, uint64(1 << 63)}, {Tag{Type: "uint64"}, 1e20},
		{Tag{Type: "int16", Scale: &tenth}, 42.04}, {Tag{Type: "int16", Scale: &tenth}, 4000.0}, {Tag{Type: "int16", Scale: &tenth}, -3276.9},
		{Tag{Type: "float32"}, 1e39}, {Tag{Type: "float32"}, 1e-60}, {Tag{Type: "float32"}, math.NaN()}, {Tag{Type: "float32"}, math.Inf(1)}, {Tag{Type: "float16"}, 70000.0},
		{Tag{Type: "bcd16"}, int64(10000)}, {Tag{Type: "bcd16"}, int64(-1)}, {Tag{Type: "mod10k32"}, int64(100_000_000)}, {Tag{Type: "sm16"}, int64(32768)},
		{Tag{Type: "bits[0..3]"}, int64(16)}, {Tag{Type: "bit", Bit: 3}, int64(1)}, {Tag{Type: "uint16", Mask: 0x5}, int64(2)},
		{Tag{Type: "int16", Invalid: []uint64{0x8000}}, int64(-32768)}, {Tag{Type: "int16", Clamp: []float64{0, 100}}, int64(101)},
		{Tag{Type: "int16", Labels: map[int64]string{0: "off", 1: "on"}}, "auto"}, {Tag{Type: "int16", Labels: map[int64]string{0: "off", 1: "on"}}, int64(1)},
		{Tag{Type: "string", Length: 2}, "hello"}, {Tag{Type: "string", Length: 4}, "é"}, {Tag{Type: "string", Length: 4}, "ab  "}, {Tag{Type: "string", Length: 4}, int64(1)},
		{Tag{Type: "string", Length: 4}, "a\x00b"}, {Tag{Type: "bytes", Length: 1}, "AAAA"}, {Tag{Type: "bytes", Length: 1, Encoding: "hex"}, "zz"},
		{Tag{Type: "time"}, "yesterday"}, {Tag{Type: "time"}, "2200-01-01T00:00:00Z"}, {Tag{Type: "time"}, "2026-01-01T00:00:00.5Z"}, {Tag{Type: "time", Encoding: "date"}, "1999-01-01T00:00:00Z"},
		{Tag{Type: "bool", Table: Coil}, int64(1)},
	} {
		w, fit, err := compiled(t, tt.tag).encode(tt.value, 0)
		if !errors.Is(err, southbound.ErrRejected) {
			t.Errorf("%s: %v became %x, which is %v; err %v", tt.tag.Type, tt.value, w.data, fit, err)
		}
	}
}

// A decimal becomes the nearest float there is.
func TestFloatsAreRounded(t *testing.T) {
	for _, value := range []any{64.0 / 3, 71.3, int64(16777217), 0.1, -2.718281828459045} {
		for _, typ := range []string{"float32", "float64"} {
			_, fit, err := compiled(t, Tag{Type: typ}).encode(value, 0)
			if err != nil || math.Abs(asNumber(fit)-asNumber(value)) > 1e-7*math.Abs(asNumber(value)) {
				t.Errorf("%s: %v became %v, %v", typ, value, fit, err)
			}
		}
	}
}

// A value with SunSpec's scale factor is written with the device's power of ten.
func TestEncodeWithPowerOfTen(t *testing.T) {
	f := compiled(t, Tag{Type: "uint16", ScaleFrom: "sf"})
	w, fit, err := f.encode(75.5, -1)
	if err != nil || fmt.Sprintf("%x", w.data) != "02f3" || fit != 75.5 {
		t.Errorf("75.5 became %x, %v, %v", w.data, fit, err)
	}
	if _, _, err := f.encode(75.55, -1); !errors.Is(err, southbound.ErrRejected) {
		t.Errorf("75.55 was taken: %v", err)
	}
}
