package migrate

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// A pair is a key and its value, as written.
type pair struct{ key, value string }

// Write writes the configuration: a file for conf.d, or a part of one. If there
// are no tags, there is nothing to write.
func (r *Result) Write(w io.Writer) error {
	var b strings.Builder
	if len(r.devices) > 0 {
		fmt.Fprintf(&b, "# Made of a configuration of %s. Every tag can only be read: see docs/modbus.md for writing.\nbuses:\n", r.from)
		for _, bus := range r.buses {
			fmt.Fprintf(&b, "  %s: %s\n", quote(bus.name), flow(bus.pairs()))
		}
		b.WriteString("devices:\n")
	}
	for _, d := range r.devices {
		fmt.Fprintf(&b, "  - id: %s\n    adapter: modbus\n    bus: %s\n    unit: %d\n", quote(d.id), quote(d.bus.name), d.unit)
		if d.maxRegisters > 0 {
			fmt.Fprintf(&b, "    max_registers: %d\n", d.maxRegisters)
		}
		b.WriteString("    groups:\n")
		for _, g := range d.groups {
			fmt.Fprintf(&b, "      %s: {interval: %s}\n", quote(g.name), g.interval)
		}
		b.WriteString("    tags:\n")
		for _, t := range d.tags {
			fmt.Fprintf(&b, "      %s: %s\n", quote(t.Name), flow(tagPairs(t)))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// quote leaves alone what cannot be taken for anything but text.
func quote(name string) string {
	if len(name) > 0 && (name[0] >= 'a' && name[0] <= 'z' || name[0] >= 'A' && name[0] <= 'Z') {
		switch strings.ToLower(name) {
		case "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		default:
			return name
		}
	}
	return strconv.Quote(name)
}

func flow(pairs []pair) string {
	var all []string
	for _, p := range pairs {
		if p.value != "" {
			all = append(all, p.key+": "+p.value)
		}
	}
	return "{" + strings.Join(all, ", ") + "}"
}

func (b *bus) pairs() []pair {
	c := b.cfg
	all := []pair{
		{"url", strconv.Quote(c.URL)},
		{"connect_timeout", span(c.ConnectTimeout)}, {"response_timeout", span(c.ResponseTimeout)},
		{"gap", span(c.Gap)}, {"pause_after_connect", span(c.PauseAfterConnect)},
		{"baud", whole(c.Serial.Baud)}, {"data_bits", whole(c.Serial.DataBits)}, {"parity", c.Serial.Parity}, {"stop_bits", whole(c.Serial.StopBits)},
	}
	if c.Echo {
		all = append(all, pair{"echo", "true"})
	}
	if rs := c.Serial.RS485; rs != nil {
		level := "high"
		if rs.SendLow {
			level = "low"
		}
		all = append(all, pair{"rs485", level}, pair{"rs485_before", span(rs.Before)}, pair{"rs485_after", span(rs.After)})
	}
	return all
}

func tagPairs(t modbus.Tag) []pair {
	address := fmt.Sprintf("%s:%d", t.Table, t.Address)
	if t.Type == "bit" && (t.Table == modbus.Holding || t.Table == modbus.Input) {
		address += fmt.Sprintf(".%d", t.Bit)
	}
	all := []pair{{"group", quote(t.Group)}, {"address", strconv.Quote(address)}, {"type", t.Type}, {"length", whole(t.Length)}, {"byte", t.Byte}, {"order", t.Order}}
	if t.Encoding != "" {
		all = append(all, pair{"encoding", t.Encoding})
	}
	if t.Mask != 0 {
		all = append(all, pair{"mask", fmt.Sprintf("%#x", t.Mask)})
	}
	if t.Scale != nil {
		all = append(all, pair{"scale", decimal(*t.Scale)})
	}
	if t.Offset != 0 {
		all = append(all, pair{"offset", decimal(t.Offset)})
	}
	if t.Round != nil {
		all = append(all, pair{"round", strconv.Itoa(*t.Round)})
	}
	if t.Unit != "" {
		all = append(all, pair{"unit", strconv.Quote(t.Unit)})
	}
	return all
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func whole(v int) string {
	if v == 0 {
		return ""
	}
	return strconv.Itoa(v)
}

func span(v time.Duration) string {
	if v == 0 {
		return ""
	}
	return v.String()
}
