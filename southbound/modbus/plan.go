package modbus

import (
	"cmp"
	"slices"
	"time"
)

// The limits of one read (Modbus Application Protocol 6.3 and 6.4), and how
// many unneeded registers are cheaper than another request.
const (
	maxRegisters  = 125
	defaultMaxGap = 16
	networkMaxGap = 50 // where bytes cost next to nothing
)

// An item is what is read in one request or not at all: a field, or those of an
// atomic set.
type item struct {
	table   Table
	address int
	size    int
	fields  []int // indices into the fields of the group
}

func (i *item) end() int { return i.address + i.size }

// items returns those of fields, in the order in which each begins in them.
func items(fields []field) []item {
	var all []item
	sets := make(map[string]int)
	for i := range fields {
		f := &fields[i]
		at, known := sets[f.Atomic]
		if f.Atomic == "" || !known {
			sets[f.Atomic] = len(all)
			all = append(all, item{f.Table, int(f.Address), f.size, []int{i}})
			continue
		}
		set := &all[at]
		end := max(set.end(), int(f.Address)+f.size)
		set.address = min(set.address, int(f.Address))
		set.size = end - set.address
		set.fields = append(set.fields, i)
	}
	return all
}

// A Hole is registers, or bits, that no request may cover only to join others.
// To below From is a seam: two that lie side by side and do not go together.
type Hole struct {
	Table    Table
	From, To int
}

// parts says whether the hole lies between two that end and begin there.
func (h *Hole) parts(table Table, end, begin int) bool {
	if h.Table != table || end > begin {
		return false
	}
	if h.To < h.From {
		return end <= h.From && h.From <= begin
	}
	return h.From < begin && h.To >= end
}

// A reach is how far requests may go.
type reach struct {
	gap   int // registers that nobody wants, between two that somebody does
	limit int // registers of a request
	holes []Hole
}

// A block is one request and the items that its answer holds.
type block struct {
	table    Table
	address  uint16
	quantity uint16
	items    []int // indices into the items of the group, by address
}

// plan joins items of one group into requests, and leaves those alone that are
// to be kept apart. It depends on nothing but its arguments, and of all plans
// that keep to them it has the fewest requests.
func plan(all []item, apart map[int]time.Time, r reach) []block {
	byAddress := make([]int, len(all))
	for i := range byAddress {
		byAddress[i] = i
	}
	slices.SortFunc(byAddress, func(a, b int) int {
		return cmp.Or(
			cmp.Compare(all[a].table, all[b].table),
			cmp.Compare(all[a].address, all[b].address),
			cmp.Compare(a, b),
		)
	})
	var blocks, alone []block
	for _, i := range byAddress {
		if _, ok := apart[i]; ok {
			alone = append(alone, span(all, []int{i}))
		} else if n := len(blocks); n == 0 || !blocks[n-1].take(&all[i], i, r) {
			blocks = append(blocks, span(all, []int{i}))
		}
	}
	return append(blocks, alone...)
}

// take adds an item to the block if it fits. Items come in ascending order.
func (b *block) take(it *item, i int, r reach) bool {
	gap, limit := r.gap, r.limit
	if b.table.bits() {
		gap, limit = 16*gap, 16*limit
	}
	end := int(b.address) + int(b.quantity)
	newEnd := max(end, it.end())
	if it.table != b.table || it.address-end > gap || newEnd-int(b.address) > limit {
		return false
	}
	for h := range r.holes {
		if r.holes[h].parts(b.table, end, it.address) {
			return false
		}
	}
	b.quantity = uint16(newEnd - int(b.address))
	b.items = append(b.items, i)
	return true
}

// split returns the two halves of a block with more than one item, each no
// longer than its items need, and what lies between them.
func (b *block) split(all []item) (left, right block, between Hole) {
	half := len(b.items) / 2
	left, right = span(all, b.items[:half]), span(all, b.items[half:])
	between = Hole{b.table, int(left.address) + int(left.quantity), int(right.address) - 1}
	return left, right, between
}

// span returns the one block that holds the given items, in ascending order.
func span(all []item, of []int) block {
	first := &all[of[0]]
	end := first.end()
	for _, i := range of[1:] {
		end = max(end, all[i].end())
	}
	return block{first.table, uint16(first.address), uint16(end - first.address), of}
}

// truths are the two values of a bit.
var truths = [2]byte{0, 1}

// wire returns the bytes of one field in the block's answer; of a bit, one byte
// of 0 or 1.
func (b *block) wire(f *field, data []byte) []byte {
	at := int(f.Address) - int(b.address)
	if b.table.bits() {
		bit := data[at/8] >> (at % 8) & 1
		return truths[bit : bit+1]
	}
	return data[2*at : 2*at+2*f.size]
}
