package northbound

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is a snapshot for people and metrics. Counts are since NewLink.
type Stats struct {
	Connected   bool
	Since       time.Time // of the present state
	Server      string    // host:port of the present or last connection
	Reconnects  uint64    // connections after the first
	LastError   string    // why the link went or is down; empty after a connect
	LastErrorAt time.Time

	Sent        uint64 // PUBLISH packets, repeats included
	Acked       uint64 // acknowledged by the cloud, or written at QoS 0
	InFlight    int    // sent and not acknowledged
	Replayed    uint64 // sent with hg-replay, repeats included
	BytesIn     uint64 // of TCP, TLS and its handshakes included
	BytesOut    uint64
	Backlog     uint64 // messages that are behind: with live places what waited when the link came up, without them all that wait
	BacklogAtUp uint64 // what that was when the link came up; 0: it is down
	Skipped     uint64 // no rule or route lets them leave any more
	Expired     uint64 // too old when their turn came
	Quarantined uint64
	Refused     map[byte]uint64 // by the cloud's reason code, each refusal counted

	Received uint64 // handed on
	Unwanted uint64 // from the cloud: retained and not asked for, without a route, or with an impossible name
	Looped   uint64 // came back from the cloud with this gateway's hg-id, or through too many gateways
}

// Drop is why a message was not delivered.
type Drop byte

// The three reasons.
const (
	Forbidden Drop = iota + 1 // no rule or route lets it leave any more
	Expired                   // too old when its turn came
	Refused                   // the cloud does not take it
)

// String is the word for people and metrics.
func (d Drop) String() string {
	return [...]string{"", "forbidden", "expired", "refused"}[d]
}

type status struct {
	sent, acked, skipped, expired, quarantined atomic.Uint64
	received, unwanted, looped, replayed       atomic.Uint64
	bytesIn, bytesOut                          atomic.Uint64

	mu          sync.Mutex // covers the fields below
	window      *window    // of the present connection; nil when down
	since       time.Time
	server      string
	connects    uint64
	backlog     uint64 // when the link came up
	lastError   string
	lastErrorAt time.Time
	reported    string // the last reason that was logged
	refused     map[byte]uint64

	quarantineLog, unwantedLog, loopLog throttle
}

// Stats returns the numbers of this moment.
func (l *Link) Stats() Stats {
	s := &l.status
	st := Stats{
		Sent: s.sent.Load(), Acked: s.acked.Load(), Skipped: s.skipped.Load(),
		Expired: s.expired.Load(), Quarantined: s.quarantined.Load(),
		Received: s.received.Load(), Unwanted: s.unwanted.Load(), Looped: s.looped.Load(),
		Replayed: s.replayed.Load(), BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(), Backlog: l.backlog(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Connected, st.Since, st.Server = s.window != nil, s.since, s.server
	st.Reconnects = max(s.connects, 1) - 1
	st.LastError, st.LastErrorAt = s.lastError, s.lastErrorAt
	st.Refused = maps.Clone(s.refused)
	if s.window != nil {
		st.InFlight = s.window.unanswered()
		st.BacklogAtUp = s.backlog
	}
	return st
}

func (s *status) up(server string, w *window, backlog uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window, s.since, s.server = w, time.Now(), server
	s.connects++
	s.backlog = backlog
	s.lastError, s.reported = "", ""
}

// down notes why the link is down and reports whether it is another one than before.
func (s *status) down(reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.window != nil {
		s.window, s.since = nil, now
	}
	if reason == "" {
		return false // on purpose
	}
	s.lastError, s.lastErrorAt = reason, now
	news := s.reported != reason
	s.reported = reason
	return news
}

// note records trouble that does not end the link.
func (s *status) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError, s.lastErrorAt = text, time.Now()
}

func (s *status) refuse(code byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = map[byte]uint64{}
	}
	s.refused[code]++
}
