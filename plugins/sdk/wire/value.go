package wire

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/headgate-io/headgate/southbound"
)

// EncodeValue translates a value as southbound.Reading allows it.
func EncodeValue(value any) (*Value, error) {
	switch v := value.(type) {
	case bool:
		return &Value{Kind: &Value_Bool{v}}, nil
	case int64:
		return &Value{Kind: &Value_Int{v}}, nil
	case uint64:
		return &Value{Kind: &Value_Uint{v}}, nil
	case float64:
		return &Value{Kind: &Value_Double{v}}, finite(v)
	case string:
		if !utf8.ValidString(v) {
			return nil, errors.New("string is not UTF-8; deliver []byte")
		}
		return &Value{Kind: &Value_String_{v}}, bounded(len(v))
	case []byte:
		return &Value{Kind: &Value_Bytes{v}}, bounded(len(v))
	default:
		return nil, fmt.Errorf("value of type %T; use bool, int64, uint64, float64, string or []byte", value)
	}
}

// DecodeValue is the inverse of EncodeValue. The result shares the memory of v.
func DecodeValue(v *Value) (any, error) {
	switch k := v.GetKind().(type) {
	case *Value_Bool:
		return k.Bool, nil
	case *Value_Int:
		return k.Int, nil
	case *Value_Uint:
		return k.Uint, nil
	case *Value_Double:
		return k.Double, finite(k.Double)
	case *Value_String_:
		return k.String_, bounded(len(k.String_))
	case *Value_Bytes:
		return k.Bytes, bounded(len(k.Bytes))
	default:
		return nil, errors.New("no value of a known type")
	}
}

func finite(v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%v is not a finite number", v)
	}
	return nil
}

func bounded(n int) error {
	if n > MaxValue {
		return fmt.Errorf("%d bytes; at most %d", n, MaxValue)
	}
	return nil
}

// qualities gives each quality its number on the wire, which never changes.
var qualities = map[southbound.Quality]Quality{
	southbound.BadInit:        Quality_BAD_INIT,
	southbound.BadTimeout:     Quality_BAD_TIMEOUT,
	southbound.BadCRC:         Quality_BAD_CRC,
	southbound.BadOffline:     Quality_BAD_OFFLINE,
	southbound.BadAddress:     Quality_BAD_ADDRESS,
	southbound.BadFunction:    Quality_BAD_FUNCTION,
	southbound.BadDevice:      Quality_BAD_DEVICE,
	southbound.BadSensor:      Quality_BAD_SENSOR,
	southbound.BadDisabled:    Quality_BAD_DISABLED,
	southbound.UncertainStale: Quality_UNCERTAIN_STALE,
	southbound.UncertainRange: Quality_UNCERTAIN_RANGE,
	southbound.UncertainClock: Quality_UNCERTAIN_CLOCK,
	southbound.GoodOverride:   Quality_GOOD_OVERRIDE,
	southbound.Good:           Quality_GOOD,
}

var fromWire = func() map[Quality]southbound.Quality {
	m := make(map[Quality]southbound.Quality, len(qualities))
	for q, w := range qualities {
		m[w] = q
	}
	return m
}()

// EncodeQuality translates a quality that southbound defines.
func EncodeQuality(q southbound.Quality) (Quality, error) {
	w, ok := qualities[q]
	if !ok {
		return 0, fmt.Errorf("unknown quality %s", q)
	}
	return w, nil
}

// DecodeQuality is the inverse of EncodeQuality.
func DecodeQuality(w Quality) (southbound.Quality, error) {
	q, ok := fromWire[w]
	if !ok {
		return 0, fmt.Errorf("unknown quality %d", int32(w))
	}
	return q, nil
}
