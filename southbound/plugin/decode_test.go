package plugin

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

var someTags = []southbound.Tag{
	{Name: "a", Group: "g", Type: "float64"}, {Name: "x", Group: "h", Type: "bool"}, {Name: "b", Group: "g", Type: "int16"},
}

func good(tag string) *wire.Reading {
	return &wire.Reading{Tag: tag, Quality: wire.Quality_GOOD, Value: &wire.Value{Kind: &wire.Value_Int{Int: -7}}}
}

func TestDecodeBatch(t *testing.T) {
	now := time.Unix(1000, 0)
	b := good("b")
	b.UnixNanoseconds = 5
	batch, err := decodeBatch(someTags, &wire.ReadResponse{Group: "g", Readings: []*wire.Reading{{Tag: "a"}, b}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if batch.Group != "g" || !batch.Time.Equal(now) || len(batch.Readings) != 2 {
		t.Fatalf("got %+v", batch)
	}
	if r := batch.Readings[0]; r.Value != nil || r.Quality != southbound.BadInit || !r.Time.Equal(now) {
		t.Errorf("reading of a is %+v", r)
	}
	if r := batch.Readings[1]; r.Value != int64(-7) || r.Quality != southbound.Good || r.Time.UnixNano() != 5 {
		t.Errorf("reading of b is %+v", r)
	}
}

func TestDecodeBatchRefuses(t *testing.T) {
	with := func(change func(*wire.Reading)) []*wire.Reading {
		r := good("a")
		change(r)
		return []*wire.Reading{r}
	}
	tests := map[string][]*wire.Reading{
		"0 readings":      {},
		"10001 readings":  make([]*wire.Reading, wire.MaxReadings+1),
		"out of order":    {good("b"), good("a")},
		"repeated":        {good("a"), good("a")},
		"belongs to":      {good("x")},
		"not a tag":       {nil},
		"with a value":    with(func(r *wire.Reading) { r.Quality = wire.Quality_BAD_TIMEOUT }),
		"unknown quality": with(func(r *wire.Reading) { r.Quality = 99 }),
		"no value":        with(func(r *wire.Reading) { r.Value = nil }),
		"no value of":     with(func(r *wire.Reading) { r.Value.Kind = nil }),
		"finite":          with(func(r *wire.Reading) { r.Value.Kind = &wire.Value_Double{Double: math.Inf(1)} }),
		"at most 65536":   with(func(r *wire.Reading) { r.Value.Kind = &wire.Value_Bytes{Bytes: make([]byte, 1<<17)} }),
	}
	for want, readings := range tests {
		_, err := decodeBatch(someTags, &wire.ReadResponse{Group: "g", Readings: readings}, time.Now())
		wantError(t, err, want)
	}
	_, err := decodeBatch(someTags, &wire.ReadResponse{Group: "../g", Readings: []*wire.Reading{good("a")}}, time.Now())
	wantError(t, err, "belongs to")
}

func TestDecodeTagsRefuses(t *testing.T) {
	tag := func(name, group, kind, unit string) []*wire.Tag {
		return []*wire.Tag{{Name: name, Group: group, Type: kind, Unit: unit}}
	}
	tests := []struct {
		tags []*wire.Tag
		want string
	}{
		{nil, "0 tags"},
		{make([]*wire.Tag, wire.MaxTags+1), "10001 tags"},
		{[]*wire.Tag{nil}, "no name"},
		{tag("", "g", "bool", ""), "no name"},
		{tag("a", "", "bool", ""), "cannot name a group"},
		{tag("a", "g/h", "bool", ""), "cannot name a group"},
		{tag("a", "#", "bool", ""), "cannot name a group"},
		{tag("a", "+", "bool", ""), "cannot name a group"},
		{tag("a", "g\x00", "bool", ""), "printable"},
		{tag("a\n", "g", "bool", ""), "printable"},
		{tag("a", "g", "", ""), "no type"},
		{tag("a", "g", "bool", "\xff"), "printable"},
		{tag(strings.Repeat("a", 257), "g", "bool", ""), "at most 256"},
		{append(tag("a", "g", "bool", ""), tag("a", "h", "bool", "")...), "twice"},
	}
	for _, test := range tests {
		_, err := decodeTags(test.tags)
		wantError(t, err, test.want)
	}
}

// Whatever bytes a plugin answers with, what is passed on keeps the contract.
func FuzzDecodeBatch(f *testing.F) {
	seed, err := proto.Marshal(&wire.ReadResponse{Group: "g", Readings: []*wire.Reading{good("a"), good("b")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var resp wire.ReadResponse
		if proto.Unmarshal(raw, &resp) != nil {
			return
		}
		batch, err := decodeBatch(someTags, &resp, time.Now())
		if err != nil {
			return
		}
		if batch.Group != "g" && batch.Group != "h" || len(batch.Readings) == 0 {
			t.Errorf("passed %+v", batch)
		}
		for _, r := range batch.Readings {
			if r.Quality.HasValue() != (r.Value != nil) {
				t.Errorf("passed %+v", r)
			}
			if v, ok := r.Value.(float64); ok && (math.IsNaN(v) || math.IsInf(v, 0)) {
				t.Errorf("passed %v", v)
			}
		}
	})
}
