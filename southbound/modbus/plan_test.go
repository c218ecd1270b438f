package modbus

import (
	"math"
	"reflect"
	"testing"
	"time"
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
			got := plan(items(fieldsAt(t, test.tags...)), nil, reach{gap: test.maxGap, limit: test.limit})
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// What a device does not give, or gives only together, is respected.
func TestPlanKeepsToHolesAndSets(t *testing.T) {
	in := func(set string, address uint16, typ string) Tag {
		tag := at(Holding, address, typ)
		tag.Atomic = set
		return tag
	}
	row := []Tag{at(Holding, 0, "int16"), at(Holding, 2, "int16"), at(Holding, 3, "int16"), at(Holding, 9, "int16")}
	tests := []struct {
		name  string
		tags  []Tag
		apart map[int]time.Time
		holes []Hole
		want  []block
	}{
		{"no hole", row, nil, nil, []block{{Holding, 0, 10, []int{0, 1, 2, 3}}}},
		{"a hole", row, nil, []Hole{{Holding, 1, 1}}, []block{{Holding, 0, 1, []int{0}}, {Holding, 2, 8, []int{1, 2, 3}}}},
		{"part of a gap", row, nil, []Hole{{Holding, 6, 6}}, []block{{Holding, 0, 4, []int{0, 1, 2}}, {Holding, 9, 1, []int{3}}}},
		{"another table", row, nil, []Hole{{Input, 1, 1}}, []block{{Holding, 0, 10, []int{0, 1, 2, 3}}}},
		{"outside", row, nil, []Hole{{Holding, 10, 20}, {Holding, 3, 3}}, []block{{Holding, 0, 10, []int{0, 1, 2, 3}}}},
		{"a seam", row, nil, []Hole{{Holding, 3, 2}}, []block{{Holding, 0, 3, []int{0, 1}}, {Holding, 3, 7, []int{2, 3}}}},
		{"one apart", row, map[int]time.Time{1: {}}, nil, []block{{Holding, 0, 10, []int{0, 2, 3}}, {Holding, 2, 1, []int{1}}}},
		{"a set over a hole", []Tag{in("a", 0, "int16"), in("a", 40, "int16"), at(Holding, 20, "int16")}, nil, []Hole{{Holding, 5, 5}},
			[]block{{Holding, 0, 41, []int{0, 1}}}},
		{"sets that do not fit together", []Tag{in("b", 100, "int16"), in("a", 0, "int16"), in("b", 180, "int16"), in("a", 90, "int16")}, nil, nil,
			[]block{{Holding, 0, 91, []int{1}}, {Holding, 100, 81, []int{0}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plan(items(fieldsAt(t, test.tags...)), test.apart, reach{16, 125, test.holes})
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
		tag := at(table, uint16(address), k.name)
		if data[3]&0xC == 0xC { // few, and near each other
			tag.Address, tag.Atomic = tag.Address&0x1F, "set"+string(table)
		}
		tags = append(tags, tag)
	}
	return tags
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 6, 0, 1, 2, 5, 255, 255, 1}, uint8(16), uint8(125), uint16(0), uint8(1))
	f.Add([]byte{5, 0, 0, 2, 5, 0, 2, 2, 5, 0, 1, 2}, uint8(0), uint8(4), uint16(3), uint8(0))
	f.Add([]byte{5, 0, 0, 12, 5, 0, 9, 12, 5, 0, 4, 2}, uint8(0), uint8(40), uint16(3), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, gap, limit uint8, from uint16, size uint8) {
		all := items(fieldsAt(t, tagsFrom(data)...))
		r := reach{int(gap), min(max(int(limit), 40), maxRegisters), []Hole{{Holding, int(from), int(from) + int(size) - 1}}}
		blocks := plan(all, nil, r)
		if again := plan(all, nil, r); !reflect.DeepEqual(blocks, again) {
			t.Fatalf("two plans differ: %v and %v", blocks, again)
		}
		covered := make([]int, len(all))
		for _, b := range blocks {
			if b.quantity == 0 || int(b.quantity) > r.limit || int(b.address)+int(b.quantity) > math.MaxUint16+1 {
				t.Fatalf("impossible request %+v", b)
			}
			for _, i := range b.items {
				covered[i]++
				if !holds(b, &all[i]) {
					t.Fatalf("%+v does not hold %+v", b, all[i])
				}
			}
			checkGaps(t, b, all, r.holes[0])
			if len(b.items) > 1 {
				checkHalves(t, b, all)
			}
		}
		for i, n := range covered {
			if n != 1 {
				t.Fatalf("item %d is in %d requests", i, n)
			}
		}
	})
}

func holds(b block, it *item) bool {
	return it.table == b.table && it.address >= int(b.address) && it.end() <= int(b.address)+int(b.quantity)
}

// checkGaps looks for registers of the hole that the block covers for nobody.
func checkGaps(t *testing.T, b block, all []item, hole Hole) {
	t.Helper()
	for at := max(hole.From, int(b.address)); at <= hole.To && at < int(b.address)+int(b.quantity) && b.table == hole.Table; at++ {
		wanted := false
		for _, i := range b.items {
			wanted = wanted || all[i].address <= at && at < all[i].end()
		}
		if !wanted {
			t.Fatalf("%+v covers %d of the hole %+v", b, at, hole)
		}
	}
}

func checkHalves(t *testing.T, b block, all []item) {
	t.Helper()
	n := 0
	left, right, _ := b.split(all)
	for _, half := range []block{left, right} {
		n += len(half.items)
		for _, i := range half.items {
			if !holds(half, &all[i]) || half.quantity > b.quantity {
				t.Fatalf("half %+v of %+v does not hold %+v", half, b, all[i])
			}
		}
	}
	if n != len(b.items) {
		t.Fatalf("halves of %+v hold %d items", b, n)
	}
}
