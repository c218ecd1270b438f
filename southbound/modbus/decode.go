package modbus

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/headgate-io/headgate/southbound"
)

// bits returns the value's bits from its registers as they were on the wire,
// 2*f.size bytes.
func (f *field) bits(wire []byte) uint64 {
	var v uint64
	for i := range f.size {
		word := binary.BigEndian.Uint16(wire[2*f.order.register(i, f.size):])
		if f.order.swapBytes {
			word = bits.ReverseBytes16(word)
		}
		v = v<<16 | uint64(word)
	}
	return v
}

// decode returns the value that the registers hold, as a Reading may carry it. A
// declared "no value" and what is no number or text is bad.sensor.
func (f *field) decode(wire []byte) (any, southbound.Quality) {
	switch {
	case f.Table.bits():
		return wire[0] != 0, southbound.Good
	case f.kind.class >= text:
		return f.decodeText(wire)
	}
	raw := f.bits(wire)
	if slices.Contains(f.Invalid, raw) {
		return nil, southbound.BadSensor
	}
	switch f.kind.class {
	case truth:
		if f.mask != 0 {
			raw &= f.mask
		}
		return raw != 0, southbound.Good
	case floating:
		return f.finish(f.float(raw))
	}
	v, ok := f.integer(raw)
	switch {
	case !ok:
		return nil, southbound.BadSensor
	case len(f.Labels) > 0:
		return f.label(v)
	case f.scaled || f.Clamp != nil || f.Round != nil:
		return f.finish(v.float())
	}
	return v.value(f.BigAsText), southbound.Good
}

// A whole is an integer of 64 bits with or without sign.
type whole struct {
	bits   uint64
	signed bool
}

func (w whole) float() float64 {
	if w.signed {
		return float64(int64(w.bits))
	}
	return float64(w.bits)
}

// value is the integer as it is published. As text beyond what a float64 holds,
// for receivers that take every JSON number for one.
func (w whole) value(bigAsText bool) any {
	const exact = 1 << 53
	if w.signed {
		if v := int64(w.bits); !bigAsText || v >= -exact && v <= exact {
			return v
		}
		return strconv.FormatInt(int64(w.bits), 10)
	}
	if !bigAsText || w.bits <= exact {
		return w.bits
	}
	return strconv.FormatUint(w.bits, 10)
}

// integer makes a number of raw bits. It returns false if they are none.
func (f *field) integer(raw uint64) (whole, bool) {
	switch f.kind.class {
	case decimal:
		v, ok := fromBCD(raw)
		return whole{v, false}, ok
	case modulo:
		v, ok := fromModulo(raw, f.size)
		return whole{v, false}, ok
	case signed1s:
		sign := uint64(1) << (f.kind.width - 1)
		v := int64(raw &^ sign)
		if raw&sign != 0 {
			v = -v
		}
		return whole{uint64(v), true}, true
	}
	width := f.kind.width
	if width == 8 && f.Byte == "hi" {
		raw >>= 8
	}
	raw &= math.MaxUint64 >> (64 - width)
	if f.mask != 0 {
		raw = raw & f.mask >> f.low
		width = bits.Len64(f.mask >> f.low)
	}
	if f.kind.signed && width > 0 {
		raw = uint64(int64(raw<<(64-width)) >> (64 - width))
	}
	return whole{raw, f.kind.signed}, true
}

// fromBCD reads four bits as a digit.
func fromBCD(raw uint64) (uint64, bool) {
	var v uint64
	for shift := 60; shift >= 0; shift -= 4 {
		digit := raw >> shift & 0xF
		if digit > 9 {
			return 0, false
		}
		v = v*10 + digit
	}
	return v, true
}

// fromModulo reads registers as four digits each.
func fromModulo(raw uint64, words int) (uint64, bool) {
	var v uint64
	for i := words - 1; i >= 0; i-- {
		digits := raw >> (16 * i) & 0xFFFF
		if digits > 9999 {
			return 0, false
		}
		v = v*10000 + digits
	}
	return v, true
}

