package southbound

import (
	"encoding/binary"
	"math"
	"strings"
)

// Major types of CBOR (RFC 8949, 3.1).
const (
	cborUint  = 0 << 5
	cborInt   = 1 << 5
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborMap   = 5 << 5
	cborOther = 7 << 5
)

// appendBatchCBOR is appendBatch in CBOR: the same map, with bytes as bytes.
func appendBatchCBOR(dst []byte, seq uint64, b *Batch) []byte {
	odd, elsewhen := 0, 0
	for i := range b.Readings {
		odd += count(b.Readings[i].Quality != Good)
		elsewhen += count(b.Readings[i].elsewhen(b.Time))
	}
	dst = appendHead(dst, cborMap, uint64(3+count(b.Missed > 0)+count(odd > 0)+count(elsewhen > 0)))
	dst = appendCBOR(appendText(dst, "ts"), b.Time.UnixMilli())
	dst = appendCBOR(appendText(dst, "seq"), seq)
	if b.Missed > 0 {
		dst = appendCBOR(appendText(dst, "missed"), int64(b.Missed))
	}
	dst = appendHead(appendText(dst, "v"), cborMap, uint64(len(b.Readings)))
	for i := range b.Readings {
		dst = appendCBOR(appendText(dst, b.Readings[i].Tag), b.Readings[i].Value)
	}
	if odd > 0 {
		dst = appendHead(appendText(dst, "q"), cborMap, uint64(odd))
		for i := range b.Readings {
			if r := &b.Readings[i]; r.Quality != Good {
				dst = appendText(appendText(dst, r.Tag), r.Quality.String())
			}
		}
	}
	if elsewhen > 0 {
		dst = appendHead(appendText(dst, "t"), cborMap, uint64(elsewhen))
		for i := range b.Readings {
			if r := &b.Readings[i]; r.elsewhen(b.Time) {
				dst = appendCBOR(appendText(dst, r.Tag), r.Time.UnixMilli())
			}
		}
	}
	return dst
}

// appendTagCBOR is appendTag in CBOR.
func appendTagCBOR(dst []byte, seq uint64, b *Batch, i int, unit string) []byte {
	r := &b.Readings[i]
	dst = appendHead(dst, cborMap, uint64(5+count(unit != "")))
	dst = appendText(appendText(dst, "tag"), r.Tag)
	dst = appendCBOR(appendText(dst, "value"), r.Value)
	dst = appendText(appendText(dst, "quality"), r.Quality.String())
	dst = appendCBOR(appendText(dst, "ts"), r.of(b.Time).UnixMilli())
	if unit != "" {
		dst = appendText(appendText(dst, "unit"), unit)
	}
	return appendCBOR(appendText(dst, "seq"), seq)
}

// appendCBOR appends a value that a Reading may hold.
func appendCBOR(dst []byte, value any) []byte {
	switch v := value.(type) {
	case bool:
		return append(dst, cborOther|20+byte(count(v)))
	case int64:
		if v < 0 {
			return appendHead(dst, cborInt, uint64(-1-v))
		}
		return appendHead(dst, cborUint, uint64(v))
	case uint64:
		return appendHead(dst, cborUint, v)
	case float64:
		return binary.BigEndian.AppendUint64(append(dst, cborOther|27), math.Float64bits(v))
	case string:
		return appendText(dst, v)
	case []byte:
		return append(appendHead(dst, cborBytes, uint64(len(v))), v...)
	}
	return append(dst, cborOther|22) // null
}

func appendText(dst []byte, s string) []byte {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return append(appendHead(dst, cborText, uint64(len(s))), s...)
}

// appendHead appends a type and its argument in the shortest form.
func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}
