package modbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// DeviceConfig describes one unit on a bus.
type DeviceConfig struct {
	Unit   byte
	Groups []Group
	Tags   []Tag // in the order in which they are published

	// MaxGap is how many registers that nobody wants a request may cover
	// between two that somebody does. Zero is 16 on serial lines and 50 on
	// networks; below zero joins only what is adjacent.
	MaxGap int
	// MaxRegisters is the most the device gives at once; sixteen bits count
	// as one. Zero is 125.
	MaxRegisters int
	// Holes are what the device does not give, not even beside others.
	Holes []Hole
	// Retries is how often a request is repeated that a unit did not answer
	// which answered before. Zero is 1; below zero is never.
	Retries int

	// ForceFC15 and ForceFC16 are for devices that know no function code 5,
	// or 6: one bit, or register, is written like several.
	ForceFC15, ForceFC16 bool
}

// A Group is tags that are polled together.
type Group struct {
	Name     string
	Interval time.Duration
	Wall     bool          // at whole intervals of the clock on the wall, in UTC
	Phase    time.Duration // after the beat; zero: the bus spreads its groups, but those on the wall clock
}

// adapter is one unit of a bus. But for what it learned it is never changed.
type adapter struct {
	bus     *Bus
	unit    byte
	groups  []groupPlan // those that have tags
	tags    []southbound.Tag
	reach   reach
	retries int

	forceFC15, forceFC16 bool

	mu      sync.Mutex // covers learned
	learned []learnedHole
}

type groupPlan struct {
	Group
	fields []field
	items  []item
}

// A learnedHole was found by splitting a request that was refused.
type learnedHole struct {
	Hole
	between bool // tags, and no tag itself
}

// Adapter checks cfg and returns an adapter for one unit of the bus. It does no
// I/O. Several adapters may use one bus, also for the same unit.
func (b *Bus) Adapter(cfg DeviceConfig) (southbound.Adapter, error) {
	a, err := b.adapter(cfg)
	if err != nil {
		return nil, err // and no adapter that is not nil
	}
	return a, nil
}

// CheckDevice says what is wrong with cfg as a whole, or nothing.
func CheckDevice(cfg DeviceConfig) error {
	_, err := new(Bus).adapter(cfg)
	return err
}

func (b *Bus) adapter(cfg DeviceConfig) (*adapter, error) {
	if cfg.MaxGap == 0 {
		cfg.MaxGap = defaultMaxGap
		if len(b.endpoints) > 0 && b.endpoints[0].transport.numbered {
			cfg.MaxGap = networkMaxGap
		}
	}
	if cfg.MaxRegisters == 0 {
		cfg.MaxRegisters = maxRegisters
	}
	if cfg.MaxRegisters < 1 || cfg.MaxRegisters > maxRegisters {
		return nil, fmt.Errorf("modbus: at most %d registers a request is impossible; give 1 to %d", cfg.MaxRegisters, maxRegisters)
	}
	a := &adapter{bus: b, unit: cfg.Unit, forceFC15: cfg.ForceFC15, forceFC16: cfg.ForceFC16, retries: max(0, cfg.Retries), reach: reach{max(0, cfg.MaxGap), cfg.MaxRegisters, cfg.Holes}}
	if cfg.Retries == 0 {
		a.retries = 1
	}
	if err := a.addGroups(cfg); err != nil {
		return nil, err
	}
	if err := a.addTags(cfg); err != nil {
		return nil, err
	}
	used := a.groups[:0]
	for _, g := range a.groups {
		if err := g.linkScales(); err != nil {
			return nil, err
		}
		if len(g.fields) > 0 {
			if err := g.checkSets(a.reach.limit); err != nil {
				return nil, err
			}
			g.items = items(g.fields)
			if g.Phase == 0 && !g.Wall {
				g.Phase = spread(b.groups.Add(1)-1, g.Interval)
			}
			used = append(used, g)
		}
	}
	a.groups = used
	return a, nil
}

// reachNow is how far requests may go, as far as is known.
func (a *adapter) reachNow() reach {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.reach
	r.holes = slices.Clone(r.holes)
	for _, h := range a.learned {
		r.holes = append(r.holes, h.Hole)
	}
	return r
}

// maxLearned bounds what is learned of a device that answers as it likes.
const maxLearned = 1000

func (a *adapter) learn(h Hole, between bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if learned := (learnedHole{h, between}); len(a.learned) < maxLearned && !slices.Contains(a.learned, learned) {
		a.learned = append(a.learned, learned)
	}
}

