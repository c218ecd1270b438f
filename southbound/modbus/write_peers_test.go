package modbus_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
)

// pymodbus has the same values in both tables, as its own encoder laid them out.
// What is written over with another value and then written again, in every type
// and order, is register by register what the other table has.
func TestPymodbusIsWrittenTheSame(t *testing.T) {
	values := []struct {
		typ           string
		at            uint16
		other, wanted any
	}{
		{"int16", 0, int64(7), int64(-12345)}, {"uint16", 1, uint64(7), uint64(54321)}, {"int32", 2, int64(7), int64(-1234567890)},
		{"uint32", 4, uint64(7), uint64(3234567890)}, {"int64", 6, int64(7), int64(-1234567890123456789)}, {"uint64", 10, uint64(7), uint64(12345678901234567890)},
		{"float32", 14, 7.5, 71.3}, {"float64", 16, 7.5, -2.718281828459045}, {"float16", 20, 7.5, 1.5}, {"string", 21, "other", "Headgate"},
	}
	device := modbus.DeviceConfig{Unit: 1, Groups: []modbus.Group{{Name: "g", Interval: time.Second}}}
	wanted, other := map[string]any{}, map[string]any{}
	for i, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for _, v := range values {
			tag := modbus.Tag{Group: "g", Table: modbus.Holding, Address: uint16(100*i) + v.at, Type: v.typ, Order: order, Writable: true}
			if v.typ == "string" {
				tag.Length, tag.Order = 4, ""
			}
			tag.Name = fmt.Sprint(tag.Type, " ", order)
			device.Tags = append(device.Tags, tag)
			wanted[tag.Name], other[tag.Name] = v.wanted, v.other
		}
		for _, table := range []modbus.Table{modbus.Holding, modbus.Input} {
			device.Tags = append(device.Tags, modbus.Tag{Name: fmt.Sprint("raw ", table, " ", order), Group: "g", Table: table, Address: uint16(100 * i), Type: "uint16[25]"})
		}
	}
	for i := range uint16(4) {
		device.Tags = append(device.Tags, modbus.Tag{Name: fmt.Sprint("coil ", i), Group: "g", Table: modbus.Coil, Address: i, Type: "bool", Writable: true})
		wanted[fmt.Sprint("coil ", i)], other[fmt.Sprint("coil ", i)] = i%3 == 0, i%3 != 0
	}
	for _, force := range []bool{false, true} {
		device.ForceFC15, device.ForceFC16 = force, force
		for _, mode := range []string{"tcp", "rtu", "rtu+tcp", "tls"} {
			if force && mode != "tcp" {
				continue
			}
			t.Run(fmt.Sprint(mode, " several ", force), func(t *testing.T) { writeAndCompare(t, startPymodbus(t, mode), device, other, wanted) })
		}
	}
}

func writeAndCompare(t *testing.T, cfg modbus.BusConfig, device modbus.DeviceConfig, rounds ...map[string]any) {
	t.Helper()
	s, _, err := openBus(t, cfg, device)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, values := range rounds {
		for name, value := range values {
			cmd := southbound.Command{ID: name, Tag: name, Value: value, Deadline: time.Now().Add(time.Minute)}
			if err := s.(southbound.Writer).Write(t.Context(), cmd); err != nil {
				t.Fatalf("write %s %v: %v", name, value, err)
			}
			got, err := s.(southbound.Asker).Get(t.Context(), []string{name})
			if err != nil || got[0].Value != value {
				t.Errorf("%s was written %v and is %v, %v", name, value, got, err)
			}
		}
	}
	b, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for _, r := range b.Readings {
		all[r.Tag] = r.Value
	}
	for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for i := range 25 {
			ours, theirs := fmt.Sprintf("raw holding %s[%d]", order, i), fmt.Sprintf("raw input %s[%d]", order, i)
			if all[ours] == nil || all[ours] != all[theirs] {
				t.Errorf("%s is %v, and pymodbus has %v", ours, all[ours], all[theirs])
			}
		}
	}
}

// Bits of a register are changed without the others, whether the device knows
// function 22 or not: pymodbus does.
func TestPymodbusPartsOfRegisters(t *testing.T) {
	device := modbus.DeviceConfig{Unit: 1, Groups: []modbus.Group{{Name: "g", Interval: time.Second}}, Tags: []modbus.Tag{
		{Name: "all", Group: "g", Table: modbus.Holding, Address: 1, Type: "uint16", Writable: true},
		{Name: "bit", Group: "g", Table: modbus.Holding, Address: 1, Type: "bit", Bit: 3, Writable: true},
		{Name: "high", Group: "g", Table: modbus.Holding, Address: 1, Type: "int8", Byte: "hi", Writable: true},
	}}
	s, _, err := openBus(t, startPymodbus(t, "tcp"), device)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := s.(southbound.Writer)
	for _, step := range []struct {
		tag   string
		value any
		all   uint64
	}{{"all", uint64(0x00F0), 0x00F0}, {"bit", true, 0x00F8}, {"high", int64(-1), 0xFFF8}, {"bit", false, 0xFFF0}, {"high", int64(0), 0x00F0}} {
		err := w.Write(t.Context(), southbound.Command{Tag: step.tag, Value: step.value, Deadline: time.Now().Add(time.Minute)})
		got, readErr := s.(southbound.Asker).Get(t.Context(), []string{"all"})
		if err != nil || readErr != nil || got[0].Value != step.all {
			t.Errorf("%s = %v: %v; the register is %v, want %#x; %v", step.tag, step.value, err, got, step.all, readErr)
		}
	}
	err = w.Write(t.Context(), southbound.Command{Tag: "bit", Value: true, Deadline: time.Now().Add(-time.Second)})
	if !errors.Is(err, southbound.ErrRejected) || !errors.Is(err, southbound.ErrExpired) {
		t.Errorf("too late: %v", err)
	}
}
