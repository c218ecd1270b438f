package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// A profile is an EdgeX device profile.
type profile struct {
	file      string
	resources []*node
	sources   map[string][]string // resources of a resource, and of a command
}

// edgex reads device profiles and device lists of EdgeX 2 and later.
func (r *Result) edgex(files []File) error {
	profiles := make(map[string]*profile)
	lists := make(map[string]*node, len(files))
	for _, f := range files {
		root, err := readYAML(f)
		if err != nil {
			return err
		}
		r.file = f.Name
		if root.get("deviceResources") != nil {
			r.profile(root, profiles)
		}
		if list := root.get("deviceList"); list != nil {
			lists[f.Name] = list
		}
		if root != nil {
			r.unseen(root, "")
		}
	}
	switch {
	case len(profiles) == 0:
		return errors.New("no deviceResources: name the device profile, too")
	case len(lists) == 0:
		return errors.New("no deviceList: name the file with the devices, too")
	}
	for _, f := range files {
		for _, d := range lists[f.Name].each() {
			r.file = f.Name
			if err := r.edgexDevice(d, profiles); err != nil {
				r.file = f.Name
				r.leave(d.line, "device %s: %v", d.get("name").str(), err)
			}
		}
	}
	return nil
}

// described are keys that say nothing about the values.
var described = []string{"description", "labels", "manufacturer", "model", "isHidden", "apiVersion", "id", "adminState", "operatingState"}

func skip(n *node, keys []string) {
	for _, key := range keys {
		if v := n.get(key); v != nil {
			markAll(v)
		}
	}
}

func (r *Result) profile(root *node, all map[string]*profile) {
	name := root.get("name").str()
	p := &profile{file: r.file, resources: root.get("deviceResources").each(), sources: make(map[string][]string)}
	skip(root, described)
	for _, res := range p.resources {
		skip(res, described)
		n := res.get("name").str()
		p.sources[n] = []string{n}
		markAll(res.get("attributes"))
		skip(res.get("properties"), []string{"valueType", "readWrite", "units", "scale", "offset", "base", "mask", "shift", "minimum", "maximum", "defaultValue"})
	}
	for _, c := range root.get("deviceCommands").each() {
		skip(c, append([]string{"readWrite"}, described...))
		n := c.get("name").str()
		for _, op := range c.get("resourceOperations").each() {
			p.sources[n] = append(p.sources[n], op.get("deviceResource").str())
		}
	}
	if all[name] != nil {
		r.note(root.line, "profile %q is there twice: the first one counts", name)
		return
	}
	all[name] = p
}

// edgexSpan reads a duration, or a number of seconds.
func edgexSpan(text string) (time.Duration, error) {
	if seconds, err := strconv.Atoi(text); err == nil && seconds < 1<<20 {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(text)
}

func (r *Result) edgexDevice(n *node, profiles map[string]*profile) error {
	skip(n, described)
	id, name := n.get("name").str(), n.get("profileName").str()
	p := profiles[name]
	switch {
	case id == "":
		return errors.New("without name: add one")
	case p == nil:
		return fmt.Errorf("profile %q is in none of the files: name its file, too", name)
	}
	bus, unit, err := r.edgexBus(n.get("protocols"))
	if err != nil {
		return err
	}
	d := r.device(n.line, id, bus, unit)
	groups, err := r.edgexGroups(d, n, p)
	r.unseen(n, "")
	if err != nil {
		return err
	}
	r.file = p.file
	for _, res := range p.resources {
		tag := modbus.Tag{Name: res.get("name").str(), Group: groups[res.get("name").str()]}
		switch {
		case tag.Group == "" && r.options.Interval == 0:
			r.leave(res.line, "%s: no autoEvent of %s reads it: add --interval to have it read all the same", tag.Name, id)
			continue
		case tag.Group == "":
			tag.Group = r.group(d, res.line, "rest", r.options.Interval)
		}
		if err := r.edgexTag(res, &tag); err != nil {
			r.leave(res.line, "%s: %v", tag.Name, err)
			continue
		}
		r.tag(d, res.line, tag)
	}
	d.groups = slices.DeleteFunc(d.groups, func(g group) bool {
		return !slices.ContainsFunc(d.tags, func(t modbus.Tag) bool { return t.Group == g.name })
	})
	return nil
}

// edgexGroups makes a group of each autoEvent and returns the group of each
// resource: that of the shortest interval, if there are several.
func (r *Result) edgexGroups(d *device, n *node, p *profile) (map[string]string, error) {
	type event struct {
		*node
		interval time.Duration
	}
	var events []event
	for _, e := range n.get("autoEvents").each() {
		v, err := time.ParseDuration(e.get("interval").str())
		if err == nil {
			err = checkInterval(v)
		}
		if err != nil {
			return nil, fmt.Errorf("autoEvents: interval %q: write one like 20s, from 10ms to 30 days", e.get("interval").str())
		}
		if e.get("onChange").is() {
			r.note(e.line, "onChange is not carried over: it is published each time that it is read")
		}
		events = append(events, event{e, v})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.interval, b.interval) })
	groups := make(map[string]string)
	for _, e := range events {
		source := e.get("sourceName").str()
		if len(p.sources[source]) == 0 {
			r.note(e.line, "autoEvent %q is not carried over: the profile has no such resource or command", source)
			continue
		}
		g := r.group(d, e.line, source, e.interval)
		for _, res := range p.sources[source] {
			if other := groups[res]; other != "" && other != g {
				r.note(e.line, "%s is read with group %s, not with %s, too: a tag is in one group", res, other, g)
				continue
			}
			groups[res] = g
		}
	}
	return groups, nil
}

