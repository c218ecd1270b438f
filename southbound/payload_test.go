package southbound

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

var noon = time.UnixMilli(1763776800123)

func encodeBatch(seq uint64, readings ...Reading) string {
	settle(readings)
	return string(appendBatch(nil, seq, &Batch{Group: "fast", Time: noon, Readings: readings}))
}

func TestTelemetryPayload(t *testing.T) {
	tests := []struct {
		name     string
		readings []Reading
		want     string
	}{
		{"as documented", []Reading{{Tag: "temp", Value: 71.3, Quality: Good}, {Tag: "flow", Quality: BadTimeout}},
			`{"ts":1763776800123,"seq":1042,"v":{"temp":71.3,"flow":null},"q":{"flow":"bad.timeout"}}`},
		{"all good", []Reading{{Tag: "b", Value: true, Quality: Good}, {Tag: "a", Value: "x", Quality: Good}},
			`{"ts":1763776800123,"seq":1042,"v":{"b":true,"a":"x"}}`},
		{"whole numbers", []Reading{{Tag: "i", Value: int64(math.MinInt64), Quality: Good}, {Tag: "u", Value: uint64(math.MaxUint64), Quality: Good}},
			`{"ts":1763776800123,"seq":1042,"v":{"i":-9223372036854775808,"u":18446744073709551615}}`},
		{"bytes", []Reading{{Tag: "raw", Value: []byte{0xFB, 0xFF}, Quality: Good}},
			`{"ts":1763776800123,"seq":1042,"v":{"raw":"+/8="}}`},
		{"uncertain", []Reading{{Tag: "t", Value: 1e21, Quality: UncertainRange}, {Tag: "o", Value: 0.0, Quality: GoodOverride}},
			`{"ts":1763776800123,"seq":1042,"v":{"t":1e+21,"o":0},"q":{"t":"uncertain.range","o":"good.override"}}`},
		{"no number", []Reading{{Tag: "n", Value: math.NaN(), Quality: Good}, {Tag: "i", Value: math.Inf(-1), Quality: UncertainStale}},
			`{"ts":1763776800123,"seq":1042,"v":{"n":null,"i":null},"q":{"n":"bad.sensor","i":"bad.sensor"}}`},
		{"good without value", []Reading{{Tag: "n", Quality: Good}, {Tag: "i", Value: 42, Quality: Good}},
			`{"ts":1763776800123,"seq":1042,"v":{"n":null,"i":null},"q":{"n":"bad.sensor","i":"bad.sensor"}}`},
		{"bad with value", []Reading{{Tag: "n", Value: 7.0, Quality: BadOffline}, {Tag: "z", Value: 7.0}, {Tag: "u", Value: 7.0, Quality: 200}},
			`{"ts":1763776800123,"seq":1042,"v":{"n":null,"z":null,"u":null},"q":{"n":"bad.offline","z":"bad.init","u":"bad.device"}}`},
		{"escapes", []Reading{{Tag: "a\"\\\n\x00é", Value: "\x1f\xff\xc3\u2028</", Quality: Good}},
			`{"ts":1763776800123,"seq":1042,"v":{"a\"\\\u000a\u0000é":"\u001f` + "\uFFFD\uFFFD\u2028" + `</"}}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := encodeBatch(1042, test.readings...)
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if !json.Valid([]byte(got)) {
				t.Error("not valid JSON")
			}
		})
	}
}

func TestStateAndMetaPayload(t *testing.T) {
	if got, want := string(appendState(nil, Online, noon, "")), `{"state":"online","since":1763776800123}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(appendState(nil, Offline, noon, `read: "EOF"`)), `{"state":"offline","since":1763776800123,"error":"read: \"EOF\""}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	got := string(appendMeta(nil, []Tag{{Name: "temp", Group: "fast", Type: "int16", Unit: "Cel"}, {Name: "on", Group: "slow", Type: "bool"}}))
	want := `{"tags":{"temp":{"type":"int16","unit":"Cel","group":"fast"},"on":{"type":"bool","group":"slow"}}}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTelemetryDoesNotAllocate(t *testing.T) {
	b := &Batch{Group: "fast", Time: noon}
	for _, v := range []any{71.3, int64(-5), uint64(5), "text é", []byte("bytes"), true, nil} {
		b.Readings = append(b.Readings, Reading{Tag: "tag", Value: v, Quality: Good})
	}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		settle(b.Readings)
		buf = appendBatch(buf[:0], 1, b)
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// The standard library is the judge: what we wrote reads back as what went in.
func FuzzTelemetry(f *testing.F) {
	f.Add("temp", "text", []byte{1, 2}, int64(-1), uint64(1)<<63, math.Float64bits(0.1), uint8(Good))
	f.Add("\"\\\x00\x7f\u2028", "\xff\xc3\x28\ud7ff", []byte(nil), int64(math.MinInt64), uint64(math.MaxUint64), math.Float64bits(math.NaN()), uint8(BadInit))
	f.Fuzz(func(t *testing.T, name, text string, raw []byte, i int64, u, bits uint64, q uint8) {
		number := math.Float64frombits(bits)
		payload := encodeBatch(u, Reading{Tag: name + "s", Value: text, Quality: Good}, Reading{Tag: name + "b", Value: raw, Quality: Good},
			Reading{Tag: name + "i", Value: i, Quality: Good}, Reading{Tag: name + "u", Value: u, Quality: Good},
			Reading{Tag: name + "f", Value: number, Quality: Quality(q)})
		var got struct {
			TS  int64
			Seq uint64
			V   map[string]any
			Q   map[string]string
		}
		d := json.NewDecoder(strings.NewReader(payload))
		d.UseNumber()
		if err := d.Decode(&got); err != nil || !json.Valid([]byte(payload)) {
			t.Fatalf("%s: %v", payload, err)
		}
		key := viaJSON(t, name)
		if got.TS != noon.UnixMilli() || got.Seq != u || len(got.V) != 5 {
			t.Errorf("%s", payload)
		}
		if s := got.V[key+"s"]; s != viaJSON(t, text) {
			t.Errorf("text %q is %q", text, s)
		}
		if s, ok := got.V[key+"b"].(string); !ok || s != base64.StdEncoding.EncodeToString(raw) {
			t.Errorf("bytes %x are %q", raw, s)
		}
		if n, err := got.V[key+"i"].(json.Number).Int64(); n != i || err != nil {
			t.Errorf("%d is %d, %v", i, n, err)
		}
		checkFuzzedFloat(t, got.V[key+"f"], got.Q[key+"f"], number, Quality(q))
	})
}

func checkFuzzedFloat(t *testing.T, got any, quality string, want float64, q Quality) {
	t.Helper()
	if !q.HasValue() || math.IsNaN(want) || math.IsInf(want, 0) {
		if got != nil || !strings.HasPrefix(quality, "bad.") {
			t.Errorf("%v, %s is published as %v, %q", want, q, got, quality)
		}
		return
	}
	if n, err := got.(json.Number).Float64(); n != want || err != nil {
		t.Errorf("%v is %v, %v", want, n, err)
	}
}

// viaJSON returns s as the standard library's encoder and decoder leave it.
func viaJSON(t *testing.T, s string) string {
	t.Helper()
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(s); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(buf.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// CBOR says what JSON does, as a decoder sees it that is not ours.
func TestCBORSaysTheSame(t *testing.T) {
	late := noon.Add(-time.Minute)
	readings := []Reading{
		{Tag: "temp", Value: 71.3, Quality: Good}, {Tag: "flow", Quality: BadTimeout}, {Tag: "on", Value: true, Quality: Good},
		{Tag: "least", Value: int64(math.MinInt64), Quality: Good}, {Tag: "most", Value: uint64(math.MaxUint64), Quality: UncertainRange},
		{Tag: "text", Value: "a\xffb", Quality: Good}, {Tag: "old", Value: int64(-200), Quality: UncertainStale, Time: late},
	}
	for n := range uint64(300) {
		readings = append(readings, Reading{Tag: fmt.Sprint("n", n), Value: n << (n % 64), Quality: Good})
	}
	settle(readings)
	b := &Batch{Group: "fast", Time: noon, Missed: 3, Readings: readings}
	sameCBOR(t, appendBatch(nil, 1042, b), appendBatchCBOR(nil, 1042, b))
	for i := range readings {
		sameCBOR(t, appendTag(nil, 7, b, i, "Cel"), appendTagCBOR(nil, 7, b, i, "Cel"))
		sameCBOR(t, appendTag(nil, 7, b, i, ""), appendTagCBOR(nil, 7, b, i, ""))
	}
	var raw struct{ V map[string]any }
	err := cbor.Unmarshal(appendBatchCBOR(nil, 1, &Batch{Readings: []Reading{{Tag: "raw", Value: []byte{1, 2}, Quality: Good}}}), &raw)
	if got, ok := raw.V["raw"].([]byte); err != nil || !ok || !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("bytes are %v, %v", raw, err)
	}
}

func sameCBOR(t *testing.T, text, binary []byte) {
	t.Helper()
	var fromText, fromBinary any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&fromText); err != nil {
		t.Fatal(err)
	}
	mode, err := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	if err := mode.Unmarshal(binary, &fromBinary); err != nil {
		t.Fatalf("%v: %x", err, binary)
	}
	if got, want := fmt.Sprint(fromBinary), fmt.Sprint(fromText); got != want {
		t.Errorf("CBOR has\n%s\nJSON has\n%s", got, want)
	}
}

func TestTagPayload(t *testing.T) {
	b := &Batch{Group: "fast", Time: noon, Readings: []Reading{
		{Tag: "u_l1", Value: 230.1, Quality: Good, Time: noon.Add(time.Millisecond)}, {Tag: "i", Quality: BadSensor, Time: noon.Add(-time.Hour)},
		{Tag: "s", Value: 1.0, Quality: Good, Time: noon.Add(-time.Second)}}}
	for i, want := range []string{
		`{"tag":"u_l1","value":230.1,"quality":"good","ts":1763776800123,"unit":"V","seq":9}`,
		`{"tag":"i","value":null,"quality":"bad.sensor","ts":1763776800123,"unit":"V","seq":9}`,
		`{"tag":"s","value":1,"quality":"good","ts":1763776799123,"unit":"V","seq":9}`,
	} {
		if got := string(appendTag(nil, 9, b, i, "V")); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	want := `{"ts":1763776800123,"seq":9,"v":{"u_l1":230.1,"i":null,"s":1},"q":{"i":"bad.sensor"},"t":{"s":1763776799123}}`
	if got := string(appendBatch(nil, 9, b)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQualityCodes(t *testing.T) {
	for q := BadInit; q <= Good; q++ {
		severity := map[string]uint32{"bad": 2, "uncertain": 1, "good": 0}[strings.Split(q.String(), ".")[0]]
		if q.Code()>>30 != severity {
			t.Errorf("%s is %#x in OPC UA", q, q.Code())
		}
	}
}
