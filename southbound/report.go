package southbound

import (
	"math"
	"slices"
	"time"
)

// When says when a tag that was read is published.
type When string

// The ways to report. A first value and a change of quality are always
// published. The zero value is ChangeHeartbeat for tags of type bool, bit and
// string and for those with a deadband, and Always for others.
const (
	Always          When = "always"
	Change          When = "change"
	ChangeHeartbeat When = "change+heartbeat"
)

// A Report is the rule by which a tag is published.
type Report struct {
	When            When
	Deadband        float64       // a number changed when it is further than that from what was published last
	DeadbandPercent float64       // the same, of the tag's range
	Heartbeat       time.Duration // zero: 15 min
	MinInterval     time.Duration // between two messages, but for changes of quality
}

const defaultHeartbeat = 15 * time.Minute

// A Range is where a number is to be expected. What lies outside is
// UncertainRange. Low not below High: anywhere.
type Range struct{ Low, High float64 }

func (r Range) declared() bool { return r.Low < r.High }

// tagState is what is known of a tag since Run began.
type tagState struct {
	tag       Tag
	topic     string  // its own, if tags have topics; empty: not made yet
	published Reading // last; its time is when that was. Zero time: never
	known     Reading // last with a value
	failed    int     // polls without a value since
}

// A reporter decides what of that which was read is published, and how good it
// is.
type reporter struct {
	device *Device
	tags   map[string]*tagState
}

// describe takes over the tags of a session, and keeps what is known of them.
func (r *reporter) describe(tags []Tag) {
	old := r.tags
	r.tags = make(map[string]*tagState, len(tags))
	for _, tag := range tags {
		if tag.Report == (Report{}) {
			tag.Report = r.device.Report
		}
		st := old[tag.Name]
		if st == nil {
			st = new(tagState)
		}
		st.tag = tag
		r.tags[tag.Name] = st
	}
}

func (r *reporter) state(name string) *tagState {
	st := r.tags[name]
	if st == nil { // of a session that lists too little
		st = &tagState{tag: Tag{Name: name, Report: r.device.Report}}
		r.tags[name] = st
	}
	return st
}

// judge settles the qualities of readings that are settled, in place: what lies
// outside its range, what is old, and what failed too seldom to be bad. It
// returns whether any has a value.
func (r *reporter) judge(b *Batch) (alive bool) {
	for i := range b.Readings {
		reading := &b.Readings[i]
		st := r.state(reading.Tag)
		switch {
		case reading.Quality.HasValue():
			st.failed = 0
			st.rate(reading, b.Time, r.device.StaleAfter[b.Group])
			st.known = *reading
			if st.known.Time.IsZero() {
				st.known.Time = b.Time
			}
		case lasting(reading.Quality):
			st.known = Reading{}
		default:
			if st.failed++; st.failed <= r.device.LazyErrors && st.known.Value != nil {
				reading.Value, reading.Quality, reading.Time = st.known.Value, UncertainStale, st.known.Time
			}
		}
		alive = alive || reading.Quality.HasValue()
	}
	return alive
}

// lasting qualities are what the device or the configuration says: no value of
// before stands in for them.
func lasting(q Quality) bool {
	return q == BadAddress || q == BadFunction || q == BadSensor || q == BadDisabled || q == BadInit
}

// rate lowers a good quality that the range or the time does not bear out.
func (st *tagState) rate(r *Reading, now time.Time, staleAfter time.Duration) {
	if r.Quality != Good {
		return
	}
	if v, ok := number(r.Value); ok && st.tag.Range.declared() && (v < st.tag.Range.Low || v > st.tag.Range.High) {
		r.Quality = UncertainRange
	}
	if staleAfter > 0 && !r.Time.IsZero() && now.Sub(r.Time) > staleAfter {
		r.Quality = UncertainStale
	}
}

// due removes what is not to be published from readings, in place.
func (r *reporter) due(b *Batch) {
	b.Readings = slices.DeleteFunc(b.Readings, func(reading Reading) bool {
		return !r.state(reading.Tag).due(&reading, b.Time)
	})
}

func (st *tagState) due(r *Reading, now time.Time) bool {
	last, rule := &st.published, &st.tag.Report
	if last.Time.IsZero() || last.Quality != r.Quality {
		return true
	}
	since := now.Sub(last.Time)
	if since < 0 { // the clock was set back
		return true
	}
	heartbeat := rule.Heartbeat
	if heartbeat <= 0 {
		heartbeat = defaultHeartbeat
	}
	switch when := st.when(); {
	case since < rule.MinInterval:
		return false
	case when == Always:
		return true
	case when == ChangeHeartbeat && since >= heartbeat:
		return true
	}
	return st.changed(last.Value, r.Value)
}

func (st *tagState) when() When {
	rule := &st.tag.Report
	switch {
	case rule.When != "":
		return rule.When
	case rule.Deadband > 0 || rule.DeadbandPercent > 0,
		st.tag.Type == "bool" || st.tag.Type == "bit" || st.tag.Type == "string":
		return ChangeHeartbeat
	}
	return Always
}

func (st *tagState) changed(before, now any) bool {
	rule := &st.tag.Report
	deadband := rule.Deadband
	if st.tag.Range.declared() {
		deadband = max(deadband, (st.tag.Range.High-st.tag.Range.Low)*rule.DeadbandPercent/100)
	}
	a, isNumber := number(before)
	b, still := number(now)
	if isNumber && still && deadband > 0 {
		return math.Abs(a-b) > deadband
	}
	return !sameValue(before, now)
}

// note remembers what was published.
func (r *reporter) note(b *Batch) {
	for i := range b.Readings {
		reading := b.Readings[i]
		reading.Time = b.Time
		r.state(reading.Tag).published = reading
	}
}

// stale returns the readings of a group that have a value and are not marked as
// old, marked so.
func (r *reporter) stale(tags []Tag, group string) (all []Reading) {
	for _, tag := range tags {
		if tag.Group != group {
			continue
		}
		st := r.state(tag.Name)
		if st.known.Value != nil && st.published.Quality.HasValue() && st.published.Quality != UncertainStale {
			all = append(all, Reading{Tag: tag.Name, Value: st.known.Value, Quality: UncertainStale, Time: st.known.Time})
		}
	}
	return all
}
