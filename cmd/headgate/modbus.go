package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/spf13/cobra"
)

func modbusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "modbus",
		Short: "Look at Modbus devices, without a configuration; make one of another program's",
		Long: `Looks at devices on a bus whose URL is given: tcp://host, tls://host, udp://host,
rtu:///dev/serial/by-id/NAME, ascii:///…, rtu+tcp://host:port, ascii+tcp://host:port.
Only write changes anything, and trace NAME shows what a running gateway does.
A serial port that the gateway has is locked.`,
	}
	cmd.AddCommand(modbusScan(), modbusRead(), modbusWrite(), modbusGuess(), modbusTrace(), modbusImport())
	return cmd
}

// A busChoice is the flags by which a bus is reached.
type busChoice struct {
	unit  int
	cfg   modbus.BusConfig
	files pki.ClientFiles
	trace bool
	pcap  string
}

func (c *busChoice) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&c.cfg.ResponseTimeout, "timeout", 0, "how long the device may take to answer (default 1s, serial 500ms)")
	f.IntVar(&c.cfg.Serial.Baud, "baud", 0, "serial lines: speed (default 19200)")
	f.StringVar(&c.cfg.Serial.Parity, "parity", "", "serial lines: N, E or O (default E)")
	f.IntVar(&c.cfg.Serial.DataBits, "data-bits", 0, "serial lines: 5 to 8 (default 8)")
	f.IntVar(&c.cfg.Serial.StopBits, "stop-bits", 0, "serial lines: 1 or 2 (default 1, without parity 2)")
	f.BoolVar(&c.cfg.Echo, "echo", false, "serial lines: the port hears what it sends")
	f.StringVar(&c.files.CA, "ca", "", "tls://: PEM file of the authority that vouches for the device")
	f.StringVar(&c.files.Certificate, "certificate", "", "tls://: PEM file of our certificate")
	f.StringVar(&c.files.Key, "key", "", "tls://: PEM file of its key")
	f.BoolVar(&c.trace, "trace", false, "show the frames on stderr")
	f.StringVar(&c.pcap, "pcap", "", "write the frames to this file, as Modbus TCP, for Wireshark")
}

func (c *busChoice) unitFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&c.unit, "unit", 1, "unit, 0 to 247")
}

// withBus calls fn with the bus.
func (c *busChoice) withBus(cmd *cobra.Command, url string, fn func(*modbus.Bus) error) (all error) {
	if c.unit < 0 || c.unit > 247 {
		return usageError{fmt.Errorf("unit %d: give 0 to 247", c.unit)}
	}
	c.cfg.URL = url
	if modbus.NeedsTLS(url) {
		c.cfg.TLS = pki.Client(c.files)
	}
	bus, err := modbus.NewBus(c.cfg)
	if err != nil {
		return usageError{err}
	}
	defer func() { all = errors.Join(all, bus.Close()) }()
	if c.trace {
		defer bus.Watch(frameLines(cmd.ErrOrStderr()))()
	}
	if c.pcap != "" {
		p, err := createPcap(c.pcap)
		if err != nil {
			return err
		}
		stop := bus.Watch(p.frame)
		defer func() {
			stop()
			all = errors.Join(all, p.close())
		}()
	}
	return fn(bus)
}

func frameLines(out io.Writer) func(modbus.Frame) {
	return func(f modbus.Frame) { fmt.Fprintf(out, "%s %s\n", f.Time.Format("15:04:05.000"), f) }
}

// A tagChoice is the flags that say how registers are read.
type tagChoice struct {
	modbus.Tag
	scale     float64
	addresses int // how addresses are counted
}

func (c *tagChoice) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.Type, "type", "", "as in the configuration: int16, float32, string, bits[0..3], … (default uint16, bool)")
	f.StringVar(&c.Order, "order", "", "ABCD, CDAB, BADC or DCBA")
	f.Float64Var(&c.scale, "scale", 0, "the value is raw * scale + offset")
	f.Float64Var(&c.Offset, "offset", 0, "see --scale")
	f.IntVar(&c.Length, "length", 0, "of string and bytes, in registers")
	f.StringVar(&c.Encoding, "encoding", "", "of string, bytes and time")
	f.StringVar(&c.Byte, "byte", "", "which byte of each register: both, hi or lo")
	f.IntVar(&c.addresses, "address-base", 0, "1: holding:10 counts from 1, as in manuals; 40011 always does")
}

// tag is the tag at an address.
func (c *tagChoice) tag(text string) (modbus.Tag, error) {
	tag := c.Tag
	a, err := modbus.ParseAddress(text, c.addresses)
	if err != nil {
		return tag, usageError{err}
	}
	tag.Name, tag.Group, tag.Table, tag.Address = text, group, a.Table, a.Number
	if a.Bit >= 0 {
		tag.Bit = a.Bit
	}
	if tag.Order == "" {
		tag.Order = a.Order
	}
	switch {
	case tag.Type != "":
	case a.Bit >= 0:
		tag.Type = "bit"
	case a.Table == modbus.Coil || a.Table == modbus.Discrete:
		tag.Type = "bool"
	default:
		tag.Type = "uint16"
	}
	if c.scale != 0 {
		tag.Scale = &c.scale
	}
	if err := modbus.CheckTag(tag); err != nil {
		return tag, usageError{fmt.Errorf("%s: %w", text, err)}
	}
	return tag, nil
}

