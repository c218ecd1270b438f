package modbus

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// An Address is where a value begins.
type Address struct {
	Table   Table
	Number  uint16 // as on the wire, from zero
	Bit     int    // of the register, 0 the least; -1 if none was written
	Unit    int    // -1 if none was written
	Order   string // empty if none was written
	FromOne bool   // it was written as manuals count, 40001 for holding register 0
}

var (
	protocolForm = regexp.MustCompile(`^(coil|discrete|holding|input):(0x[0-9A-Fa-f]+|[0-9]+)(?:\.([0-9]+))?$`)
	manualForm   = regexp.MustCompile(`^(?:([0-9]+)!)?([0134])x?([0-9]{4,5})(?:\.([0-9]+))?(#[BL][BL])?$`)
	shortForm    = regexp.MustCompile(`^(C|DI|IR|HR)([0-9]+)(?:\.([0-9]+))?$`)

	manualTables = map[string]Table{"0": Coil, "1": Discrete, "3": Input, "4": Holding, "C": Coil, "DI": Discrete, "IR": Input, "HR": Holding}
)

const knownAddresses = "write holding:10, input:10, coil:10 or discrete:10, counted from 0, or 40011, counted from 1 as in manuals"

// ParseAddress reads the forms that are in use: holding:10 and holding:0x0A
// count from zero, as the protocol does, unless base is 1; 40011, 400011,
// 4x00011 and HR11 count from one. A bit is added as in holding:10.3, and in the
// second form a unit and an order as in 1!400011#BB, whose letters are those of Neuron.
func ParseAddress(text string, base int) (Address, error) {
	a := Address{Bit: -1, Unit: -1}
	var number, bit string
	if m := protocolForm.FindStringSubmatch(text); m != nil {
		a.Table, number, bit = Table(m[1]), m[2], m[3]
	} else if m := manualForm.FindStringSubmatch(text); m != nil {
		a.Table, number, bit, a.Order, a.FromOne = manualTables[m[2]], m[3], m[4], m[5], true
		if m[1] != "" {
			unit, err := strconv.Atoi(m[1])
			if err != nil || unit > 247 {
				return a, wrong("address", "write a unit up to 247, or leave it out", "%q names no unit", text)
			}
			a.Unit = unit
		}
	} else if m := shortForm.FindStringSubmatch(text); m != nil {
		a.Table, number, bit, a.FromOne = manualTables[m[1]], m[2], m[3], true
	} else {
		return a, wrong("address", knownAddresses, "%q is not an address", text)
	}
	digits, radix := strings.TrimPrefix(number, "0x"), 10
	if digits != number {
		radix = 16
	}
	n, err := strconv.ParseInt(digits, radix, 64)
	if a.FromOne {
		base = 1
	}
	if n -= int64(base); err != nil || n < 0 || n > math.MaxUint16 {
		return a, wrong("address", "count from "+strconv.Itoa(base)+"; the last register is 65535 from 0", "%q lies outside the table", text)
	}
	a.Number = uint16(n)
	if bit != "" {
		if a.Bit, err = strconv.Atoi(bit); err != nil || a.Bit > 15 || a.Table == Coil || a.Table == Discrete {
			return a, wrong("address", "write a bit from 0 to 15, of a register", "%q names no bit", text)
		}
	}
	return a, nil
}
