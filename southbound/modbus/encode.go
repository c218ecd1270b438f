package modbus

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/headgate-io/headgate/southbound"
)

// unfit says why a value is not written.
func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %s", southbound.ErrRejected, fmt.Sprintf(format, args...))
}

// A wireValue is what a value is in registers, as they go out; of a bit in a
// table of bits, one byte of 0 or 1. Only the bits that are set in mask are the
// value's; nil: all are.
type wireValue struct{ data, mask []byte }

// encode is decode's inverse: what it returns decodes to value. A value that the
// registers cannot hold is an error, never another value; a decimal becomes the
// nearest that a float has. power is the power of ten that ScaleFrom holds.
func (f *field) encode(value any, power int64) (w wireValue, fit any, err error) {
	switch {
	case f.Table.bits():
		v, ok := value.(bool)
		if !ok {
			return w, nil, unfit("%v is neither true nor false", value)
		}
		return wireValue{data: slices.Clone(truths[:])[index(v) : index(v)+1]}, v, nil
	case f.kind.class >= text:
		w, err = f.encodeText(value)
	default:
		w, err = f.encodeNumber(value, power)
	}
	if err != nil {
		return w, nil, err
	}
	fit, quality := f.decode(w.data)
	if f.ScaleFrom != "" {
		r := f.powerOfTen(southbound.Reading{Value: fit, Quality: quality}, southbound.Reading{Value: power, Quality: southbound.Good})
		fit, quality = r.Value, r.Quality
	}
	if quality != southbound.Good || !f.means(fit, value) {
		return w, nil, unfit("%v cannot be held by %s: the nearest is %v", value, f.Type, fit)
	}
	return w, fit, nil
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// means reports whether fit, which decode gave, is what was asked for.
func (f *field) means(fit, asked any) bool {
	if f.kind.class == floating {
		v, ok := asFloat(asked)
		w, number := asFloat(fit)
		precision := map[int]float64{16: 1.0 / (1 << 11), 32: 1.0 / (1 << 24), 64: 1.0 / (1 << 50)}[f.kind.width]
		return ok && number && math.Abs(v-w) <= precision*math.Max(math.Abs(v), math.Abs(w))*(1+1e-9)+f.slack(precision)
	}
	if f.kind.class > text { // bytes that are all there, in another notation, and times
		return true
	}
	if w, ok := fit.(float64); ok { // a scaled integer: of a float64 there are fewer digits than it may be written with
		v, ok := asFloat(asked)
		return ok && math.Abs(v-w) <= 1e-12*math.Max(math.Abs(v), math.Abs(w))
	}
	return exact(fit) == exact(asked)
}

// slack is what a scaled float may be off beside its own precision.
func (f *field) slack(precision float64) float64 {
	if !f.scaled {
		return 0
	}
	return precision * math.Abs(f.Offset) * 2
}

// exact is a value in a form in which equal ones are equal.
func exact(value any) string {
	switch v := value.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return strconv.FormatInt(int64(v), 10)
		}
	case []byte:
		return string(v)
	}
	return fmt.Sprint(value)
}

