package modbus

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// maxInsert is how many requests telegraf's optimisation max_insert makes, as its
// documentation has it: fields in the order of their addresses are read together
// while at most fill registers lie between two of them, and 125 in all.
func maxInsert(fields []field, fill int) int {
	fields = slices.Clone(fields)
	slices.SortFunc(fields, func(a, b field) int {
		if a.Address != b.Address {
			return int(a.Address) - int(b.Address)
		}
		return b.size - a.size
	})
	requests, begin, end := 0, 0, -1
	for i := range fields {
		first, next := int(fields[i].Address), int(fields[i].Address)+fields[i].size
		if end < 0 || first-end > fill || max(end, next)-begin > maxRegisters {
			requests, begin, end = requests+1, first, next
		}
		end = max(end, next)
	}
	return requests
}

// layouts are ten ways in which values lie in a device.
func layouts() map[string][]Tag {
	every := func(step, n int, typ string) (all []Tag) {
		for i := range n {
			all = append(all, at(Holding, uint16(i*step), typ))
		}
		return all
	}
	blocks := func(parts ...[]Tag) (all []Tag) { // each begins at a page of its own
		for i, part := range parts {
			for _, tag := range part {
				tag.Address += uint16(1000 * i)
				all = append(all, tag)
			}
		}
		return all
	}
	random := rand.New(rand.NewPCG(1, 2))
	var scattered, mixed []Tag
	for range 200 {
		scattered = append(scattered, at(Holding, uint16(random.IntN(5000)), "float32"))
		mixed = append(mixed, at(Holding, uint16(random.IntN(1500)), kinds[random.IntN(24)].name))
	}
	return map[string][]Tag{
		"50 in a row":            every(1, 50, "uint16"),
		"floats in a row":        every(2, 200, "float32"),
		"every tenth":            every(10, 100, "int16"),
		"far apart":              every(60, 30, "int16"),
		"at the edge of the gap": every(51, 30, "int16"),
		"meter":                  blocks(every(2, 30, "float32"), every(4, 12, "uint64"), every(20, 10, "int16")),
		"inverter":               blocks(every(1, 52, "int16"), every(1, 28, "uint16"), every(2, 20, "uint32")),
		"one word of each page":  every(125, 40, "uint16"),
		"scattered":              scattered,
		"all sizes, overlapping": mixed,
	}
}

// With as many registers read along, never more requests than telegraf makes.
func TestRequestsBesideTelegraf(t *testing.T) {
	const fill = 50 // telegraf's own default
	all := layouts()
	if len(all) != 10 {
		t.Fatalf("%d layouts", len(all))
	}
	for name, tags := range all {
		fields := fieldsAt(t, tags...)
		theirs := maxInsert(fields, fill)
		ours := len(plan(items(fields), nil, reach{gap: fill, limit: maxRegisters}))
		usual := len(plan(items(fields), nil, reach{gap: defaultMaxGap, limit: maxRegisters}))
		t.Logf("%-24s %3d tags: telegraf %3d, max_gap 50 %3d, max_gap %d %3d", name, len(tags), theirs, ours, defaultMaxGap, usual)
		if ours > theirs {
			t.Errorf("%s: %d requests, telegraf %d", name, ours, theirs)
		}
	}
}