// Holes lists what was found not to exist between tags, for the configuration.
func (a *adapter) Holes() []Hole {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Hole
	for _, h := range a.learned {
		if h.between && h.To >= h.From {
			all = append(all, h.Hole)
		}
	}
	slices.SortFunc(all, func(a, b Hole) int { return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.From, b.From)) })
	return all
}

func (a *adapter) addGroups(cfg DeviceConfig) error {
	for _, g := range cfg.Groups {
		if a.group(g.Name) != nil {
			return fmt.Errorf("modbus: group %q is given twice; rename one", g.Name)
		}
		if g.Interval <= 0 {
			return fmt.Errorf("modbus: group %q has the interval %v; give 1s for example", g.Name, g.Interval)
		}
		a.groups = append(a.groups, groupPlan{Group: g})
	}
	return nil
}

func (a *adapter) addTags(cfg DeviceConfig) error {
	if len(cfg.Tags) == 0 {
		return errors.New("modbus: a device without tags has nothing to read; add tags")
	}
	names := make(map[string]bool)
	sets := make(map[string]string)
	for _, tag := range cfg.Tags {
		if tag.Name == "" {
			return errors.New("modbus: a tag has no name; give it one")
		}
		g := a.group(tag.Group)
		if g == nil {
			return fmt.Errorf("modbus: tag %q is in group %q, which does not exist; add the group", tag.Name, tag.Group)
		}
		if group, known := sets[tag.Atomic]; known && tag.Atomic != "" && group != tag.Group {
			return fmt.Errorf("modbus: the atomic set %q has tags of the groups %s and %s, which are read apart; make two sets", tag.Atomic, group, tag.Group)
		}
		sets[tag.Atomic] = tag.Group
		fields, err := compile(tag)
		if err != nil {
			return fmt.Errorf("modbus: tag %q: %w", tag.Name, err)
		}
		for _, f := range fields {
			if names[f.Name] {
				return fmt.Errorf("modbus: tag name %q is given twice; rename it", f.Name)
			}
			names[f.Name] = true
			if f.size > cfg.MaxRegisters {
				return fmt.Errorf("modbus: tag %q needs %d registers at once; raise max_registers", f.Name, f.size)
			}
			g.fields = append(g.fields, f)
			a.tags = append(a.tags, southbound.Tag{Name: f.Name, Group: f.Group, Type: f.published(), Unit: f.Unit, Range: f.Range, Report: f.Report})
		}
	}
	return nil
}

// checkSets says which atomic set cannot be read in one request.
func (g *groupPlan) checkSets(limit int) error {
	tables := make(map[string]Table)
	for i := range g.fields {
		f := &g.fields[i]
		if table, known := tables[f.Atomic]; f.Atomic != "" && known && table != f.Table {
			return fmt.Errorf("modbus: the atomic set %q has tags in the tables %s and %s: no request reads both; make two sets", f.Atomic, table, f.Table)
		}
		tables[f.Atomic] = f.Table
	}
	for _, it := range items(g.fields) {
		most := limit
		if it.table.bits() {
			most *= 16
		}
		if name := g.fields[it.fields[0]].Atomic; it.size > most {
			return fmt.Errorf("modbus: the atomic set %q needs %d at once and the device gives %d; leave out tags that lie far away", name, it.size, most)
		}
	}
	return nil
}

// linkScales finds the tags that hold the powers of ten of others.
func (g *groupPlan) linkScales() error {
	for i := range g.fields {
		f := &g.fields[i]
		if f.ScaleFrom == "" {
			continue
		}
		f.from = slices.IndexFunc(g.fields, func(other field) bool { return other.Name == f.ScaleFrom })
		if f.from < 0 || f.from == i || !g.fields[f.from].power() {
			return fmt.Errorf("modbus: tag %q takes its scale from %q, which is no signed integer of group %q; name one, with neither scale nor labels",
				f.Name, f.ScaleFrom, g.Name)
		}
	}
	return nil
}

func (a *adapter) group(name string) *groupPlan {
	for i := range a.groups {
		if a.groups[i].Name == name {
			return &a.groups[i]
		}
	}
	return nil
}

// Open connects the bus if it is not connected. It does not ask whether the
// unit answers: if not, its tags say so.
func (a *adapter) Open(ctx context.Context) (southbound.Session, error) {
	if err := a.bus.open(ctx); err != nil {
		return nil, err
	}
	return newSession(a), nil
}
