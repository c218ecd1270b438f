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
// 2*f.kind.words bytes.
func (f *field) bits(wire []byte) uint64 {
	var v uint64
	for i := range f.kind.words {
		at := i
		if f.order.swapWords {
			at = f.kind.words - 1 - i
		}
		word := binary.BigEndian.Uint16(wire[2*at:])
		if f.order.swapBytes {
			word = bits.ReverseBytes16(word)
		}
		v = v<<16 | uint64(word)
	}
	return v
}

// decode returns the value that the registers hold: int64, uint64 or a finite
// float64. A declared "no value" and what is no number is bad.sensor.
func (f *field) decode(wire []byte) (any, southbound.Quality) {
	raw := f.bits(wire)
	if slices.Contains(f.Invalid, raw) {
		return nil, southbound.BadSensor
	}
	if !f.kind.float && !f.scaled {
		if f.kind.signed {
			return f.signExtend(raw), southbound.Good
		}
		return raw, southbound.Good
	}
	v := f.scaleUp(f.number(raw))
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, southbound.BadSensor
	}
	return v, southbound.Good
}

func (f *field) signExtend(raw uint64) int64 {
	unused := 64 - 16*f.kind.words
	return int64(raw<<unused) >> unused
}

func (f *field) number(raw uint64) float64 {
	switch {
	case f.kind.float && f.kind.words == 2:
		return widen(math.Float32frombits(uint32(raw)))
	case f.kind.float:
		return math.Float64frombits(raw)
	case f.kind.signed:
		return float64(f.signExtend(raw))
	}
	return float64(raw)
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
	var buf [32]byte
	rounded, err := strconv.ParseFloat(string(strconv.AppendFloat(buf[:0], scaled, 'f', digits, 64)), 64)
	if err != nil {
		return scaled
	}
	if rounded == 0 {
		return 0 // and not -0
	}
	return rounded
}
