package pki

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// A Clock tells the time that certificates are judged by: the machine's, but
// never one before the program was built or before a time that this gateway
// has seen for sure. So a clock that starts in 1970, or is turned back, makes
// no expired certificate valid again.
//
// A clock that jumps ahead must not count as seen, or good certificates would
// be refused for ever. Therefore a time is seen only if the cloud's certificate
// and ours were verified by it, and the clock then ran for an hour without a
// step. Such a time lies before the end of these certificates: they go on
// being accepted, and so are those that come after them.
//
// Its methods are safe for concurrent use.
type Clock struct {
	file string
	wall func() time.Time
	mono func() time.Duration // does not jump

	mu        sync.Mutex // covers the fields below
	built     time.Time
	seen      time.Time // on disk
	candidate time.Time // zero: none
	since     time.Duration
}

const (
	steadyFor = time.Hour   // a clock must run before it is believed
	clockStep = time.Minute // what a clock may be slewed by in that time
	seenEvery = day         // the file is written at most so often
)

// OpenClock reads when this gateway has seen the time last. An error is one to
// report: the clock works without that file.
func OpenClock(file string, built time.Time) (*Clock, error) {
	start := time.Now()
	c := &Clock{file: file, built: built, wall: time.Now, mono: func() time.Duration { return time.Since(start) }}
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return c, nil
	}
	if err == nil {
		c.seen, err = time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	}
	if err != nil {
		return c, fmt.Errorf("the time last seen is not known: %w; remove %s, it is made anew", err, file)
	}
	return c, nil
}

// Now is the time to judge certificates by.
func (c *Clock) Now() time.Time {
	now := c.wall()
	if floor := c.Floor(); now.Before(floor) {
		return floor
	}
	return now
}

// Floor is what Now never falls below.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen.After(c.built) {
		return c.seen
	}
	return c.built
}

// Behind says how far the machine's clock is behind the floor; zero: it is not.
func (c *Clock) Behind() time.Duration { return max(c.Floor().Sub(c.wall()), 0) }

// Verified says that certificates of both ends of a link were right by this
// clock, now.
func (c *Clock) Verified() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.candidate.IsZero() || c.stepped() {
		c.candidate, c.since = c.wall().Round(0), c.mono()
	}
}

// stepped says that the clock did not just run since the candidate. mu is held.
func (c *Clock) stepped() bool {
	off := c.wall().Round(0).Sub(c.candidate) - (c.mono() - c.since)
	return off.Abs() > clockStep
}

// Keep writes down the time that was verified, once the clock has proved to be
// steady; call it now and then. That is at most one small file a day.
func (c *Clock) Keep() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.candidate.IsZero():
		return nil
	case c.stepped():
		c.candidate = time.Time{}
		return nil
	case c.mono()-c.since < steadyFor:
		return nil
	}
	seen := c.candidate.UTC().Truncate(time.Second)
	c.candidate = time.Time{}
	if seen.Before(c.seen.Add(seenEvery)) || seen.Before(c.built) {
		return nil
	}
	if err := replace(c.file, []byte(seen.Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	c.seen = seen
	return nil
}

// timeOf is the time by now, or by the machine's clock if now is nil.
func timeOf(now func() time.Time) time.Time {
	if now == nil {
		return time.Now()
	}
	return now()
}
