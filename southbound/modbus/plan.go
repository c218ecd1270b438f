package modbus

import (
	"cmp"
	"slices"
)

// The limits of one read (Modbus Application Protocol 6.3 and 6.4), and how
// many unneeded registers are cheaper than another request.
const (
	maxRegisters  = 125
	defaultMaxGap = 16
)

// A block is one request and the fields that its answer holds.
type block struct {
	table    Table
	address  uint16
	quantity uint16
	fields   []int // indices into the fields of the plan, by address
}

// plan joins fields of one group into requests: neighbours that are at most
// maxGap registers apart, as long as a request stays within limit registers,
// which no single field exceeds. A value is never split. The plan depends on
// nothing but its arguments.
func plan(fields []field, maxGap, limit int) []block {
	byAddress := make([]int, len(fields))
	for i := range byAddress {
		byAddress[i] = i
	}
	slices.SortFunc(byAddress, func(a, b int) int {
		return cmp.Or(
			cmp.Compare(fields[a].Table, fields[b].Table),
			cmp.Compare(fields[a].Address, fields[b].Address),
			cmp.Compare(a, b),
		)
	})
	var blocks []block
	for _, i := range byAddress {
		f := &fields[i]
		if n := len(blocks); n > 0 && blocks[n-1].take(f, i, maxGap, limit) {
			continue
		}
		blocks = append(blocks, block{f.Table, f.Address, uint16(f.size), []int{i}})
	}
	return blocks
}

// take adds field i to the block if it fits. Fields come in ascending order.
func (b *block) take(f *field, i, maxGap, limit int) bool {
	if b.table.bits() {
		maxGap, limit = 16*maxGap, 16*limit
	}
	end := int(b.address) + int(b.quantity)
	newEnd := max(end, int(f.Address)+f.size)
	if f.Table != b.table || int(f.Address)-end > maxGap || newEnd-int(b.address) > limit {
		return false
	}
	b.quantity = uint16(newEnd - int(b.address))
	b.fields = append(b.fields, i)
	return true
}

// split returns the two halves of a block with more than one field, each no
// longer than its fields need.
func (b *block) split(fields []field) [2]block {
	half := len(b.fields) / 2
	return [2]block{span(fields, b.fields[:half]), span(fields, b.fields[half:])}
}

// span returns the one block that holds the given fields, in ascending order.
func span(fields []field, of []int) block {
	first := &fields[of[0]]
	b := block{first.Table, first.Address, uint16(first.size), []int{of[0]}}
	for _, i := range of[1:] {
		b.take(&fields[i], i, maxRegisters, maxRegisters)
	}
	return b
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
