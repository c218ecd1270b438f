package southbound

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// settle makes readings fit for a payload, in place, and counts those with and
// without a value. What cannot be published as a value becomes no value: a
// number that is NaN or infinite, a missing value, or a type that a Reading
// must not hold is bad.sensor; a bad reading loses whatever value it carries.
func settle(readings []Reading) (good, bad int) {
	for i := range readings {
		r := &readings[i]
		switch {
		case r.Quality > Good:
			r.Quality, r.Value = BadDevice, nil
		case !r.Quality.HasValue():
			r.Value = nil
		case !publishable(r.Value):
			r.Quality, r.Value = BadSensor, nil
		}
		if r.Quality.HasValue() {
			good++
		} else {
			bad++
		}
	}
	return good, bad
}

func publishable(value any) bool {
	switch v := value.(type) {
	case bool, int64, uint64, string, []byte:
		return true
	case float64:
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return false
}

// appendBatch appends the telemetry payload of a batch whose readings are
// settled: {"ts":ms,"seq":n,"missed":n,"v":{…},"q":{…}}. Values keep the order of
// the readings; q names only what is not good and is left out when all is, as is
// missed when no poll was.
func appendBatch(dst []byte, seq uint64, b *Batch) []byte {
	dst = append(dst, `{"ts":`...)
	dst = strconv.AppendInt(dst, b.Time.UnixMilli(), 10)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	if b.Missed > 0 {
		dst = append(dst, `,"missed":`...)
		dst = strconv.AppendInt(dst, int64(b.Missed), 10)
	}
	dst = append(dst, `,"v":{`...)
	allGood := true
	for i := range b.Readings {
		r := &b.Readings[i]
		dst = appendKey(dst, i == 0, r.Tag)
		dst = appendValue(dst, r.Value)
		allGood = allGood && r.Quality == Good
	}
	dst = append(dst, '}')
	if allGood {
		return append(dst, '}')
	}
	dst = append(dst, `,"q":{`...)
	first := true
	for i := range b.Readings {
		r := &b.Readings[i]
		if r.Quality == Good {
			continue
		}
		dst = appendKey(dst, first, r.Tag)
		dst = appendString(dst, r.Quality.String())
		first = false
	}
	return append(dst, '}', '}')
}

// appendState appends the payload of a device's retained state.
func appendState(dst []byte, state State, since time.Time, problem string) []byte {
	dst = append(dst, `{"state":`...)
	dst = appendString(dst, string(state))
	dst = append(dst, `,"since":`...)
	dst = strconv.AppendInt(dst, since.UnixMilli(), 10)
	if problem != "" {
		dst = append(dst, `,"error":`...)
		dst = appendString(dst, problem)
	}
	return append(dst, '}')
}

// appendMeta appends the payload that describes a device's tags.
func appendMeta(dst []byte, tags []Tag) []byte {
	dst = append(dst, `{"tags":{`...)
	for i, tag := range tags {
		dst = appendKey(dst, i == 0, tag.Name)
		dst = append(dst, `{"type":`...)
		dst = appendString(dst, tag.Type)
		if tag.Unit != "" {
			dst = append(dst, `,"unit":`...)
			dst = appendString(dst, tag.Unit)
		}
		dst = append(dst, `,"group":`...)
		dst = appendString(dst, tag.Group)
		dst = append(dst, '}')
	}
	return append(dst, '}', '}')
}

func appendKey(dst []byte, first bool, name string) []byte {
	if !first {
		dst = append(dst, ',')
	}
	return append(appendString(dst, name), ':')
}

func appendValue(dst []byte, value any) []byte {
	switch v := value.(type) {
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case float64:
		return appendFloat(dst, v)
	case string:
		return appendString(dst, v)
	case []byte:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v)
		return append(dst, '"')
	}
	return append(dst, "null"...)
}

// appendFloat writes the shortest decimal that reads back as v, without an
// exponent where people would not write one.
func appendFloat(dst []byte, v float64) []byte {
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

// appendString writes s as a JSON string (RFC 8259, section 7). Bytes that are
// not UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0 // of what is still to be copied as it stands
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			dst = append(dst, s[start:i]...)
			if c < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
			} else {
				dst = append(dst, '\\', c)
			}
			start = i + 1
		}
		i++
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
