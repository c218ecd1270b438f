package migrate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// MaxFile is the largest file that is read, in bytes.
const MaxFile = 1 << 20

// A File is what was read from where.
type File struct {
	Name string
	Text []byte
}

// Options are what the other program's files do not say.
type Options struct {
	URL      string        // of the bus, for formats that name none
	Interval time.Duration // of groups without one; zero: none
}

// From lists the programs whose configurations are read.
func From() []string { return []string{"telegraf", "edgex", "neuron"} }

// Read reads configurations of a program that From lists. The error says what to
// do; a Result may leave things out, and says what.
func Read(from string, files []File, o Options) (*Result, error) {
	r := &Result{from: from, options: o}
	if len(files) == 0 {
		return nil, fmt.Errorf("no file: name the configuration of %s", from)
	}
	for _, f := range files {
		if len(f.Text) > MaxFile {
			return nil, fmt.Errorf("%s is over 1 MiB: split it, or name the right file", f.Name)
		}
	}
	read := map[string]func([]File) error{"telegraf": r.telegraf, "edgex": r.edgex, "neuron": r.neuron}[from]
	if read == nil {
		return nil, fmt.Errorf("%q is not known: use one of %s", from, strings.Join(From(), ", "))
	}
	if err := read(files); err != nil {
		return nil, err
	}
	r.devices = slices.DeleteFunc(r.devices, func(d *device) bool { return len(d.tags) == 0 })
	r.buses = slices.DeleteFunc(r.buses, func(b *bus) bool {
		return !slices.ContainsFunc(r.devices, func(d *device) bool { return d.bus == b })
	})
	return r, nil
}

// A Note is something that was not carried over as it stood.
type Note struct {
	File string
	Line int
	Text string
}

func (n Note) String() string { return fmt.Sprintf("%s:%d: %s", n.File, n.Line, n.Text) }

// A Result is a configuration and what is not in it.
type Result struct {
	Notes   []Note
	LeftOut int // tags and devices
	from    string
	options Options
	noted   map[Note]bool // said once: a profile may be read for many devices
	file    string        // the one that is read
	buses   []*bus
	devices []*device
}

// Tags is how many there are.
func (r *Result) Tags() int {
	n := 0
	for _, d := range r.devices {
		n += len(d.tags)
	}
	return n
}

type bus struct {
	name string
	cfg  modbus.BusConfig
}

type device struct {
	id           string
	bus          *bus
	unit         int
	maxRegisters int
	groups       []group
	tags         []modbus.Tag
}

type group struct {
	name     string
	interval time.Duration
}

func (r *Result) note(line int, format string, args ...any) {
	n := Note{r.file, line, fmt.Sprintf(format, args...)}
	if r.noted == nil {
		r.noted = make(map[Note]bool)
	}
	if !r.noted[n] {
		r.Notes = append(r.Notes, n)
	}
	r.noted[n] = true
}

// leave notes a tag or a device that is not in the result.
func (r *Result) leave(line int, format string, args ...any) {
	r.LeftOut++
	r.note(line, "left out: "+format, args...)
}

// unseen notes all keys below n that nobody looked at.
func (r *Result) unseen(n *node, path string) {
	n.unseen(path, func(line int, path string) { r.note(line, "%s is not carried over", path) })
}

// name makes a name that the configuration takes, and that is none of taken.
func (r *Result) name(line int, text, what string, taken func(string) bool) string {
	safe := strings.Map(func(c rune) rune {
		if c < 128 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c)) {
			return c
		}
		return '_'
	}, text)
	safe = safe[:min(len(safe), 56)] // leaves room for a number
	if strings.Trim(safe, ".") == "" || slices.Contains([]string{"state", "meta", "cmd"}, safe) {
		safe += "_"
	}
	out := safe
	if taken != nil {
		out = unique(safe, taken)
	}
	if out != text {
		r.note(line, "%s %q is called %s", what, text, out)
	}
	return out
}

// bus returns the bus of that URL, a new one if there is none.
func (r *Result) bus(line int, name string, cfg modbus.BusConfig) (*bus, error) {
	for _, b := range r.buses {
		if b.cfg.URL == cfg.URL {
			if flow(b.pairs()) != flow((&bus{cfg: cfg}).pairs()) {
				r.note(line, "%s is set up differently elsewhere: the first holds for all on it", cfg.URL)
			}
			return b, nil
		}
	}
	if err := modbus.CheckBus(cfg); err != nil {
		return nil, err
	}
	b := &bus{cfg: cfg}
	b.name = unique(name, func(s string) bool { return slices.ContainsFunc(r.buses, func(b *bus) bool { return b.name == s }) })
	r.buses = append(r.buses, b)
	return b, nil
}

func unique(name string, taken func(string) bool) string {
	out := name
	for i := 2; taken(out); i++ {
		out = fmt.Sprintf("%s-%d", name, i)
	}
	return out
}

func (r *Result) device(line int, id string, b *bus, unit int) *device {
	d := &device{bus: b, unit: unit}
	d.id = r.name(line, id, "device", func(s string) bool { return slices.ContainsFunc(r.devices, func(d *device) bool { return d.id == s }) })
	r.devices = append(r.devices, d)
	return d
}

// group returns the name of the device's group of that interval.
func (r *Result) group(d *device, line int, name string, interval time.Duration) string {
	safe := (&Result{}).name(line, name, "", nil)
	for _, g := range d.groups {
		if g.name == safe {
			if g.interval != interval {
				r.note(line, "group %s is read every %v", g.name, g.interval)
			}
			return safe
		}
	}
	r.name(line, name, "group", nil)
	d.groups = append(d.groups, group{safe, interval})
	return safe
}

// tag adds a tag, or notes why not.
func (r *Result) tag(d *device, line int, t modbus.Tag) {
	name := t.Name
	if err := modbus.CheckTag(t); err != nil {
		r.leave(line, "%s: %v", name, strings.TrimPrefix(err.Error(), "modbus: "))
		return
	}
	t.Name = r.name(line, name, "tag", func(s string) bool {
		return slices.ContainsFunc(d.tags, func(t modbus.Tag) bool { return t.Name == s })
	})
	d.tags = append(d.tags, t)
}

// span reads a duration for a bus: what is not from least to most is noted.
func (r *Result) span(n *node, key string, read func(string) (time.Duration, error), least, most time.Duration) time.Duration {
	if n == nil {
		return 0
	}
	v, err := read(n.str())
	if err != nil || v != 0 && v < least || v > most {
		r.note(n.line, "%s %q is not carried over: it is none from %v to %v", key, n.text, least, most)
		return 0
	}
	return v
}

// checkInterval checks one that a file gives.
func checkInterval(v time.Duration) error {
	if v < 10*time.Millisecond || v > 30*24*time.Hour {
		return fmt.Errorf("interval %v is none from 10ms to 30 days", v)
	}
	return nil
}

// orderOf is the order of a value of so many registers; zero: of text.
func orderOf(letters string, registers int) string {
	swapped := letters == "BADC" || letters == "DCBA"
	switch {
	case registers == 1 && swapped:
		return "BA"
	case registers == 0 && swapped:
		return "BADC"
	case registers < 2 || letters == "ABCD":
		return ""
	}
	return letters
}