func (f *field) float(raw uint64) float64 {
	switch f.kind.width {
	case 16:
		return widen(fromHalf(uint16(raw)))
	case 32:
		return widen(math.Float32frombits(uint32(raw)))
	}
	return math.Float64frombits(raw)
}

// fromHalf reads a float of 16 bits (IEEE 754 binary16).
func fromHalf(h uint16) float32 {
	sign, exponent, fraction := uint32(h)>>15<<31, int(h>>10&0x1F), uint32(h&0x3FF)
	switch exponent {
	case 0:
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1F:
		return math.Float32frombits(sign | 0xFF<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | uint32(exponent-15+127)<<23 | fraction<<13)
}

// label names an integer. One without a name is its digits, out of range.
func (f *field) label(v whole) (any, southbound.Quality) {
	if name, ok := f.Labels[int64(v.bits)]; ok {
		return name, southbound.Good
	}
	if v.signed {
		return strconv.FormatInt(int64(v.bits), 10), southbound.UncertainRange
	}
	return strconv.FormatUint(v.bits, 10), southbound.UncertainRange
}

// finish applies scale, offset, clamp and rounding.
func (f *field) finish(v float64) (any, southbound.Quality) {
	v = f.scaleUp(v)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, southbound.BadSensor
	}
	quality := southbound.Good
	if c := f.Clamp; c != nil && (v < c[0] || v > c[1]) {
		v, quality = min(max(v, c[0]), c[1]), southbound.UncertainRange
	}
	if f.Round != nil {
		v = roundTo(v, *f.Round)
	}
	return v, quality
}

// powerOfTen applies the power that another tag holds, as SunSpec's scale
// factors have it. The power's quality is the least that the value has.
func (f *field) powerOfTen(r, power southbound.Reading) southbound.Reading {
	exponent, ok := power.Value.(int64)
	var text string
	switch v := r.Value.(type) {
	case int64:
		text = strconv.FormatInt(v, 10)
	case uint64:
		text = strconv.FormatUint(v, 10)
	case float64:
		text = strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return r // it was not read
	}
	v, err := strconv.ParseFloat(text+"e"+strconv.FormatInt(exponent, 10), 64)
	switch {
	case !power.Quality.HasValue():
		r.Value, r.Quality = nil, power.Quality
	case !ok || exponent < -10 || exponent > 10 || err != nil:
		r.Value, r.Quality = nil, southbound.BadSensor
	default:
		r.Value, r.Quality = f.finish(v)
	}
	return r
}

// widen returns the float64 that is written like v: 0.1 and not
// 0.10000000149011612. Converted back it is v again.
func widen(v float32) float64 {
	wide := float64(v)
	if math.IsNaN(wide) || math.IsInf(wide, 0) {
		return wide
	}
	var buf [32]byte
	short, err := strconv.ParseFloat(string(strconv.AppendFloat(buf[:0], wide, 'g', -1, 32)), 64)
	if err != nil {
		return wide
	}
	return short
}

// maxDecimals bounds the rounding of scaled values: a float64 has no more
// digits that mean anything.
const maxDecimals = 15

// scaleUp applies scale and offset. The product of two decimals has as many
// digits after the point as both together; rounding there removes what binary
// arithmetic added, so that 713 * 0.1 is 71.3 and not 71.30000000000001.
func (f *field) scaleUp(v float64) float64 {
	if !f.scaled || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	scaled := v*f.scale + f.Offset
	digits := max(decimals(v)+f.decimals[0], f.decimals[1])
	if digits > maxDecimals || math.IsInf(scaled, 0) {
		return scaled
	}
	return roundTo(scaled, digits)
}

// roundTo returns v with at most so many digits after the point.
func roundTo(v float64, digits int) float64 {
	var buf [32]byte
	rounded, err := strconv.ParseFloat(string(strconv.AppendFloat(buf[:0], v, 'f', digits, 64)), 64)
	if err != nil {
		return v
	}
	if rounded == 0 {
		return 0 // and not -0
	}
	return rounded
}
