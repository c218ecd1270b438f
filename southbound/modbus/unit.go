package modbus

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/goburrow/modbus"
)

// A unit is what a bus knows of one: whether it answers. A single answer missed
// is forgiven, except to those that never gave one. After that the unit is left
// alone for a while that doubles from 1 s to 60 s.
type unit struct {
	heard  bool // since it was last taken for new
	missed int  // in a row
	pause  time.Duration
	until  time.Time
}

const (
	defaultMaxDeadTime = 0.1
	longestPause       = time.Minute
	lonelyPause        = 4 * time.Second // the longest while no unit answers: then nobody is kept waiting
)

func (u *unit) dead() bool { return u.missed >= 2 || u.missed == 1 && !u.heard }

// mayPoll says whether a unit is worth asking now, and how urgently. Those that
// do not answer are asked when their pause is over and the bus has spent no more
// than its share of time on such.
func (b *Bus) mayPoll(number byte) (rank, bool) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.unit(number)
	switch {
	case !u.dead() && u.heard && u.missed == 0:
		return toPoll, true
	case !u.dead():
		return toProbe, true
	case now.Before(u.until):
		return toProbe, false
	case !b.anyAnswers():
		return toProbe, true
	}
	return toProbe, b.debtAt(now) == 0
}

// unit returns what is known of one, with b.mu held.
func (b *Bus) unit(number byte) *unit {
	u := b.units[number]
	if u == nil {
		u = new(unit)
		b.units[number] = u
	}
	return u
}

func (b *Bus) anyAnswers() bool {
	for _, u := range b.units {
		if u.heard && !u.dead() {
			return true
		}
	}
	return false
}

// debtAt is how much time the units that do not answer owe to the others: it is
// paid back by their share of the time that passes.
func (b *Bus) debtAt(now time.Time) time.Duration {
	share := float64(b.lines) * b.cfg.MaxDeadTime
	b.debt = max(0, b.debt-time.Duration(share*float64(now.Sub(b.debtSince))))
	b.debtSince = now
	return b.debt
}

// judge notes what came of a request to a unit, and how long it took.
func (b *Bus) judge(number byte, err error, took time.Duration) {
	var exception *modbus.ModbusError
	switch {
	case err == nil:
		b.heard(number)
	case errors.Is(err, errTimeout):
		b.missed(number, took)
	case !errors.As(err, &exception): // broken, or garbled: that says nothing of the unit
	case unreached(exception):
		b.missed(number, took)
	default:
		b.heard(number)
	}
}

// unreached reports whether it is a gateway that says so, of a unit that it
// cannot ask: exceptions 10 and 11.
func unreached(e *modbus.ModbusError) bool {
	return e.ExceptionCode == modbus.ExceptionCodeGatewayPathUnavailable || e.ExceptionCode == modbus.ExceptionCodeGatewayTargetDeviceFailedToRespond
}

// heard notes that a unit answered, if only with an exception. The first answer
// after none at all makes every unit new: the cable is back.
func (b *Bus) heard(number byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := b.unit(number); u.dead() && !b.anyAnswers() {
		clear(b.units)
	}
	*b.unit(number) = unit{heard: true}
}

// missed notes that a unit did not answer, and how long that took.
func (b *Bus) missed(number byte, took time.Duration) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.debt = b.debtAt(now) + took
	u := b.unit(number)
	if u.missed++; !u.dead() {
		return
	}
	longest := longestPause
	if !b.anyAnswers() {
		longest = lonelyPause
	}
	u.pause = min(max(2*u.pause, time.Second), longest)
	u.until = now.Add(u.pause/2 + rand.N(u.pause/2))
}

// renew takes every unit for new, after the bus could not be reached.
func (b *Bus) renew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.units)
}

// silentUnits is how many are left alone because they do not answer.
func (b *Bus) silentUnits() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, u := range b.units {
		if u.dead() {
			n++
		}
	}
	return n
}