func (r *Result) edgexBus(protocols *node) (*bus, int, error) {
	var n *node
	scheme := ""
	for _, s := range []pair{{"modbus-tcp", "tcp"}, {"modbus-rtu", "rtu"}, {"modbus-ascii", "ascii"}} {
		if v := protocols.get(s.key); v != nil {
			if n != nil {
				return nil, 0, errors.New("two protocols of Modbus: keep one")
			}
			n, scheme = v, s.value
		}
	}
	if n == nil {
		return nil, 0, errors.New("no protocol modbus-tcp, modbus-rtu or modbus-ascii: only Modbus can be carried over")
	}
	unit, err := n.get("UnitID").whole(0, 247, -1)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("UnitID: %w", err)
	case unit < 0:
		return nil, 0, errors.New("without UnitID: add it")
	}
	address := n.get("Address").str()
	cfg := modbus.BusConfig{URL: scheme + "://" + address, ResponseTimeout: r.span(n.get("Timeout"), "Timeout", edgexSpan, 10*time.Millisecond, time.Minute)}
	if scheme == "tcp" {
		port, err := n.get("Port").whole(1, 65535, 0)
		if err != nil || port == 0 {
			return nil, 0, errors.New("the key Port: write one from 1 to 65535")
		}
		cfg.URL += ":" + strconv.Itoa(port)
		cfg.ConnectTimeout = cfg.ResponseTimeout
		cfg.PauseAfterConnect = r.span(n.get("ConnectDelay"), "ConnectDelay", edgexSpan, 0, time.Minute)
	} else if err := edgexSerial(n, &cfg); err != nil {
		return nil, 0, err
	}
	b, err := r.bus(n.line, (&Result{}).name(0, path.Base(address), "", nil), cfg)
	return b, unit, err
}

func edgexSerial(n *node, cfg *modbus.BusConfig) (err error) {
	if cfg.Serial.Baud, err = n.get("BaudRate").whole(300, 921600, 0); err != nil {
		return fmt.Errorf("BaudRate: %w", err)
	}
	if cfg.Serial.DataBits, err = n.get("DataBits").whole(5, 8, 0); err != nil {
		return fmt.Errorf("DataBits: %w", err)
	}
	if cfg.Serial.StopBits, err = n.get("StopBits").whole(1, 2, 0); err != nil {
		return fmt.Errorf("StopBits: %w", err)
	}
	if cfg.Serial.Parity = n.get("Parity").str(); !slices.Contains([]string{"N", "E", "O"}, cfg.Serial.Parity) {
		return fmt.Errorf("the key Parity is %q: write N, E or O", cfg.Serial.Parity)
	}
	return nil
}

var edgexTables = map[string]modbus.Table{
	"COILS": modbus.Coil, "DISCRETES_INPUT": modbus.Discrete, "DISCRETE_INPUTS": modbus.Discrete,
	"INPUT_REGISTERS": modbus.Input, "HOLDING_REGISTERS": modbus.Holding,
}

// edgexTag sets what a device resource says of its tag.
func (r *Result) edgexTag(res *node, tag *modbus.Tag) error {
	attributes, properties := res.get("attributes"), res.get("properties")
	table := attributes.get("primaryTable").str()
	tag.Table = edgexTables[strings.ToUpper(table)]
	if tag.Table == "" {
		return fmt.Errorf("primaryTable %q is none of EdgeX's: correct it", table)
	}
	switch access := properties.get("readWrite").str(); {
	case access == "W":
		return errors.New("it can only be written, and nothing is written that was not asked for by a command")
	case strings.Contains(access, "W"):
		r.note(res.line, "%s can be written there: here it is only read; see writing in docs/modbus.md for access, min and max", tag.Name)
	}
	kind := strings.ToLower(properties.get("valueType").str())
	if err := r.edgexAddress(attributes, tag, kind); err != nil {
		return err
	}
	if err := r.edgexType(res, tag, kind); err != nil {
		return err
	}
	tag.Unit = properties.get("units").str()
	return r.edgexScale(res, tag, kind)
}

