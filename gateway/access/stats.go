package access

import "time"

// Stats is a snapshot for people and metrics.
type Stats struct {
	Hashed     uint64 // passwords checked with a hash
	Remembered uint64 // passwords found right by what is remembered of reconnecting clients

	LockedUsers     int // now: users at one address, or behind one certificate, each
	LockedAddresses int
}

// Stats returns the numbers of this moment.
func (g *Gate) Stats() Stats {
	var s Stats
	if g.users != nil {
		s.Hashed, s.Remembered = g.users.hashed.Load(), g.users.proved.hits.Load()
	}
	now := time.Now()
	g.locks.mu.Lock()
	defer g.locks.mu.Unlock()
	s.LockedUsers, s.LockedAddresses = g.locks.pairs.count(now), g.locks.addresses.count(now)
	return s
}

// count is how many are locked.
func (s suspects[K]) count(now time.Time) (n int) {
	for _, x := range s {
		if now.Before(x.until) {
			n++
		}
	}
	return n
}
