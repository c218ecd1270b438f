package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// device is what the adapters under test talk to.
type device struct {
	broken atomic.Bool
	temp   atomic.Value // float64, if it was written
}

// adapter is sound, unless fault names a way to break the contract.
type adapter struct {
	device *device
	fault  string
}

type session struct {
	adapter
	closed chan struct{}
	once   sync.Once
	reads  int
}

func (a adapter) Open(ctx context.Context) (southbound.Session, error) {
	if err := ctx.Err(); err != nil && a.fault != "open ignores context" {
		return nil, err
	}
	if a.device.broken.Load() && a.fault != "open of broken succeeds" {
		return nil, errors.New("no route to device")
	}
	if a.fault == "no session" {
		return nil, nil
	}
	s := &session{adapter: a, closed: make(chan struct{})}
	if a.fault == "session dies with context" {
		context.AfterFunc(ctx, func() { s.once.Do(func() { close(s.closed) }) })
	}
	return s, nil
}

func (s *session) Tags() []southbound.Tag {
	tag := southbound.Tag{Name: "temp", Group: "fast", Type: "float64"}
	switch s.fault {
	case "no tags":
		return nil
	case "tag twice":
		return []southbound.Tag{tag, tag}
	case "tag without type":
		tag.Type = ""
	case "group with slash":
		tag.Group = "a/b"
	case "tag never read":
		return []southbound.Tag{tag, {Name: "flow", Group: "fast", Type: "int16"}}
	}
	return []southbound.Tag{tag}
}

func (s *session) Read(ctx context.Context) (southbound.Batch, error) {
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	closed, done := s.closed, ctx.Done()
	if s.fault == "read ignores close" {
		closed = nil
	}
	if s.fault == "read ignores context" {
		done = nil
	}
	select {
	case <-timer.C:
	case <-closed:
		return southbound.Batch{}, errors.New("session closed")
	case <-done:
		return southbound.Batch{}, ctx.Err()
	}
	if s.device.broken.Load() && s.fault != "last value when broken" && s.fault != "broken unnoticed" {
		return southbound.Batch{}, errors.New("connection lost")
	}
	s.reads++
	return s.batch(), nil
}

func (s *session) batch() southbound.Batch {
	now := time.Now()
	r := southbound.Reading{Tag: "temp", Value: 21.5, Quality: southbound.Good, Time: now}
	if temp := s.device.temp.Load(); temp != nil {
		r.Value = temp
	}
	b := southbound.Batch{Group: "fast", Time: now}
	switch s.fault {
	case "NaN":
		r.Value = math.NaN()
	case "int":
		r.Value = 21
	case "not UTF-8":
		r.Value = "\xff"
	case "no value":
		r.Value = nil
	case "value of bad quality":
		r.Quality = southbound.BadTimeout
	case "unknown quality":
		r.Quality, r.Value = 200, nil
	case "reading without time":
		r.Time = time.Time{}
	case "batch without time":
		b.Time = time.Time{}
	case "unknown tag":
		r.Tag = "other"
	case "empty group":
		b.Group = ""
	case "empty batch":
		return b
	case "never good":
		r.Quality = southbound.UncertainRange
	case "broken unnoticed":
		if s.device.broken.Load() {
			r.Time = now.Add(-time.Hour)
		}
	}
	b.Readings = append(b.Readings, r)
	if s.fault == "reading twice" {
		b.Readings = append(b.Readings, r)
	}
	return b
}

func (s *session) Write(ctx context.Context, cmd southbound.Command) error {
	value, ok := cmd.Value.(float64)
	late := !time.Now().Before(cmd.Deadline) && s.fault != "write forgets deadline"
	ended := ctx.Err() != nil && s.fault != "write ignores context"
	switch {
	case s.fault == "write accepts all":
		return nil
	case ended && s.fault == "write of ended context is unknown":
		return ctx.Err()
	case cmd.Tag != "temp" || late || ended || !ok && s.fault != "write forgets deadline":
		return fmt.Errorf("write %s: %w", cmd.Tag, southbound.ErrRejected)
	case s.device.broken.Load() && s.fault != "write to nobody":
		return errors.New("connection lost")
	case s.fault != "write does nothing":
		s.device.temp.Store(value)
	}
	return nil
}

func (s *session) Close() error {
	if s.fault == "goroutine stays" {
		go func() { <-time.NewTimer(10 * time.Second).C }()
	}
	if s.fault == "close blocks" {
		<-time.NewTimer(2 * prompt).C
	}
	s.once.Do(func() { close(s.closed) })
	return nil
}

func config(fault string) Config {
	d := new(device)
	return Config{
		New:     func(testing.TB) southbound.Adapter { return adapter{d, fault} },
		Break:   func() { d.broken.Store(true) },
		Mend:    func() { d.broken.Store(false) },
		Timeout: 200 * time.Millisecond,
		Written: map[string][]any{"temp": {1.5, -2.0}},
	}
}

func TestSoundAdapterPasses(t *testing.T) {
	Run(t, config(""))
}

// Each fault must be caught by the clause that is there for it.
func TestFaultyAdapterIsCaught(t *testing.T) {
	faults := map[string]string{
		"open ignores context":              "open_ends_with_context",
		"no session":                        "open_outlives_its_context",
		"session dies with context":         "open_outlives_its_context",
		"never good":                        "readings_are_valid",
		"no tags":                           "tags_are_declared",
		"tag twice":                         "tags_are_declared",
		"tag without type":                  "tags_are_declared",
		"group with slash":                  "tags_are_declared",
		"tag never read":                    "readings_are_valid",
		"NaN":                               "readings_are_valid",
		"int":                               "readings_are_valid",
		"not UTF-8":                         "readings_are_valid",
		"no value":                          "readings_are_valid",
		"value of bad quality":              "readings_are_valid",
		"unknown quality":                   "readings_are_valid",
		"reading without time":              "readings_are_valid",
		"batch without time":                "readings_are_valid",
		"unknown tag":                       "readings_are_valid",
		"empty group":                       "readings_are_valid",
		"empty batch":                       "readings_are_valid",
		"reading twice":                     "readings_are_valid",
		"read ignores context":              "read_ends_with_context",
		"read ignores close":                "close_unblocks_read",
		"close blocks":                      "close_unblocks_read",
		"goroutine stays":                   "close_releases_goroutines",
		"last value when broken":            "broken_device_gives_no_value",
		"broken unnoticed":                  "broken_device_gives_no_value",
		"open of broken succeeds":           "open_of_broken_device_fails",
		"write accepts all":                 "write_rejects_surely",
		"write forgets deadline":            "write_rejects_surely",
		"write does nothing":                "write_arrives",
		"write ignores context":             "write_ends_with_context",
		"write of ended context is unknown": "write_ends_with_context",
		"write to nobody":                   "write_of_broken_device_fails",
	}
	for fault, clause := range faults {
		t.Run(fault, func(t *testing.T) {
			caught := false
			for _, c := range contract() {
				if c.name == clause {
					cfg := config(fault)
					err := c.run(cfg, cfg.New(t))
					t.Log(err)
					caught = err != nil
				}
			}
			if !caught {
				t.Errorf("%s let it pass", clause)
			}
		})
	}
}

func TestNeverMendedIsCaught(t *testing.T) {
	cfg := config("")
	cfg.Mend = func() {}
	if err := mendedReadsAgain(cfg, cfg.New(t)); err == nil {
		t.Error("a device that stays broken passed as mended")
	}
}