func asFloat(value any) (float64, bool) {
	switch v := value.(type) {
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return 0, false
}

// encodeNumber makes registers of a number, a truth or a label.
func (f *field) encodeNumber(value any, power int64) (w wireValue, err error) {
	var raw uint64
	switch f.kind.class {
	case truth:
		v, ok := value.(bool)
		if !ok {
			return w, unfit("%v is neither true nor false", value)
		}
		raw = uint64(index(v))
		if f.mask != 0 {
			raw *= f.mask
		}
	case floating:
		raw, err = f.rawFloat(value)
	default:
		var v whole
		if v, err = f.wholeOf(value, power); err == nil {
			raw, err = f.rawInteger(v)
		}
	}
	if err != nil {
		return w, err
	}
	if slices.Contains(f.Invalid, raw) {
		return w, unfit("%v is how the device says that it has no value (%#x)", value, raw)
	}
	return f.lay(raw), nil
}

// lay puts raw bits into registers, and says which of their bits it means.
func (f *field) lay(raw uint64) (w wireValue) {
	mask := uint64(math.MaxUint64)
	switch {
	case f.mask != 0:
		mask = f.mask
	case f.kind.width == 8 && f.Byte == "hi":
		raw, mask = raw<<8, 0xFF00
	case f.kind.width == 8:
		mask = 0xFF
	}
	if mask &= math.MaxUint64 >> (64 - 16*f.size); bits.OnesCount64(mask) < 16*f.size {
		w.mask = f.registers(mask)
	}
	w.data = f.registers(raw)
	return w
}

// registers is the inverse of bits.
func (f *field) registers(v uint64) []byte {
	wire := make([]byte, 2*f.size)
	for i := range f.size {
		word := uint16(v >> (16 * (f.size - 1 - i)))
		if f.order.swapBytes {
			word = bits.ReverseBytes16(word)
		}
		binary.BigEndian.PutUint16(wire[2*f.order.register(i, f.size):], word)
	}
	return wire
}

// wholeOf is the integer that a value is in the registers, before its bits are
// laid out.
func (f *field) wholeOf(value any, power int64) (w whole, err error) {
	if len(f.Labels) > 0 {
		for _, n := range slices.Sorted(maps.Keys(f.Labels)) {
			if f.Labels[n] == value {
				return whole{uint64(n), f.kind.signed || n < 0}, nil
			}
		}
		return w, unfit("%v is none of %s", value, strings.Join(slices.Sorted(maps.Values(f.Labels)), ", "))
	}
	if s, ok := value.(string); ok && f.BigAsText {
		if v, err := strconv.ParseInt(s, 10, 64); err == nil {
			value = v
		} else if v, err := strconv.ParseUint(s, 10, 64); err == nil {
			value = v
		}
	}
	if !f.scaled && f.ScaleFrom == "" {
		switch v := value.(type) {
		case int64:
			return whole{uint64(v), v < 0}, nil
		case uint64:
			return whole{v, false}, nil
		}
	}
	v, ok := asFloat(value)
	if !ok {
		return w, unfit("%.64v is no number", value)
	}
	if c := f.Clamp; c != nil && (v < c[0] || v > c[1]) {
		return w, unfit("%v lies outside clamp %v", v, c)
	}
	v = (v - f.Offset) / f.scale
	if f.ScaleFrom != "" {
		v /= math.Pow10(int(power))
	}
	switch v = math.Round(v); { // encode sees whether that is the value
	case v < -1<<63 || v >= 1<<64:
		return w, unfit("%v lies outside %s", value, f.Type)
	case v < 0:
		return whole{uint64(int64(v)), true}, nil
	}
	return whole{uint64(v), false}, nil
}

// rawInteger makes raw bits of an integer.
func (f *field) rawInteger(v whole) (uint64, error) {
	negative := v.signed && int64(v.bits) < 0
	magnitude := v.bits
	if negative {
		magnitude = -magnitude
	}
	outside := unfit("%s lies outside %s", exact(v.value(false)), f.Type)
	switch f.kind.class {
	case decimal, modulo:
		raw, ok := toDigits(magnitude, map[class]uint{decimal: 4, modulo: 16}[f.kind.class], f.kind.width)
		if negative || !ok {
			return 0, outside
		}
		return raw, nil
	case signed1s:
		sign := uint64(1) << (f.kind.width - 1)
		if magnitude >= sign {
			return 0, outside
		}
		if negative {
			magnitude |= sign
		}
		return magnitude, nil
	}
	width := f.kind.width
	if f.mask != 0 {
		width = bits.Len64(f.mask >> f.low)
	}
	most := uint64(math.MaxUint64) >> (64 - width)
	if f.kind.signed {
		most >>= 1
		if negative && magnitude == most+1 {
			most++
		}
	}
	if magnitude > most || negative && !f.kind.signed {
		return 0, outside
	}
	if width == 24 && negative { // the whole of both registers
		width = 32
	}
	raw := v.bits & (math.MaxUint64 >> (64 - width)) << f.low
	if f.mask != 0 && raw&^f.mask != 0 {
		return 0, outside
	}
	return raw, nil
}

// toDigits writes a number with digits of so many bits: 4 for one decimal digit,
// 16 for four of them.
func toDigits(v uint64, size uint, width int) (raw uint64, ok bool) {
	base := uint64(10)
	if size == 16 {
		base = 10000
	}
	for shift := uint(0); shift < uint(width); shift += size {
		raw |= v % base << shift
		v /= base
	}
	return raw, v == 0
}

func (f *field) rawFloat(value any) (uint64, error) {
	v, ok := asFloat(value)
	if !ok {
		return 0, unfit("%.64v is no number", value)
	}
	if c := f.Clamp; c != nil && (v < c[0] || v > c[1]) {
		return 0, unfit("%v lies outside clamp %v", v, c)
	}
	if f.scaled {
		v = (v - f.Offset) / f.scale
	}
	switch f.kind.width {
	case 16:
		h, ok := toHalf(v)
		if !ok {
			return 0, unfit("%v lies outside float16", value)
		}
		return uint64(h), nil
	case 32:
		if narrow := float32(v); !math.IsInf(float64(narrow), 0) && (narrow != 0 || v == 0) {
			return uint64(math.Float32bits(narrow)), nil
		}
		return 0, unfit("%v lies outside float32", value)
	}
	return math.Float64bits(v), nil
}

// toHalf is the nearest float of 16 bits, ties to even (IEEE 754 binary16).
func toHalf(v float64) (uint16, bool) {
	sign := uint16(math.Float64bits(v)>>63) << 15
	v = math.Abs(v)
	if v == 0 {
		return sign, true
	}
	_, exponent := math.Frexp(v) // v = m * 2**exponent with m in [0.5, 1)
	step := math.Ldexp(1, max(exponent-11, -24))
	n := uint32(math.RoundToEven(v / step))
	if exponent < -13 { // subnormal, or the least normal
		return sign | uint16(n), n > 0
	}
	biased := uint32(exponent+14)<<10 + (n - 1<<10)
	return sign | uint16(biased), biased < 0x7C00
}

// encodeText makes registers of what is no number.
func (f *field) encodeText(value any) (w wireValue, err error) {
	s, isText := value.(string)
	if raw, ok := value.([]byte); ok && f.kind.class == octets {
		return f.layOctets(raw)
	}
	if !isText {
		return w, unfit("%.64v is no text", value)
	}
	switch {
	case f.kind.class == moment:
		return f.encodeTime(s)
	case f.Encoding == "hex":
		raw, err := hex.DecodeString(s)
		if err != nil {
			return w, unfit("%.64q is not hexadecimal", s)
		}
		return f.layOctets(raw)
	case f.kind.class == octets:
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return w, unfit("%.64q is not base64", s)
		}
		return f.layOctets(raw)
	case f.Encoding == "utf16":
		return f.encodeUTF16(s)
	case f.Encoding == "latin1":
		var raw []byte
		for _, r := range s {
			if r > 0xFF {
				return w, unfit("%q is no character of latin1", r)
			}
			raw = append(raw, byte(r))
		}
		return f.layText(raw)
	}
	return f.layText([]byte(s))
}

