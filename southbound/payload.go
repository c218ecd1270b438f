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
// settled: {"ts":ms,"seq":n,"missed":n,"v":{…},"q":{…},"t":{…}}. Values keep the
// order of the readings; q names only what is not good and t the time of what is
// of another time than the batch; both are left out when empty, as is missed.
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
	odd, elsewhen := 0, 0
	for i := range b.Readings {
		r := &b.Readings[i]
		dst = appendKey(dst, i == 0, r.Tag)
		dst = appendValue(dst, r.Value)
		odd += count(r.Quality != Good)
		elsewhen += count(r.elsewhen(b.Time))
	}
	dst = append(dst, '}')
	if odd > 0 {
		dst = append(dst, `,"q":{`...)
		for i, first := 0, true; i < len(b.Readings); i++ {
			if r := &b.Readings[i]; r.Quality != Good {
				dst = appendString(appendKey(dst, first, r.Tag), r.Quality.String())
				first = false
			}
		}
		dst = append(dst, '}')
	}
	if elsewhen > 0 {
		dst = append(dst, `,"t":{`...)
		for i, first := 0, true; i < len(b.Readings); i++ {
			if r := &b.Readings[i]; r.elsewhen(b.Time) {
				dst = strconv.AppendInt(appendKey(dst, first, r.Tag), r.Time.UnixMilli(), 10)
				first = false
			}
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

// sameTime is how far the time of a reading may be from its batch's to be the
// same: the requests of one poll come after one another.
const sameTime = 100 * time.Millisecond

// elsewhen says that a value is of another time than its batch: the device gave
// one, or it is old.
func (r *Reading) elsewhen(batch time.Time) bool {
	return r.Quality.HasValue() && !r.Time.IsZero() && r.Time.Sub(batch).Abs() >= sameTime
}

// of is the time of a reading: its own, if that says more than the batch's.
func (r *Reading) of(batch time.Time) time.Time {
	if r.elsewhen(batch) {
		return r.Time
	}
	return batch
}

// appendTag appends the payload of one tag:
// {"tag":…,"value":…,"quality":…,"ts":ms,"unit":…,"seq":n}. No unit, no key.
func appendTag(dst []byte, seq uint64, b *Batch, i int, unit string) []byte {
	r := &b.Readings[i]
	dst = appendString(append(dst, `{"tag":`...), r.Tag)
	dst = appendValue(append(dst, `,"value":`...), r.Value)
	dst = appendString(append(dst, `,"quality":`...), r.Quality.String())
	dst = strconv.AppendInt(append(dst, `,"ts":`...), r.of(b.Time).UnixMilli(), 10)
	if unit != "" {
		dst = appendString(append(dst, `,"unit":`...), unit)
	}
	dst = strconv.AppendUint(append(dst, `,"seq":`...), seq, 10)
	return append(dst, '}')
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
		if tag.Range.declared() {
			dst = appendFloat(append(dst, `,"range":[`...), tag.Range.Low)
			dst = append(appendFloat(append(dst, ','), tag.Range.High), ']')
		}
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
