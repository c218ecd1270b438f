package migrate

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// telegraf reads the [[inputs.modbus]] sections of telegraf's configuration.
func (r *Result) telegraf(files []File) error {
	found := false
	for _, f := range files {
		root, err := readTOML(f)
		if err != nil {
			return err
		}
		r.file = f.Name
		every := root.get("agent").get("interval")
		for _, in := range root.get("inputs").get("modbus").each() {
			found = true
			if err := r.plugin(in, every); err != nil {
				r.leave(in.line, "inputs.modbus %q: %v", in.get("name").str(), err)
			}
		}
	}
	if !found {
		return errors.New("no [[inputs.modbus]] section: name the file of telegraf's configuration that has it")
	}
	return nil
}

// A plugin is one [[inputs.modbus]] section.
type plugin struct {
	name     string
	bus      *bus
	interval time.Duration
	max      int    // registers in a request; zero: any
	half     string // of the registers of a string
	units    map[int]*device
	several  bool
}

func (r *Result) plugin(in, agent *node) error {
	p := &plugin{name: in.get("name").str(), units: make(map[int]*device)}
	if p.name == "" {
		return errors.New("without name: add one, as telegraf would not take it either")
	}
	var err error
	if p.interval, err = r.telegrafInterval(in.get("interval"), agent); err != nil {
		return err
	}
	cfg, name, err := r.controller(in)
	if err != nil {
		return err
	}
	work := in.get("workarounds")
	cfg.PauseAfterConnect = r.span(work.get("pause_after_connect"), "pause_after_connect", time.ParseDuration, 0, time.Minute)
	cfg.Gap = r.span(work.get("pause_between_requests"), "pause_between_requests", time.ParseDuration, 0, time.Minute)
	if p.max, err = work.get("max_word_registers_per_request").whole(1, 125, 0); err != nil {
		return fmt.Errorf("max_word_registers_per_request: %w", err)
	}
	p.half = map[string]string{"lower": "lo", "upper": "hi"}[work.get("string_register_location").str()]
	if p.bus, err = r.bus(in.line, (&Result{}).name(0, name, "", nil), cfg); err != nil {
		return err
	}
	switch style := in.get("configuration_type").str(); style {
	case "", "register":
		r.registers(p, in)
	case "request", "metric":
		r.sections(p, in, style)
	default:
		return fmt.Errorf("configuration_type %q is none: write register, request or metric", style)
	}
	r.unseen(in, "")
	return nil
}

func (r *Result) telegrafInterval(own, agent *node) (time.Duration, error) {
	for _, n := range []*node{own, agent} {
		if n != nil {
			v, err := time.ParseDuration(n.str())
			if err != nil {
				return 0, fmt.Errorf("interval %q is no duration: write 10s", n.str())
			}
			return v, checkInterval(v)
		}
	}
	if r.options.Interval == 0 {
		return 0, errors.New("the file does not say how often it is read: add --interval; telegraf does it each 10s by itself")
	}
	return r.options.Interval, nil
}

// controller returns how the bus is reached, and what to call it.
func (r *Result) controller(in *node) (cfg modbus.BusConfig, name string, err error) {
	text, mode := in.get("controller").str(), in.get("transmission_mode").str()
	u, err := url.Parse(text)
	if err != nil || text == "" {
		return cfg, "", fmt.Errorf("controller %q is no URL: write tcp://host:502 or file:///dev/ttyUSB0", text)
	}
	cfg.ResponseTimeout = r.span(in.get("timeout"), "timeout", time.ParseDuration, 10*time.Millisecond, time.Minute)
	if cfg.ResponseTimeout == 0 {
		cfg.ResponseTimeout = time.Second // telegraf's own
	}
	schemes := map[string]string{
		"tcp:": "tcp", "tcp:auto": "tcp", "tcp:TCP": "tcp", "tcp:RTUoverTCP": "rtu+tcp", "tcp:ASCIIoverTCP": "ascii+tcp",
		"file:": "rtu", "file:auto": "rtu", "file:RTU": "rtu", "file:ASCII": "ascii",
	}
	scheme := schemes[u.Scheme+":"+mode]
	file := path.Join("/", u.Host, u.Path)
	switch {
	case scheme == "":
		return cfg, "", fmt.Errorf("controller %q with transmission_mode %q: only tcp://host:port and file:///dev/… can be carried over", text, mode)
	case u.Scheme == "tcp":
		cfg.URL = scheme + "://" + u.Host
		return cfg, u.Hostname(), nil
	}
	cfg.URL = scheme + "://" + file
	if err := r.serial(in, &cfg); err != nil {
		return cfg, "", err
	}
	return cfg, path.Base(file), nil
}