// layText fills up with NULs.
func (f *field) layText(octets []byte) (w wireValue, err error) {
	if room := f.room(); len(octets) <= room {
		return f.layOctets(append(octets, make([]byte, room-len(octets))...))
	}
	return w, unfit("%d bytes are more than the %d that there is room for", len(octets), f.room())
}

// room is how many bytes the registers take.
func (f *field) room() int {
	if f.Byte == "hi" || f.Byte == "lo" {
		return f.size
	}
	return 2 * f.size
}

// layOctets is the inverse of octets.
func (f *field) layOctets(octets []byte) (w wireValue, err error) {
	if len(octets) != f.room() {
		return w, unfit("%d bytes, and there are %d", len(octets), f.room())
	}
	w.data = make([]byte, 2*f.size)
	swap := index(f.order.swapBytes)
	if f.room() == f.size {
		half := index(f.Byte == "lo")
		w.mask = make([]byte, 2*f.size)
		for i, b := range octets {
			w.data[2*i+(half^swap)], w.mask[2*i+(half^swap)] = b, 0xFF
		}
		return w, nil
	}
	for i, b := range octets {
		w.data[i^swap] = b
	}
	return w, nil
}

func (f *field) encodeUTF16(s string) (w wireValue, err error) {
	units := utf16.Encode([]rune(s))
	if len(units) > f.size {
		return w, unfit("%d characters are more than the %d that there is room for", len(units), f.size)
	}
	w.data = make([]byte, 2*f.size)
	for i, unit := range units {
		if f.order.swapBytes {
			unit = bits.ReverseBytes16(unit)
		}
		binary.BigEndian.PutUint16(w.data[2*i:], unit)
	}
	return w, nil
}

// encodeTime is the inverse of time.
func (f *field) encodeTime(s string) (w wireValue, err error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return w, unfit("%.64q is no time; write 2026-11-29T12:00:00Z", s)
	}
	t = t.UTC()
	if f.Encoding != "date" {
		if t.Unix() < 0 || f.size == 2 && t.Unix() > math.MaxUint32 || t.Nanosecond() != 0 {
			return w, unfit("%.64q cannot be held by %d registers of seconds since 1970", s, f.size)
		}
		w.data = f.registers(uint64(t.Unix()))
		return w, nil
	}
	if t.Year() < 2000 || t.Year() > 2127 {
		return w, unfit("%.64q lies outside the years from 2000 to 2127", s)
	}
	raw := uint64(t.Year()-2000)<<48 | uint64(t.Month())<<40 | uint64(t.Day())<<32 |
		uint64(t.Hour())<<24 | uint64(t.Minute())<<16 | uint64(t.Second()*1000+t.Nanosecond()/int(time.Millisecond))
	w.data = f.registers(raw)
	return w, nil
}
