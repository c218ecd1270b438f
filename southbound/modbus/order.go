package modbus

import "strings"

// A permutation is how the registers of a value lie.
type permutation byte

const (
	straight permutation = iota // the most significant first
	reversed
	pairs  // the two of each half swapped
	halves // the halves swapped
)

// An order is what leads from the wire to the value.
type order struct {
	words     int // registers it is for; zero: any
	registers permutation
	swapBytes bool
}

var orders = map[string]order{
	"":         {},
	"AB":       {words: 1},
	"BA":       {words: 1, swapBytes: true},
	"ABCD":     {},
	"CDAB":     {registers: reversed},
	"BADC":     {swapBytes: true},
	"DCBA":     {registers: reversed, swapBytes: true},
	"ABCDEFGH": {words: 4},
	"GHEFCDAB": {words: 4, registers: reversed},
	"BADCFEHG": {words: 4, swapBytes: true},
	"HGFEDCBA": {words: 4, registers: reversed, swapBytes: true},
	"CDABGHEF": {words: 4, registers: pairs},
	"EFGHABCD": {words: 4, registers: halves},
}

// orderNames are what other programs and manuals call the four.
var orderNames = map[string]string{
	"big": "ABCD", "be": "ABCD", "big_endian": "ABCD", "motorola": "ABCD", "none": "ABCD", "#ll": "ABCD",
	"word_swap": "CDAB", "little_word": "CDAB", "mid_little": "CDAB", "word": "CDAB", "#bl": "CDAB",
	"byte_swap": "BADC", "mid_big": "BADC", "byte": "BADC", "#lb": "BADC",
	"little": "DCBA", "le": "DCBA", "intel": "DCBA", "word_byte": "DCBA", "#bb": "DCBA",
}

// parseOrder reads an order by its letters or one of its other names.
func parseOrder(text string) (order, bool) {
	if letters, ok := orderNames[strings.ToLower(text)]; ok {
		text = letters
	}
	o, ok := orders[strings.ToUpper(text)]
	return o, ok
}

// CheckOrder says what is wrong with an order that a device gives to its tags.
func CheckOrder(text string) error {
	if o, ok := parseOrder(text); !ok || o.words != 0 {
		return wrong("order", "write ABCD, CDAB, BADC or DCBA", "order %q is none for all types", text)
	}
	return nil
}

// register is where the i-th most significant of n registers lies.
func (o order) register(i, n int) int {
	switch o.registers {
	case reversed:
		return n - 1 - i
	case pairs:
		return i ^ 1
	case halves:
		return (i + 2) % 4
	}
	return i
}
