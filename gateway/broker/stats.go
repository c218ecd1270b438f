package broker

import "sync/atomic"

// Stats is a snapshot for people and metrics. All but the first five only grow.
type Stats struct {
	Connections   int // logged in
	Sessions      int // connected or waiting for their client
	Subscriptions int
	Retained      int
	RetainedBytes int64

	Received        uint64 // PUBLISH packets accepted, and messages from Publish
	Delivered       uint64 // PUBLISH packets handed to clients' sockets
	Denied          uint64 // refused by a rule: publish, subscribe, will or delivery
	Refused         uint64 // messages that could not be kept: queue or retained store full
	RetainedRefused uint64 // of those, for want of room in the retained store; with QoS 0 delivered and not retained
	DroppedSlow     uint64 // QoS 0, the subscriber's socket was full
	DroppedLarge    uint64 // larger than the subscriber takes
	DroppedExpired  uint64
	DroppedQueue    uint64 // too much waited for the session
	AuthFailures    uint64
	ProtocolErrors  uint64
	RefusedSockets  uint64 // closed before login: too many
	AcceptErrors    uint64
	Takeovers       uint64
	Panics          uint64 // connections closed after a defect of ours

	LimitHits         map[string]uint64 // by name, the same names always: how often each limit was what decided
	BytesIn, BytesOut uint64            // of MQTT
	Logins            map[string]uint64 // by result: see docs/operations.md
}

// counters are what Stats is read from.
type counters struct {
	received, delivered, denied, refused                       atomic.Uint64
	droppedSlow, droppedLarge, droppedExpired, droppedQueue    atomic.Uint64
	authFailures, protocolErrors, refusedSockets, acceptErrors atomic.Uint64
	takeovers, panics, retainedRefused                         atomic.Uint64
	hits                                                       hits
	logins                                                     [loginResults]atomic.Uint64
	traffic                                                    traffic // bytes only
}

// Stats returns the numbers of this moment.
func (b *Broker) Stats() Stats {
	c := &b.stats
	s := Stats{
		Received: c.received.Load(), Delivered: c.delivered.Load(), Denied: c.denied.Load(), Refused: c.refused.Load(),
		RetainedRefused: c.retainedRefused.Load(),
		DroppedSlow:     c.droppedSlow.Load(), DroppedLarge: c.droppedLarge.Load(),
		DroppedExpired: c.droppedExpired.Load(), DroppedQueue: c.droppedQueue.Load(),
		AuthFailures: c.authFailures.Load(), ProtocolErrors: c.protocolErrors.Load(),
		RefusedSockets: c.refusedSockets.Load(), AcceptErrors: c.acceptErrors.Load(),
		Takeovers: c.takeovers.Load(), Panics: c.panics.Load(),
		LimitHits: c.hits.snapshot(),
	}
	s.BytesIn, s.BytesOut = c.traffic.bytesIn.Load(), c.traffic.bytesOut.Load()
	s.Logins = map[string]uint64{}
	for r := range loginResults {
		s.Logins[r.String()] = c.logins[r].Load()
	}
	b.door.mu.Lock()
	s.Connections = b.door.inside.all
	b.door.mu.Unlock()
	b.mu.Lock()
	s.Sessions = len(b.sessions)
	b.mu.Unlock()
	s.Subscriptions = b.subs.len()
	kept := b.retained.size()
	s.Retained, s.RetainedBytes = kept.count, kept.bytes
	return s
}
