package modbus

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/headgate-io/headgate/southbound"
)

// decodeText reads what is no number: strings, bytes and times.
func (f *field) decodeText(wire []byte) (any, southbound.Quality) {
	if f.SunSpec && f.kind.class == text && bytes.Count(wire, []byte{0}) == len(wire) {
		return nil, southbound.BadSensor
	}
	var s string
	ok := true
	switch {
	case f.kind.class == moment:
		s, ok = f.time(wire)
	case f.Encoding == "hex":
		s = hex.EncodeToString(f.octets(wire))
	case f.kind.class == octets:
		return f.octets(wire), southbound.Good
	case f.Encoding == "utf16":
		s, ok = f.utf16(wire)
	default:
		s, ok = f.text(wire)
	}
	if !ok {
		return nil, southbound.BadSensor
	}
	return s, southbound.Good
}

// octets returns the bytes of the registers, or half of them. The order of the
// registers is kept, since text is not a number.
func (f *field) octets(wire []byte) []byte {
	out := make([]byte, 0, len(wire))
	for i := 0; i+1 < len(wire); i += 2 {
		hi, lo := wire[i], wire[i+1]
		if f.order.swapBytes {
			hi, lo = lo, hi
		}
		if f.Byte != "lo" {
			out = append(out, hi)
		}
		if f.Byte != "hi" {
			out = append(out, lo)
		}
	}
	return out
}

// text ends at the first NUL and has no spaces at its end.
func (f *field) text(wire []byte) (string, bool) {
	raw, _, _ := bytes.Cut(f.octets(wire), []byte{0})
	raw = bytes.TrimRight(raw, " ")
	if f.Encoding == "latin1" {
		runes := make([]rune, len(raw))
		for i, b := range raw {
			runes[i] = rune(b)
		}
		return string(runes), true
	}
	if f.Encoding == "ascii" && bytes.ContainsFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return "", false
	}
	return string(raw), utf8.Valid(raw)
}

func (f *field) utf16(wire []byte) (string, bool) {
	var units []uint16
	for i := 0; i+1 < len(wire); i += 2 {
		unit := binary.BigEndian.Uint16(wire[i:])
		if f.order.swapBytes {
			unit = bits.ReverseBytes16(unit)
		}
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	s := string(utf16.Decode(units))
	return strings.TrimRight(s, " "), !strings.ContainsRune(s, utf8.RuneError)
}

// time reads seconds since 1970, or four registers of a date: the year from
// 2000; month and day; hour and minute; milliseconds (IEC 60870-5 CP56Time2a,
// as meters lay it out).
func (f *field) time(wire []byte) (string, bool) {
	if f.Encoding != "date" {
		seconds := int64(f.bits(wire))
		const last = 253402300799 // the last second of the year 9999
		if seconds < 0 || seconds > last {
			return "", false
		}
		return time.Unix(seconds, 0).UTC().Format(time.RFC3339), true
	}
	raw := f.bits(wire)
	year, month, day := 2000+int(raw>>48&0x7F), time.Month(raw>>40&0xF), int(raw>>32&0x1F)
	hour, minute, ms := int(raw>>24&0x1F), int(raw>>16&0x3F), int(raw&0xFFFF)
	t := time.Date(year, month, day, hour, minute, 0, ms*int(time.Millisecond), time.UTC)
	if t.Month() != month || t.Day() != day || t.Hour() != hour || t.Minute() != minute {
		return "", false
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00"), true
}
