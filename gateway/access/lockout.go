package access

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Lockout says when password logins are refused unheard. Zero values take the
// defaults; it cannot be switched off.
type Lockout struct {
	Failures int           // from one address for one user; default 5. Four times as many lock the address
	Window   time.Duration // in which they are counted; default 1 min
	Duration time.Duration // of the first lock; default 5 min. Each further one is twice as long, up to 1 h
}

func (l Lockout) withDefaults() Lockout {
	if l.Failures <= 0 {
		l.Failures = 5
	}
	if l.Window <= 0 {
		l.Window = time.Minute
	}
	if l.Duration <= 0 {
		l.Duration = 5 * time.Minute
	}
	return l
}

const (
	addressFactor = 4         // failures of an address per failures of a pair
	longestLock   = time.Hour // and how long a served lock is remembered
	suspectsMax   = 10000     // pairs, and as many addresses
)

// lockouts counts wrong passwords. All times are monotonic.
type lockouts struct {
	mu        sync.Mutex // guards both
	pairs     suspects[pair]
	addresses suspects[netip.Addr]
}

// A pair is whom wrong passwords are counted for: a user at an address, or a
// user behind a certificate, whom strangers at that address cannot lock out.
type pair struct {
	address     netip.Addr // none with a certificate
	certificate string     // its identity
	user        string
}

func newLockouts() *lockouts {
	return &lockouts{pairs: make(suspects[pair]), addresses: make(suspects[netip.Addr])}
}

// origin is the address that failures are counted for: an IPv6 network of 64
// bits is one customer, so it is one address here.
func origin(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// newPair counts all names that no user can have as one.
func newPair(a netip.Addr, certificate, user string) pair {
	if !plainName(user) {
		user = ""
	}
	if certificate != "" {
		return pair{certificate: certificate, user: user}
	}
	return pair{address: origin(a), user: user}
}

// locked reports whether a password is refused unheard.
func (l *lockouts) locked(p pair) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pairs.locked(p, now) || p.certificate == "" && l.addresses.locked(p.address, now)
}

// suspected reports whether a pair or its address had a wrong password within
// the window, or was locked that long ago.
func (l *lockouts) suspected(p pair, window time.Duration) bool {
	since := time.Now().Add(-window)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pairs.suspected(p, since) || p.certificate == "" && l.addresses.suspected(p.address, since)
}

// failed counts a wrong password and reports for how long that locks the pair
// and the whole address, 0: not.
func (l *lockouts) failed(p pair, limit Lockout) (user, address time.Duration) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	user = l.pairs.failed(p, now, limit)
	if p.certificate == "" {
		limit.Failures *= addressFactor
		address = l.addresses.failed(p.address, now, limit)
	}
	return user, address
}

// succeeded forgets the failures of the pair. Those of the address stay:
// knowing one password is no licence to guess others.
func (l *lockouts) succeeded(p pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pairs, p)
}

type suspects[K comparable] map[K]*suspect

type suspect struct {
	failures []time.Time // within the window, fewer than the limit
	until    time.Time   // locked before this
	locks    int         // how many locks in a row
}

func (s suspects[K]) locked(k K, now time.Time) bool {
	x, ok := s[k]
	return ok && now.Before(x.until)
}

func (s suspects[K]) suspected(k K, since time.Time) bool {
	x, ok := s[k]
	return ok && (x.until.After(since) || len(x.failures) > 0 && x.failures[len(x.failures)-1].After(since))
}

func (s suspects[K]) failed(k K, now time.Time, limit Lockout) time.Duration {
	x, ok := s[k]
	if !ok {
		if len(s) >= suspectsMax {
			s.makeRoom(now)
		}
		x = new(suspect)
		s[k] = x
	}
	if now.Sub(x.until) > longestLock {
		x.locks = 0
	}
	x.failures = slices.DeleteFunc(x.failures, func(t time.Time) bool { return now.Sub(t) >= limit.Window })
	x.failures = append(x.failures, now)
	if len(x.failures) < limit.Failures {
		return 0
	}
	lock := limit.Duration
	for range x.locks {
		lock = min(2*lock, max(longestLock, limit.Duration))
	}
	x.failures, x.until = nil, now.Add(lock)
	x.locks = min(x.locks+1, 32)
	return lock
}

// makeRoom forgets one in sixteen suspects: those that were quiet for longest,
// and those that are locked after all others. To forget them one by one would
// be to look at all of them for each new name of a flood.
func (s suspects[K]) makeRoom(now time.Time) {
	type quiet struct {
		key    K
		locked bool
		last   time.Time
	}
	all := make([]quiet, 0, len(s))
	for k, x := range s {
		all = append(all, quiet{k, now.Before(x.until), x.last()})
	}
	slices.SortFunc(all, func(a, b quiet) int {
		if a.locked != b.locked {
			if a.locked {
				return 1
			}
			return -1
		}
		return a.last.Compare(b.last)
	})
	for _, q := range all[:max(1, len(all)/16)] {
		delete(s, q.key)
	}
}

func (x *suspect) last() time.Time {
	if n := len(x.failures); n > 0 {
		return x.failures[n-1]
	}
	return x.until
}