const group = "g"

// deviceOf is a device with tags that nobody polls.
func deviceOf(unit int, tags ...modbus.Tag) modbus.DeviceConfig {
	return modbus.DeviceConfig{Unit: byte(unit), Groups: []modbus.Group{{Name: group, Interval: 24 * time.Hour}}, Tags: tags}
}

// manual is an address as manuals count it.
func manual(a modbus.Address) string {
	table := map[modbus.Table]string{modbus.Coil: "0", modbus.Discrete: "1", modbus.Input: "3", modbus.Holding: "4"}[a.Table]
	return fmt.Sprintf("%s%05d", table, int(a.Number)+1)
}

func modbusScan() *cobra.Command {
	var c busChoice
	var units, address string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "scan URL",
		Short: "Find the units of a bus",
		Long: `Asks each unit for one register and shows those that answer, if only to refuse, with
what they call themselves. Each unit that is not there costs one timeout. Exits
with 1 if there is none.`,
		Example: `  headgate modbus scan tcp://192.0.2.10
  headgate modbus scan rtu:///dev/serial/by-id/usb-FTDI_ABC-if00 --baud 9600 --units 1-32`,
		Args: args(cobra.ExactArgs(1)),
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&units, "units", "1-247", "which: 1-32,100")
	cmd.Flags().StringVar(&address, "address", "holding:0", "the register to ask for")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		list, err := parseUnits(units)
		if err != nil {
			return err
		}
		a, err := modbus.ParseAddress(address, 0)
		if err != nil {
			return usageError{err}
		}
		if c.cfg.ResponseTimeout == 0 {
			c.cfg.ResponseTimeout = 300 * time.Millisecond
		}
		c.cfg.LateWindow = time.Millisecond // nobody is asked twice
		return c.withBus(cmd, of[0], func(bus *modbus.Bus) error { return scan(cmd, bus, list, a, asJSON) })
	}
	return cmd
}

// A foundUnit is one line of scan --json. Its names are stable.
type foundUnit struct {
	Unit     int    `json:"unit"`
	Identity string `json:"identity,omitempty"`
}

func scan(cmd *cobra.Command, bus *modbus.Bus, units []int, a modbus.Address, asJSON bool) error {
	found := []foundUnit{}
	for _, unit := range units {
		f, err := bus.Probe(cmd.Context(), byte(unit), a)
		if err != nil {
			return err
		}
		if !f.Answers {
			continue
		}
		found = append(found, foundUnit{unit, f.Identity})
		if !asJSON {
			fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(fmt.Sprintf("unit %-3d  %s", unit, f.Identity)))
		}
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), found); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("none of %s answers; check the address, baud and parity, and the wiring, or give a longer --timeout", count(len(units), "unit"))
	}
	return nil
}

// parseUnits reads 1-32,100.
func parseUnits(text string) (all []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		first, err := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err != nil || err2 != nil || first < 0 || last > 247 || first > last {
			return nil, usageError{fmt.Errorf("units %q: write 1-32,100, from 0 to 247", text)}
		}
		for u := first; u <= last; u++ {
			all = append(all, u)
		}
	}
	return all, nil
}

// guessRegisters is how many registers guess looks at, if they are there.
const guessRegisters = 4

func modbusGuess() *cobra.Command {
	var c busChoice
	var asJSON bool
	var base int
	cmd := &cobra.Command{
		Use:   "guess URL ADDRESS",
		Short: "Show what an address holds in every type and order",
		Long: `Reads up to four registers from ADDRESS on and shows them in every type and byte
order. What looks like a measurement is marked: compare it with the device's own
display, and if every value is the neighbour's, give --address-base 1.`,
		Example: "  headgate modbus guess tcp://192.0.2.10 --unit 1 holding:3028",
		Args:    args(cobra.ExactArgs(2)),
	}
	c.flags(cmd)
	c.unitFlag(cmd)
	cmd.Flags().IntVar(&base, "address-base", 0, "1: holding:10 counts from 1, as in manuals; 40011 always does")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		a, err := modbus.ParseAddress(of[1], base)
		if err != nil {
			return usageError{err}
		}
		if a.Table == modbus.Coil || a.Table == modbus.Discrete {
			return usageError{errors.New("a coil or discrete input is a bit: read shows it")}
		}
		return c.withBus(cmd, of[0], func(bus *modbus.Bus) error {
			wire, err := readSome(cmd.Context(), bus, byte(c.unit), a)
			if err != nil {
				return err
			}
			guesses := modbus.Guesses(wire, time.Now())
			if asJSON {
				return printJSON(cmd.OutOrStdout(), guesses)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s:%d (%s)  % X\n", a.Table, a.Number, manual(a), wire)
			for _, g := range guesses {
				line := fmt.Sprintf("  %-9s %-5s %v", g.Type, g.Order, g.Value)
				if g.Plausible {
					line = fmt.Sprintf("%-42s <- plausible", line)
				}
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return nil
		})
	}
	return cmd
}

// readSome reads as many registers as there are, up to what guess looks at.
func readSome(ctx context.Context, bus *modbus.Bus, unit byte, a modbus.Address) (wire []byte, err error) {
	for n := uint16(guessRegisters); n > 0; n-- {
		if wire, err = bus.ReadRaw(ctx, unit, a, n); !modbus.IsNoAddress(err) {
			return wire, err
		}
	}
	return wire, err
}
