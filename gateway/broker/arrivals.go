package broker

import "sync"

// arrivals lets somebody wait for everything that set out before him. Safe for
// concurrent use.
type arrivals struct {
	mu   sync.Mutex // covers the fields below
	last uint64
	out  map[uint64]struct{} // set out and not arrived
	news chan struct{}       // closed at the next arrival; nil: nobody waits
}

// depart returns the number to arrive with.
func (a *arrivals) depart() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.out == nil {
		a.out = map[uint64]struct{}{}
	}
	a.last++
	a.out[a.last] = struct{}{}
	return a.last
}

func (a *arrivals) arrive(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.out, n)
	if a.news != nil {
		close(a.news)
		a.news = nil
	}
}

// wait returns when everything that had set out has arrived, or stop is closed.
func (a *arrivals) wait(stop <-chan struct{}) {
	a.mu.Lock()
	last := a.last
	for a.waitsFor(last) {
		if a.news == nil {
			a.news = make(chan struct{})
		}
		news := a.news
		a.mu.Unlock()
		select {
		case <-news:
		case <-stop:
			return
		}
		a.mu.Lock()
	}
	a.mu.Unlock()
}

// waitsFor reports whether something up to last is still out. mu is held.
func (a *arrivals) waitsFor(last uint64) bool {
	for n := range a.out {
		if n <= last {
			return true
		}
	}
	return false
}