// serial reads the settings of a serial port. What telegraf does without them is
// what is done here, but for the stop bits.
func (r *Result) serial(in *node, cfg *modbus.BusConfig) error {
	var err error
	if cfg.Serial.Baud, err = in.get("baud_rate").whole(300, 921600, 0); err != nil {
		return fmt.Errorf("baud_rate: %w", err)
	}
	if cfg.Serial.DataBits, err = in.get("data_bits").whole(5, 8, 0); err != nil {
		return fmt.Errorf("data_bits: %w", err)
	}
	if cfg.Serial.StopBits, err = in.get("stop_bits").whole(1, 2, 1); err != nil {
		return fmt.Errorf("stop_bits: %w", err)
	}
	if cfg.Serial.Parity = in.get("parity").str(); !slices.Contains([]string{"", "N", "E", "O"}, cfg.Serial.Parity) {
		return fmt.Errorf("parity %q: write N, E or O", cfg.Serial.Parity)
	}
	rs := in.get("rs485")
	if rs == nil {
		return nil
	}
	high, after := rs.get("rts_high_during_send").is(), rs.get("rts_high_after_send").is()
	if high == after {
		r.note(rs.line, "rs485 is not carried over: RTS would be the same while sending and after; write rs485: high or low to the bus if the port needs it")
		return nil
	}
	wait := func(key string) time.Duration {
		return r.span(rs.get(key), key, time.ParseDuration, time.Millisecond, 100*time.Millisecond).Truncate(time.Millisecond)
	}
	cfg.Serial.RS485 = &modbus.RS485{SendLow: after, Before: wait("delay_rts_before_send"), After: wait("delay_rts_after_send")}
	return nil
}

// unit returns the device of a unit.
func (r *Result) unit(p *plugin, n *node, line int) (*device, error) {
	unit, err := n.whole(0, 247, 0)
	if err != nil {
		return nil, fmt.Errorf("slave_id: %w", err)
	}
	if d := p.units[unit]; d != nil {
		return d, nil
	}
	id := p.name
	if p.several {
		id = fmt.Sprintf("%.50s-%d", id, unit)
	}
	d := r.device(line, id, p.bus, unit)
	d.maxRegisters = p.max
	p.units[unit] = d
	return d, nil
}

// registers reads the fields of the register style.
func (r *Result) registers(p *plugin, in *node) {
	d, err := r.unit(p, in.get("slave_id"), in.line)
	if err != nil {
		r.leave(in.line, "%s: %v", p.name, err)
		return
	}
	for _, t := range []struct {
		key   string
		table modbus.Table
	}{{"discrete_inputs", modbus.Discrete}, {"coils", modbus.Coil}, {"holding_registers", modbus.Holding}, {"input_registers", modbus.Input}} {
		for _, f := range in.get(t.key).each() {
			tag := modbus.Tag{Name: f.get("name").str(), Table: t.table}
			err := telegrafPlace(f, &tag)
			if err == nil {
				tag.Order = f.get("byte_order").str()
				err = r.telegrafTag(p, f, &tag, f.get("data_type").str(), "")
			}
			tag.Group = f.get("measurement").str()
			r.field(d, p, f, tag, err)
		}
	}
}

// telegrafPlace reads a list of addresses, which must lie in a row. Their number is the
// tag's length for now.
func telegrafPlace(f *node, tag *modbus.Tag) error {
	list := f.get("address").each()
	if len(list) == 0 || len(list) > 125 {
		return errors.New("address must be a list of 1 to 125 numbers")
	}
	for i, n := range list {
		v, err := n.whole(0, 65535, 0)
		if err != nil {
			return fmt.Errorf("address: %w", err)
		}
		if i > 0 && v != int(tag.Address)+i {
			return errors.New("its addresses do not lie in a row")
		}
		if i == 0 {
			tag.Address = uint16(v)
		}
	}
	tag.Length = len(list)
	return nil
}

// sections reads the request and metric styles.
func (r *Result) sections(p *plugin, in *node, style string) {
	units := make(map[string]bool)
	for _, s := range in.get(style).each() {
		units[s.get("slave_id").str()] = true
	}
	p.several = len(units) > 1
	for _, s := range in.get(style).each() {
		d, err := r.unit(p, s.get("slave_id"), s.line)
		if err != nil {
			r.leave(s.line, "%s: %v", p.name, err)
			continue
		}
		order, measurement, register := s.get("byte_order").str(), s.get("measurement").str(), s.get("register").str()
		for _, f := range s.get("fields").each() {
			if f.get("omit").is() {
				markAll(f)
				continue
			}
			r.section(p, d, f, []string{order, measurement, register})
		}
	}
}

// section reads one field, with what holds for the section.
func (r *Result) section(p *plugin, d *device, f *node, common []string) {
	order, measurement, register := common[0], common[1], common[2]
	if own := f.get("measurement").str(); own != "" {
		measurement = own
	}
	if own := f.get("register").str(); own != "" {
		register = own
	}
	if register == "" {
		register = "holding"
	}
	tag := modbus.Tag{Name: f.get("name").str(), Table: modbus.Table(register)}
	address, err := f.get("address").whole(0, 65535, -1)
	if err == nil && address < 0 {
		err = errors.New("without address")
	}
	if tag.Address = uint16(max(address, 0)); err == nil {
		tag.Length, err = f.get("length").whole(0, 125, 0)
	}
	if err == nil {
		if tag.Order = order; order == "" {
			tag.Order = "ABCD"
		}
		err = r.telegrafTag(p, f, &tag, f.get("type").str(), f.get("output").str())
	}
	tag.Group = measurement
	r.field(d, p, f, tag, err)
}

