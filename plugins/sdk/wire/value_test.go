package wire

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/headgate-io/headgate/southbound"
)

func TestValueRoundTrip(t *testing.T) {
	for _, value := range []any{
		true, false, int64(math.MinInt64), int64(-1), uint64(math.MaxUint64), 0.0, -1.5, math.MaxFloat64,
		"", "läuft", []byte{}, []byte{0xff, 0}, strings.Repeat("x", MaxValue),
	} {
		v, err := EncodeValue(value)
		if err != nil {
			t.Errorf("encode %v: %v", value, err)
			continue
		}
		raw, err := proto.Marshal(v)
		if err != nil {
			t.Errorf("marshal %v: %v", value, err)
			continue
		}
		var back Value
		if err := proto.Unmarshal(raw, &back); err != nil {
			t.Errorf("unmarshal %v: %v", value, err)
			continue
		}
		got, err := DecodeValue(&back)
		if err != nil || !reflect.DeepEqual(got, value) {
			t.Errorf("%T %v came back as %T %v, %v", value, value, got, got, err)
		}
	}
}

func TestValueRefused(t *testing.T) {
	for _, value := range []any{
		nil, 1, float32(1), math.NaN(), math.Inf(-1), "\xff", strings.Repeat("x", MaxValue+1), make([]byte, MaxValue+1),
	} {
		if _, err := EncodeValue(value); err == nil {
			t.Errorf("encoded %T %.20v", value, value)
		}
	}
	for _, v := range []*Value{
		nil, {}, {Kind: &Value_Double{math.NaN()}}, {Kind: &Value_Double{math.Inf(1)}},
		{Kind: &Value_Bytes{make([]byte, MaxValue+1)}},
	} {
		if _, err := DecodeValue(v); err == nil {
			t.Errorf("decoded %.40v", v)
		}
	}
}

// The names prove the mapping: BAD_TIMEOUT is bad.timeout and nothing else.
func TestQualityMapping(t *testing.T) {
	for number, name := range Quality_name {
		q, err := DecodeQuality(Quality(number))
		if err != nil {
			t.Errorf("decode %s: %v", name, err)
			continue
		}
		if want := strings.ToLower(strings.Replace(name, "_", ".", 1)); q.String() != want {
			t.Errorf("%s decodes to %s", name, q)
		}
		if w, err := EncodeQuality(q); err != nil || w != Quality(number) {
			t.Errorf("%s encodes to %v, %v", q, w, err)
		}
	}
	for q := range southbound.Quality(255) {
		_, parse := southbound.ParseQuality(q.String())
		if _, err := EncodeQuality(q); (err == nil) != (parse == nil) {
			t.Errorf("encode %s: %v", q, err)
		}
	}
	for _, w := range []Quality{-1, 14, 1 << 20} {
		if q, err := DecodeQuality(w); err == nil {
			t.Errorf("quality %d decodes to %s", w, q)
		}
	}
}
