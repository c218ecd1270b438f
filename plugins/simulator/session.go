package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

var errUnplugged = errors.New("the simulated device is unplugged")

// session is a running device. It begins anew with every Open.
type session struct {
	adapter
	began  time.Time
	tick   *time.Ticker
	noise  *rand.Rand
	polls  uint64 // of group process
	next   []string
	closed chan struct{}

	mu    sync.Mutex // covers valve, which Write sets while Read waits
	valve bool
}

func (a adapter) Open(context.Context) (southbound.Session, error) {
	if a.isUnplugged() {
		return nil, errUnplugged
	}
	slog.Info("simulated device opened", "interval", a.interval.String(), "tags", len(a.tags))
	return &session{
		adapter: a,
		began:   time.Now(),
		tick:    time.NewTicker(a.interval),
		noise:   rand.New(rand.NewPCG(a.seed, a.seed)),
		closed:  make(chan struct{}),
	}, nil
}

func (a adapter) isUnplugged() bool {
	if a.unplugged == "" {
		return false
	}
	_, err := os.Lstat(a.unplugged)
	return err == nil
}

func (s *session) Tags() []southbound.Tag { return s.tags }

// Read delivers group process at every tick and group status right after every
// fifth, beginning with the first. A group without tags is left out.
func (s *session) Read(ctx context.Context) (southbound.Batch, error) {
	for len(s.next) == 0 {
		select {
		case <-ctx.Done():
			return southbound.Batch{}, ctx.Err()
		case <-s.closed:
			return southbound.Batch{}, errors.New("session closed")
		case <-s.tick.C:
		}
		s.due()
	}
	if s.isUnplugged() {
		return southbound.Batch{}, errUnplugged
	}
	group := s.next[0]
	s.next = s.next[1:]
	return s.poll(group), nil
}

// due lists the groups of this tick.
func (s *session) due() {
	groups := []string{process}
	if s.polls%slower == 0 {
		groups = append(groups, status)
	}
	s.polls++
	for _, group := range groups {
		if slices.ContainsFunc(s.tags, func(t southbound.Tag) bool { return t.Group == group }) {
			s.next = append(s.next, group)
		}
	}
}

func (s *session) poll(group string) southbound.Batch {
	batch := southbound.Batch{Group: group, Time: time.Now()}
	for _, tag := range s.tags {
		if tag.Group == group {
			batch.Readings = append(batch.Readings, southbound.Reading{
				Tag: tag.Name, Value: s.value(tag.Name, batch.Time), Quality: southbound.Good, Time: batch.Time,
			})
		}
	}
	return batch
}

func (s *session) value(tag string, now time.Time) any {
	s.mu.Lock()
	open := s.valve
	s.mu.Unlock()
	switch tag {
	case "temperature": // a slow swing of 10 K around 70 °C, with noise
		phase := 2 * math.Pi * now.Sub(s.began).Seconds() / 60
		return math.Round(1000*(70+5*math.Sin(phase)+s.noise.NormFloat64()/10)) / 1000
	case "counter":
		return s.polls
	case "valve":
		return open
	default:
		if open {
			return "filling"
		}
		return "idle"
	}
}

// Write opens and closes the valve; everything else is read only.
func (s *session) Write(ctx context.Context, cmd southbound.Command) error {
	open, ok := cmd.Value.(bool)
	if cmd.Tag != "valve" || !ok {
		return fmt.Errorf("set %s to %v: only valve can be set, to true or false: %w",
			cmd.Tag, cmd.Value, southbound.ErrRejected)
	}
	if ctx.Err() != nil || !cmd.Deadline.IsZero() && !time.Now().Before(cmd.Deadline) {
		return fmt.Errorf("set valve: too late: %w", southbound.ErrRejected)
	}
	if s.isUnplugged() {
		return fmt.Errorf("set valve: %w: %w", errUnplugged, southbound.ErrRejected)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valve = open
	return nil
}

func (s *session) Close() error {
	s.tick.Stop()
	close(s.closed)
	return nil
}
