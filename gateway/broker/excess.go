package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// excessEvery is how often the queues of sessions are measured. What passes
// limits.SessionQueue or IdentityQueue in between stands on disk for that long.
const excessEvery = time.Second

// excessLoop keeps what waits for each session, and for all of one identity,
// within its limit, until ctx ends: a client that never comes back must not hold
// the log of the house.
func (b *Broker) excessLoop(ctx context.Context) {
	tick := time.NewTicker(excessEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, e := range b.excessive() {
			if err := b.cutBack(ctx, e); err != nil && ctx.Err() == nil {
				b.rarely.log(b.log.Error, "skip what waits for a client: trying again", "client", e.session.clientID, "error", err)
			}
		}
	}
}

// An excess is a session for which too much waits.
type excess struct {
	session *session
	waits   uint64 // bytes
	most    uint64 // it is cut if more than that waits,
	keep    uint64 // to this
	by      limit  // limitNone: it is within its limits
}

// excessive lists the sessions for which more waits than they, or all of their
// identity together, may have.
func (b *Broker) excessive() (over []excess) {
	l := b.limits.Load()
	b.mu.Lock()
	all := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		all = append(all, s)
	}
	b.mu.Unlock()
	owners := map[string][]excess{}
	for _, s := range all {
		s.mu.Lock()
		r := s.reader
		s.mu.Unlock()
		if r == nil || r.WaitingBytes() == 0 {
			continue
		}
		e := excess{session: s, waits: r.WaitingBytes(), most: uint64(l.SessionQueue)}
		if e.keep = e.waits; e.waits > e.most {
			e.keep, e.by = roomy(e.most), limitSessionQueue
		}
		owners[s.owner] = append(owners[s.owner], e)
	}
	for _, own := range owners {
		level(own, uint64(l.IdentityQueue))
		for _, e := range own {
			if e.by != limitNone {
				over = append(over, e)
			}
		}
	}
	return over
}

// roomy is what a queue is cut to, so that it is not cut again at once.
func roomy(limit uint64) uint64 { return limit - limit/8 }

// level lets all sessions of an identity together keep no more than most. Those
// with the most are cut, to one level; nobody with less than that loses anything.
func level(own []excess, most uint64) {
	total := uint64(0)
	for _, e := range own {
		total += e.keep
	}
	if total <= most {
		return
	}
	slices.SortFunc(own, func(x, y excess) int { return cmp.Compare(x.keep, y.keep) })
	left := roomy(most)
	for i := range own {
		share := left / uint64(len(own)-i)
		if e := &own[i]; e.keep > share {
			e.most, e.keep, e.by = share, share, limitIdentityQueue
		}
		left -= own[i].keep
	}
}

// cutBack skips the oldest messages of a session. A client that is connected has
// been too slow, and is closed first; so nothing is in flight on a socket.
func (b *Broker) cutBack(ctx context.Context, e excess) error {
	s := e.session
	if !b.seize(ctx, s) {
		return nil
	}
	defer b.letGo(s)
	if s.reader == nil || s.reader.WaitingBytes() <= e.most {
		return nil
	}
	skipped := uint64(0)
	for s.reader.WaitingBytes() > e.keep && ctx.Err() == nil {
		msgs, err := s.reader.Poll(s.reader.Acked(), batch)
		if err != nil || len(msgs) == 0 {
			return err
		}
		for i := range msgs {
			if s.reader.WaitingBytes() <= e.keep {
				break
			}
			skipped += b.skip(s, &msgs[i])
			s.reader.Ack(msgs[i].Seq)
		}
	}
	b.stats.hits.add(e.by)
	b.log.Warn("too much waits for a client: the oldest messages are skipped; see broker.limits",
		"client", s.clientID, "identity", s.owner, "limit", limitNames[e.by], "skipped", skipped)
	return nil
}

// seize is claim for the broker itself. It reports false when the session is
// gone.
func (b *Broker) seize(ctx context.Context, s *session) bool {
	for {
		b.mu.Lock()
		holder, free := s.holder, s.free
		switch {
		case b.sessions[s.clientID] != s:
			b.mu.Unlock()
			return false
		case free == nil:
			s.free = make(chan struct{})
			b.mu.Unlock()
			return true
		}
		b.mu.Unlock()
		if holder != nil {
			holder.close(mqtt.QuotaExceeded)
		}
		select {
		case <-free:
		case <-ctx.Done():
			return false
		}
	}
}

// skip takes a message out of what waits for the session, and returns how many
// that loses. One that the client may have with QoS 2 leaves its packet id
// behind, for PUBREL.
func (b *Broker) skip(s *session, m *storequeue.Message) (lost uint64) {
	s.mu.Lock()
	f := &s.flight
	it, isNew := f.find(m.Seq)
	qos := min(m.QoS, markOf(m, s.reader.ID()).QoS)
	delivered := it == nil && !isNew || it != nil && it.stage != published || f.isRecorded(m.Seq)
	maybe := it != nil || isNew && (m.Seq <= b.before || f.isRecorded(m.Seq))
	if qos == 2 && maybe && len(f.abandoned) < b.limits.Load().ReceiveMaximum {
		f.abandoned = append(f.abandoned, packetID(m.Seq))
	}
	if it != nil {
		f.finish(it)
		f.settle()
	}
	s.mu.Unlock()
	if delivered || expired(m, time.Now()) {
		return 0
	}
	b.stats.droppedQueue.Add(1)
	if b.lost != nil {
		b.lost(s.clientID, m)
	}
	return 1
}

// farewell sends PUBREL for what was skipped while the client may have it, so
// that its packet ids are free again.
func (c *conn) farewell() {
	s := c.session
	s.mu.Lock()
	ids := s.flight.abandoned
	s.flight.abandoned = nil
	s.mu.Unlock()
	for _, id := range ids {
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: id})
	}
}
