package modbus

import (
	"math"
	"reflect"
	"testing"
)

func fieldsAt(t *testing.T, tags ...Tag) []field {
	t.Helper()
	fields := make([]field, len(tags))
	for i, tag := range tags {
		f, err := compile(tag)
		if err != nil {
			t.Fatal(err)
		}
		fields[i] = f[0]
	}
	return fields
}

func at(table Table, address uint16, typ string) Tag {
	return Tag{Table: table, Address: address, Type: typ}
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name   string
		tags   []Tag
		maxGap int
		limit  int
		want   []block
	}{
		{"nothing", nil, 16, 125, nil},
		{"one", []Tag{at(Holding, 10, "int16")}, 16, 125, []block{{Holding, 10, 1, []int{0}}}},
		{"neighbours in any order", []Tag{at(Holding, 12, "float32"), at(Holding, 10, "int32")}, 0, 125,
			[]block{{Holding, 10, 4, []int{1, 0}}}},
		{"gap at the limit", []Tag{at(Holding, 0, "int16"), at(Holding, 17, "int16")}, 16, 125,
			[]block{{Holding, 0, 18, []int{0, 1}}}},
		{"gap over the limit", []Tag{at(Holding, 0, "int16"), at(Holding, 18, "int16")}, 16, 125,
			[]block{{Holding, 0, 1, []int{0}}, {Holding, 18, 1, []int{1}}}},
		{"tables apart", []Tag{at(Input, 0, "int16"), at(Holding, 0, "int16")}, 16, 125,
			[]block{{Holding, 0, 1, []int{1}}, {Input, 0, 1, []int{0}}}},
		{"full request", []Tag{at(Holding, 0, "int16"), at(Holding, 121, "uint64")}, 125, 125,
			[]block{{Holding, 0, 125, []int{0, 1}}}},
		{"value not split", []Tag{at(Holding, 0, "int16"), at(Holding, 122, "uint64")}, 125, 125,
			[]block{{Holding, 0, 1, []int{0}}, {Holding, 122, 4, []int{1}}}},
		{"overlap", []Tag{at(Holding, 0, "uint64"), at(Holding, 1, "int16"), at(Holding, 3, "int32")}, 0, 125,
			[]block{{Holding, 0, 5, []int{0, 1, 2}}}},
		{"smaller requests", []Tag{at(Holding, 0, "int32"), at(Holding, 2, "int32"), at(Holding, 4, "int16")}, 16, 4,
			[]block{{Holding, 0, 4, []int{0, 1}}, {Holding, 4, 1, []int{2}}}},
		{"end of the table", []Tag{at(Holding, 65535, "int16"), at(Holding, 65533, "int32")}, 16, 125,
			[]block{{Holding, 65533, 3, []int{1, 0}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plan(fieldsAt(t, test.tags...), test.maxGap, test.limit)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// tagsFrom makes tags out of arbitrary bytes, four each.
func tagsFrom(data []byte) []Tag {
	var tags []Tag
	for ; len(data) >= 4; data = data[4:] {
		k := kinds[int(data[0])%len(kinds)]
		address := min(int(data[1])<<8|int(data[2]), math.MaxUint16+1-k.words)
		table := Holding
		if data[3]&1 == 1 {
			table = Input
		}
		if data[3]&2 == 2 { // crowd some of them
			address &= 0xFF
		}
		tags = append(tags, at(table, uint16(address), k.name))
	}
	return tags
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 6, 0, 1, 2, 5, 255, 255, 1}, uint8(16), uint8(125))
	f.Add([]byte{5, 0, 0, 2, 5, 0, 2, 2, 5, 0, 1, 2}, uint8(0), uint8(4))
	f.Fuzz(func(t *testing.T, data []byte, gap, limit uint8) {
		fields := fieldsAt(t, tagsFrom(data)...)
		most := min(max(int(limit), 4), maxRegisters)
		blocks := plan(fields, int(gap), most)
		if again := plan(fields, int(gap), most); !reflect.DeepEqual(blocks, again) {
			t.Fatalf("two plans differ: %v and %v", blocks, again)
		}
		covered := make([]int, len(fields))
		for _, b := range blocks {
			if b.quantity == 0 || int(b.quantity) > most || int(b.address)+int(b.quantity) > math.MaxUint16+1 {
				t.Fatalf("impossible request %+v", b)
			}
			for _, i := range b.fields {
				covered[i]++
				if !holds(b, &fields[i]) {
					t.Fatalf("%+v does not hold %+v", b, fields[i].Tag)
				}
			}
			if len(b.fields) > 1 {
				checkHalves(t, b, fields)
			}
		}
		for i, n := range covered {
			if n != 1 {
				t.Fatalf("field %d is in %d requests", i, n)
			}
		}
	})
}

func holds(b block, f *field) bool {
	return f.Table == b.table && f.Address >= b.address &&
		int(f.Address)+f.kind.words <= int(b.address)+int(b.quantity)
}

func checkHalves(t *testing.T, b block, fields []field) {
	t.Helper()
	n := 0
	for _, half := range b.split(fields) {
		n += len(half.fields)
		for _, i := range half.fields {
			if !holds(half, &fields[i]) || half.quantity > b.quantity {
				t.Fatalf("half %+v of %+v does not hold %+v", half, b, fields[i].Tag)
			}
		}
	}
	if n != len(b.fields) {
		t.Fatalf("halves of %+v hold %d fields", b, n)
	}
}
