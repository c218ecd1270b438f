package modbus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// A session polls the groups of one unit.
type session struct {
	adapter *adapter
	groups  []group
	refused map[Table]time.Time // that the unit does not serve, and when to ask again
	noMask  atomic.Bool         // the unit knows no function 22

	mu     sync.Mutex // covers what follows
	closed bool
	cancel context.CancelFunc // of the Read under way, or nil
}

// A group is a groupPlan with what this session learned.
type group struct {
	*groupPlan
	beat
	blocks []block
	apart  map[int]time.Time // items that were refused, and when to ask again
}

var errSessionClosed = errors.New("session closed")

func newSession(a *adapter) *session {
	s := &session{adapter: a, refused: make(map[Table]time.Time)}
	now := time.Now()
	for i := range a.groups {
		g := &a.groups[i]
		s.groups = append(s.groups, group{groupPlan: g, apart: make(map[int]time.Time),
			beat: beat{interval: g.Interval, phase: g.Phase, wall: g.Wall, start: a.bus.start, due: now}})
	}
	s.replan()
	return s
}

// replan lays out all requests, after something was learned.
func (s *session) replan() {
	r := s.adapter.reachNow()
	for i := range s.groups {
		g := &s.groups[i]
		g.blocks = plan(g.items, g.apart, r)
	}
}

func (s *session) Tags() []southbound.Tag { return slices.Clone(s.adapter.tags) }

func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.cancel != nil {
		s.cancel()
	}
	return nil
}

func (s *session) Read(ctx context.Context) (southbound.Batch, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !s.begin(cancel) {
		return southbound.Batch{}, errSessionClosed
	}
	g := s.next()
	if err := g.wait(ctx); err != nil {
		return southbound.Batch{}, err
	}
	deadline := g.due.Add(g.interval)
	due := g.due
	late, missed := g.advance(time.Now())
	s.adapter.bus.counters.overruns.Add(uint64(missed))
	r := &round{session: s, group: g, turn: turn{unit: int(s.adapter.unit), deadline: deadline}}
	if err := r.poll(ctx); err != nil {
		return southbound.Batch{}, err
	}
	if !r.turn.granted.IsZero() {
		late = max(late, r.turn.granted.Sub(due))
	}
	return southbound.Batch{Group: g.Name, Time: time.Now(), Late: late, Missed: missed, Readings: r.readings}, nil
}

// begin notes how to interrupt the Read under way. It returns false after Close.
func (s *session) begin(cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel = cancel
	return !s.closed
}

// next returns the group that is due first.
func (s *session) next() *group {
	first := &s.groups[0]
	for i := range s.groups {
		if s.groups[i].due.Before(first.due) {
			first = &s.groups[i]
		}
	}
	return first
}
