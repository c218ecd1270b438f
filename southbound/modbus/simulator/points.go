package simulator

import (
	"math"
	"math/bits"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// epoch is when the counters stood at zero.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// A Device describes one simulated unit, ready to be configured.
type Device struct {
	ID string
	modbus.DeviceConfig
}

// Devices describes what the simulator offers, in the order of the units.
func Devices() []Device {
	ids := []string{"boiler", "pump", "meter"}
	devices := make([]Device, len(ids))
	for i, id := range ids {
		devices[i] = Device{ID: id, DeviceConfig: modbus.DeviceConfig{
			Unit:   byte(i + 1),
			Groups: []modbus.Group{{Name: "fast", Interval: time.Second}, {Name: "slow", Interval: 10 * time.Second}},
		}}
	}
	for _, p := range points(0) {
		if p.tag.Name != "" {
			d := &devices[p.unit-1]
			d.Tags = append(d.Tags, p.tag)
		}
	}
	return devices
}

// A point is a value in the registers of a unit. Its tag has no name if it is
// text, which is no type of the adapter.
type point struct {
	unit  byte
	tag   modbus.Tag
	value func(seconds float64) uint64 // raw bits
	text  string
}

func points(seed uint64) []point {
	scale := func(v float64) *float64 { return &v }
	fast, slow := "fast", "slow"
	in, hold := modbus.Input, modbus.Holding
	wave := func(n uint64, middle, swing, period float64) curve {
		return curve{middle, swing, period, float64((seed+n)%97) / 97 * 2 * math.Pi}
	}
	return []point{
		{1, modbus.Tag{Name: "temp", Group: fast, Table: hold, Address: 10, Type: "int16", Scale: scale(0.1), Unit: "Cel", Invalid: []uint64{0x8000}},
			wave(1, 71, 6, 180).integer(10), ""},
		{1, modbus.Tag{Name: "pressure", Group: fast, Table: in, Address: 0, Type: "uint16", Scale: scale(0.01), Unit: "bar"},
			wave(2, 4.2, 0.3, 240).integer(100), ""},
		{1, modbus.Tag{Name: "flow", Group: fast, Table: in, Address: 2, Type: "float32", Unit: "m3/h"},
			wave(3, 12.5, 2.5, 120).float32(), ""},
		{1, modbus.Tag{Name: "setpoint", Group: slow, Table: hold, Address: 20, Type: "int16", Scale: scale(0.1), Unit: "Cel"},
			constant(720), ""},
		{1, modbus.Tag{Table: hold, Address: 32}, nil, "Headgate boiler 1000"},
		{2, modbus.Tag{Name: "speed", Group: fast, Table: hold, Address: 0, Type: "uint16", Unit: "/min"},
			wave(4, 1450, 35, 60).integer(1), ""},
		{2, modbus.Tag{Name: "current", Group: fast, Table: hold, Address: 1, Type: "float32", Order: "CDAB", Unit: "A"},
			wave(5, 8.1, 0.6, 60).float32(), ""},
		{2, modbus.Tag{Name: "vibration", Group: fast, Table: hold, Address: 4, Type: "int32", Order: "CDAB", Scale: scale(0.001), Unit: "mm/s"},
			wave(6, 0, 2.8, 45).integer(1000), ""},
		{2, modbus.Tag{Name: "starts", Group: slow, Table: hold, Address: 8, Type: "uint32", Unit: "1"},
			counter(1.0 / 3600), ""},
		{3, modbus.Tag{Name: "power", Group: fast, Table: in, Address: 0, Type: "float32", Unit: "kW"},
			wave(7, 42, 11, 300).float32(), ""},
		{3, modbus.Tag{Name: "voltage", Group: fast, Table: in, Address: 2, Type: "uint16", Scale: scale(0.1), Unit: "V"},
			wave(8, 230, 1.8, 90).integer(10), ""},
		{3, modbus.Tag{Name: "frequency", Group: fast, Table: in, Address: 4, Type: "float64", Unit: "Hz"},
			wave(9, 50, 0.02, 30).float64(), ""},
		{3, modbus.Tag{Name: "energy", Group: slow, Table: in, Address: 8, Type: "uint64", Unit: "W.h"},
			counter(42000.0 / 3600), ""},
		{3, modbus.Tag{Name: "balance", Group: slow, Table: in, Address: 12, Type: "int64", Order: "DCBA", Unit: "W.h"},
			wave(10, 0, 5000, 3600).integer(1), ""},
	}
}

// A curve is a slow wave with a small faster one on it.
type curve struct{ middle, swing, period, phase float64 }

func (c curve) at(seconds float64) float64 {
	turn := 2*math.Pi*seconds/c.period + c.phase
	return c.middle + c.swing*(0.9*math.Sin(turn)+0.1*math.Sin(7*turn))
}

func (c curve) integer(factor float64) func(float64) uint64 {
	return func(t float64) uint64 { return uint64(int64(math.Round(c.at(t) * factor))) }
}

func (c curve) float32() func(float64) uint64 {
	return func(t float64) uint64 { return uint64(math.Float32bits(float32(c.at(t)))) }
}

func (c curve) float64() func(float64) uint64 {
	return func(t float64) uint64 { return math.Float64bits(c.at(t)) }
}

func constant(v uint64) func(float64) uint64 { return func(float64) uint64 { return v } }

// counter rises from the epoch on, and never falls while the clock does not.
func counter(perSecond float64) func(float64) uint64 {
	return func(t float64) uint64 { return uint64(max(0, t*perSecond)) }
}

// words returns the registers of the point, in the order of its bytes.
func (p *point) words(seconds float64) []uint16 {
	if p.value == nil {
		return textWords(p.text)
	}
	size := map[string]int{"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2}[p.tag.Type]
	if size == 0 {
		size = 4
	}
	return layOut(p.value(seconds), size, p.tag.Order)
}

// layOut lays the low size*16 bits of v out in registers in the order ABCD,
// CDAB, BADC or DCBA.
func layOut(v uint64, size int, order string) []uint16 {
	words := make([]uint16, size)
	for i := range words {
		at := size - 1 - i
		if order == "CDAB" || order == "DCBA" {
			at = i
		}
		words[at] = uint16(v >> (16 * i))
		if order == "BADC" || order == "DCBA" {
			words[at] = bits.ReverseBytes16(words[at])
		}
	}
	return words
}

func textWords(text string) []uint16 {
	words := make([]uint16, (len(text)+1)/2)
	for i := range len(text) {
		words[i/2] |= uint16(text[i]) << (8 * (1 - i%2))
	}
	return words
}