// edgexAddress reads startingAddress as EdgeX does: a number with a point that is not
// in quotes gets two digits after it, so that 10.1 is bit 10.
func (r *Result) edgexAddress(attributes *node, tag *modbus.Tag, kind string) error {
	n := attributes.get("startingAddress")
	text := n.str()
	if n != nil && n.plain && strings.Contains(text, ".") {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("startingAddress %q is no number", text)
		}
		if whole := fmt.Sprintf("%.2f", v); whole != text {
			r.note(n.line, "%s: startingAddress %s without quotes is read by EdgeX, and so here, as %s", tag.Name, text, whole)
			text = whole
		}
	}
	number, bit, bits := strings.Cut(text, ".")
	address, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return fmt.Errorf("startingAddress %q is no number from 0 to 65535", text)
	}
	tag.Address = uint16(address)
	if !bits {
		return nil
	}
	if tag.Bit, err = strconv.Atoi(bit); err != nil || tag.Bit < 0 || tag.Bit > 15 {
		return fmt.Errorf("startingAddress %q names no bit from 0 to 15: write it in quotes", text)
	}
	if kind != "bool" || tag.Table == modbus.Coil || tag.Table == modbus.Discrete {
		return fmt.Errorf("startingAddress %q names a bit of what is no register, or no Bool", text)
	}
	return nil
}

func (r *Result) edgexType(res *node, tag *modbus.Tag, kind string) error {
	attributes := res.get("attributes")
	raw := strings.ToLower(attributes.get("rawType").str())
	if raw == "" {
		raw = kind
	}
	pairs := map[string][]string{"float32": {"int16", "uint16"}, "float64": {"int16", "uint16", "int32"}}
	bits := tag.Table == modbus.Coil || tag.Table == modbus.Discrete
	switch {
	case bits && kind != "bool":
		return fmt.Errorf("valueType %q of a %s: only Bool can be carried over", kind, tag.Table)
	case bits:
		tag.Type = "bool"
		return nil
	case kind == "bool":
		tag.Type = "bit"
		return nil
	case kind == "string":
		size, err := attributes.get("stringRegisterSize").whole(1, 123, 0)
		if err != nil || size == 0 {
			return errors.New("stringRegisterSize: write 1 to 123")
		}
		tag.Type, tag.Length, tag.Encoding = "string", size, "utf8"
		return nil
	case !slices.Contains([]string{"int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"}, kind):
		return fmt.Errorf("valueType %q is none of device-modbus", kind)
	case raw != kind && !slices.Contains(pairs[kind], raw):
		return fmt.Errorf("rawType %q with valueType %q is not read by device-modbus either", raw, kind)
	}
	tag.Type = raw
	swap := map[[2]bool]string{{true, false}: "BADC", {false, true}: "CDAB", {true, true}: "DCBA"}[[2]bool{attributes.get("isByteSwap").is(), attributes.get("isWordSwap").is()}]
	if swap != "" && registersOf(raw) != 2 {
		r.note(attributes.line, "%s: isByteSwap and isWordSwap change nothing on %s, in EdgeX neither", tag.Name, raw)
		return nil
	}
	tag.Order = swap
	return nil
}

// edgexScale sets the calculation. What Headgate calculates otherwise is refused.
func (r *Result) edgexScale(res *node, tag *modbus.Tag, kind string) error {
	numbers := make(map[string]float64)
	p := res.get("properties")
	for _, key := range []string{"scale", "offset", "base", "shift", "mask"} {
		v, _, err := p.get(key).number()
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		numbers[key] = v
	}
	number := kind != "bool" && kind != "string"
	switch {
	case numbers["base"] != 0 || numbers["shift"] != 0:
		return errors.New("base and shift are not carried over: write the tag with mask and shift yourself, if it needs them")
	case numbers["mask"] != 0 && (!strings.HasPrefix(kind, "uint") || numbers["mask"] < 0 || numbers["mask"] >= 1<<53 || numbers["mask"] != float64(uint64(numbers["mask"]))):
		return fmt.Errorf("mask %v of a %s", numbers["mask"], kind)
	case !number:
		return nil
	}
	tag.Mask = uint64(numbers["mask"])
	if scale := numbers["scale"]; scale != 0 && scale != 1 {
		tag.Scale = &scale
	}
	tag.Offset = numbers["offset"]
	if strings.Contains(kind, "int") && (numbers["scale"] != float64(int64(numbers["scale"])) || tag.Offset != float64(int64(tag.Offset))) {
		r.note(res.line, "%s: EdgeX cuts it to a whole number; here it keeps its fraction, unless you add round: 0", tag.Name)
	}
	return nil
}
