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

// A session polls the groups of one unit, each at start + n*interval.
type session struct {
	adapter *adapter
	start   time.Time // with its monotonic reading: the schedule knows no clock changes
	groups  []group
	unit    health
	noMask  atomic.Bool // the unit knows no function 22

	mu     sync.Mutex // covers what follows
	closed bool
	cancel context.CancelFunc // of the Read under way, or nil
}

// A group is a groupPlan with what this session learned.
type group struct {
	*groupPlan
	blocks []liveBlock
	due    time.Time
}

// A liveBlock is a block that may be known to fail.
type liveBlock struct {
	block
	refused southbound.Quality // while now is before retry
	retry   time.Time
}

var errSessionClosed = errors.New("session closed")

func newSession(a *adapter) *session {
	s := &session{adapter: a, start: time.Now()}
	for i := range a.groups {
		g := group{groupPlan: &a.groups[i], due: s.start}
		for _, b := range g.groupPlan.blocks {
			g.blocks = append(g.blocks, liveBlock{block: b})
		}
		s.groups = append(s.groups, g)
	}
	return s
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
	if err := wait(ctx, time.Until(g.due)); err != nil {
		return southbound.Batch{}, err
	}
	g.due = s.following(g.due, g.Interval)
	readings, err := s.poll(ctx, g)
	if err != nil {
		return southbound.Batch{}, err
	}
	return southbound.Batch{Group: g.Name, Time: time.Now(), Readings: readings}, nil
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

// following returns when a group that was due is due again. Times that have
// passed altogether are skipped and counted: after a stall a group is polled
// once, and then on its old beat.
func (s *session) following(due time.Time, interval time.Duration) time.Time {
	late := time.Since(due)
	missed := max(0, late/interval)
	s.adapter.bus.counters.overruns.Add(uint64(missed))
	return due.Add((missed + 1) * interval)
}
