package modbus

import "time"

// turnaround is what a unit on a serial line takes to begin its answer, and the
// silences around both frames aside, about what common devices need.
const turnaround = 10 * time.Millisecond

// Load returns which share of a serial line's time its polls take when all goes
// well, 1 being all of it. Where the speed is not known, on networks and behind
// a converter without baud, it is zero.
func Load(cfg BusConfig, devices []DeviceConfig) (float64, error) {
	b, err := NewBus(cfg)
	if err != nil {
		return 0, err
	}
	t := b.endpoints[0].transport
	if t.numbered || !t.serial() && cfg.Serial.Baud == 0 {
		return 0, nil
	}
	var load float64
	for _, d := range devices {
		a, err := b.adapter(d)
		if err != nil {
			return 0, err
		}
		for _, g := range a.groups {
			load += float64(busTime(plan(g.items, nil, a.reach), t.framing, cfg.Serial)) / float64(g.Interval)
		}
	}
	return load, nil
}

// busTime is how long requests keep a serial line busy.
func busTime(blocks []block, f framing, s Serial) time.Duration {
	var total time.Duration
	for _, b := range blocks {
		size := 2 * int(b.quantity)
		if b.table.bits() {
			size = (int(b.quantity) + 7) / 8
		}
		chars := f.chars(1+5) + f.chars(1+2+size)
		total += time.Duration(chars)*s.character() + 2*s.silence() + turnaround
	}
	return total
}
