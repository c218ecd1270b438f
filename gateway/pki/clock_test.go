package pki

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A testClock is a machine's clock, and how long the machine has run.
type testClock struct {
	wall time.Time
	mono time.Duration
}

func (c *testClock) run(d time.Duration) { c.wall, c.mono = c.wall.Add(d), c.mono+d }
func (c *testClock) step(d time.Duration) {
	c.wall = c.wall.Add(d)
}

func (c *testClock) open(t *testing.T, file string, built time.Time) *Clock {
	t.Helper()
	clock, err := OpenClock(file, built)
	if err != nil {
		t.Fatal(err)
	}
	clock.wall, clock.mono = func() time.Time { return c.wall }, func() time.Duration { return c.mono }
	return clock
}

func keep(t *testing.T, c *Clock) {
	t.Helper()
	if err := c.Keep(); err != nil {
		t.Fatal(err)
	}
}

var (
	built   = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	present = time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
)

func TestClockWrongAtBoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	m := &testClock{wall: time.Unix(0, 0).UTC()}
	c := m.open(t, file, built)
	if !c.Now().Equal(built) || c.Behind() == 0 {
		t.Errorf("in 1970 it is %v, behind by %v", c.Now(), c.Behind())
	}
	m.step(present.Sub(m.wall)) // a time server answers
	if !c.Now().Equal(present) || c.Behind() != 0 {
		t.Errorf("now it is %v, behind by %v", c.Now(), c.Behind())
	}
	c.Verified()
	m.run(59 * time.Minute)
	keep(t, c)
	if _, err := os.Stat(file); err == nil {
		t.Error("a clock that ran for less than an hour was believed")
	}
	m.run(2 * time.Minute)
	keep(t, c)
	again := (&testClock{wall: time.Unix(0, 0)}).open(t, file, built)
	if !again.Now().Equal(present) {
		t.Errorf("after the next boot in 1970 it is %v, want %v", again.Now(), present)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// A clock that jumps to 2099 and back leaves nothing behind, whether somebody
// was verified by it or not.
func TestClockFarAhead(t *testing.T) {
	for name, verified := range map[string]bool{"nobody was verified": false, "somebody was": true} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "clock")
			m := &testClock{wall: present}
			c := m.open(t, file, built)
			c.Verified()
			m.run(2 * time.Hour)
			keep(t, c)
			m.step(73 * 365 * day)
			if verified {
				c.Verified()
			}
			for range 50 { // minutes: less than an hour
				m.run(time.Minute)
				keep(t, c)
			}
			m.step(-73 * 365 * day)
			for range 48 {
				m.run(time.Hour)
				keep(t, c)
			}
			if !c.Floor().Equal(present) || !c.Now().Equal(m.wall) {
				t.Errorf("the floor is %v, and it is %v", c.Floor(), c.Now())
			}
		})
	}
}

// What was seen lies before the end of the certificates that it was seen by, so
// it refuses none of them.
func TestClockNeverRefusesWhatItWasSeenBy(t *testing.T) {
	h := newHouse(t)
	end := time.Now().Add(30 * time.Minute)
	cert, key := h.sign("link", newKey(t), nil)
	h.sign("cloud", newKey(t), nil)
	m := &testClock{wall: end}
	c := m.open(t, h.file("clock"), time.Time{})
	files := ClientFiles{CA: h.file(CACertificate), Certificate: cert, Key: key, Now: c.Now}
	if _, err := Client(files)("gate.example"); err != nil {
		t.Fatal(err)
	}
	c.Verified()
	m.run(2 * time.Hour)
	if _, err := Client(files)("gate.example"); err == nil {
		t.Error("the certificate that has ended is used")
	}
	keep(t, c)
	m.step(-3 * time.Hour) // it had been ahead
	if c.Behind() == 0 {
		t.Fatal("the time was not seen")
	}
	if _, err := Client(files)("gate.example"); err != nil {
		t.Errorf("refused by a time that it was seen by: %v", err)
	}
}

func TestClockIsWrittenOnceADay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	m := &testClock{wall: present}
	c := m.open(t, file, built)
	writes, last := 0, ""
	for range 30 * 24 * 60 { // minutes of a month in which the link comes and goes
		m.run(time.Minute)
		if m.mono%(7*time.Minute) == 0 {
			c.Verified()
		}
		keep(t, c)
		if text, _ := os.ReadFile(file); string(text) != last {
			writes, last = writes+1, string(text)
		}
	}
	if writes < 25 || writes > 30 {
		t.Errorf("written %d times in 30 days", writes)
	}
}

func TestClockFileDamaged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(file, []byte("\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := OpenClock(file, built)
	if err == nil || !c.Floor().Equal(built) {
		t.Errorf("floor %v, error %v", c.Floor(), err)
	}
}