// field adds a tag, whose group is its measurement for now.
func (r *Result) field(d *device, p *plugin, f *node, tag modbus.Tag, err error) {
	switch {
	case err != nil:
		r.leave(f.line, "%s: %v", tag.Name, err)
		markAll(f)
		return
	case tag.Name == "":
		r.leave(f.line, "a field without name")
		return
	case tag.Group == "":
		tag.Group = "modbus"
	}
	tag.Group = r.group(d, f.line, tag.Group, p.interval)
	r.tag(d, f.line, tag)
}

var telegrafTypes = map[string]string{
	"INT8L": "int8", "INT8H": "int8", "UINT8L": "uint8", "UINT8H": "uint8", "INT16": "int16", "UINT16": "uint16",
	"INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
	"FLOAT16": "float16", "FLOAT32": "float32", "FLOAT64": "float64",
	"FLOAT16-IEEE": "float16", "FLOAT32-IEEE": "float32", "FLOAT64-IEEE": "float64", "STRING": "string", "BIT": "bit",
}

var telegrafOrders = map[string]string{
	"AB": "ABCD", "BA": "DCBA", "ABCD": "ABCD", "BADC": "BADC", "CDAB": "CDAB", "DCBA": "DCBA",
	"MSW-BE": "ABCD", "MSW-LE": "BADC", "LSW-BE": "CDAB", "LSW-LE": "DCBA",
	"ABCDEFGH": "ABCD", "BADCFEHG": "BADC", "GHEFCDAB": "CDAB", "HGFEDCBA": "DCBA",
}

// telegrafTag sets how the registers become a value. The tag's length is how many
// there are, if that is known, and its order is telegraf's.
func (r *Result) telegrafTag(p *plugin, f *node, tag *modbus.Tag, kind, output string) error {
	given, order := tag.Length, tag.Order
	tag.Order = ""
	scale, scaled, err := f.get("scale").number()
	bit, errBit := f.get("bit").whole(0, 15, 0)
	tag.Length = 0
	switch {
	case tag.Table == modbus.Coil || tag.Table == modbus.Discrete:
		tag.Type = "bool"
		return nil
	case err != nil:
		return fmt.Errorf("scale: %w", err)
	case errBit != nil:
		return fmt.Errorf("bit: %w", errBit)
	case kind == "FIXED" || kind == "UFIXED":
		tag.Type = map[string]string{"FIXED": "int", "UFIXED": "uint"}[kind] + strconv.Itoa(16*given)
	case kind == "FLOAT32" && f.get("data_type") != nil:
		return errors.New("data_type FLOAT32 meant other things in other versions: write FLOAT32-IEEE, or UFIXED for a whole number with a scale")
	default:
		tag.Type = telegrafTypes[kind]
	}
	if tag.Type == "" {
		return fmt.Errorf("type %q is none of telegraf's: correct it", kind)
	}
	letters, known := telegrafOrders[order]
	if !known {
		return fmt.Errorf("byte_order %q is none of telegraf's: correct it", order)
	}
	width := registersOf(tag.Type)
	if given > 0 && width > 0 && given != width {
		return fmt.Errorf("%s takes %d registers, not %d", kind, width, given)
	}
	tag.Order = orderOf(letters, width)
	switch {
	case tag.Type == "string":
		tag.Length, tag.Byte, tag.Encoding = given, p.half, "utf8"
		return nil
	case tag.Type == "bit":
		tag.Bit = bit
		return nil
	case strings.HasSuffix(kind, "8H"):
		tag.Byte = "hi"
	}
	if scaled && scale != 0 && scale != 1 {
		tag.Scale = &scale
	}
	whole := output == "INT64" || output == "UINT64" || output == "" && f.get("data_type") != nil && strings.Contains(kind, "INT")
	if whole && (tag.Scale != nil && scale != float64(int64(scale)) || strings.HasPrefix(tag.Type, "float")) {
		r.note(f.line, "%s: telegraf cuts it to a whole number; here it keeps its fraction, unless you add round: 0", tag.Name)
	}
	return nil
}

// registersOf is how many a type takes; zero if that is not fixed.
func registersOf(kind string) int {
	switch {
	case kind == "string" || kind == "bytes":
		return 0
	case strings.HasSuffix(kind, "32"):
		return 2
	case strings.HasSuffix(kind, "64"):
		return 4
	}
	return 1
}

// markAll marks everything below n as looked at.
func markAll(n *node) {
	if n == nil {
		return
	}
	for _, key := range n.keys {
		markAll(n.get(key))
	}
	for _, i := range n.each() {
		markAll(i)
	}
}
