package northbound

import (
	"context"
	"slices"
	"time"
)

// Servers come in order of preference. On one that is not the first, those
// before it are probed: a TLS handshake, because a CONNECT with our client id
// could end our own session. The link moves once what is in flight has its
// answers; if CONNECT then fails, it is back at once, and the next probe is later.

const (
	firstProbe = time.Minute
	maxProbe   = time.Hour
)

// replaced waits until a connection to server is to be replaced, and says why;
// nil: ctx ended.
func (l *Link) replaced(ctx context.Context, server string) error {
	at := slices.Index(l.cfg.Servers, server)
	t := time.NewTimer(maxProbe)
	defer t.Stop()
	if at <= 0 {
		t.Stop()
	} else {
		t.Reset(l.probe.steady())
	}
	for {
		select {
		case <-l.fresh:
			return errRenewed
		case <-t.C:
			if l.reaches(ctx, l.cfg.Servers[:at]) {
				return errBetter
			}
			t.Reset(firstProbe)
		case <-ctx.Done():
			return nil
		}
	}
}

// steady is the pause before the first probe: one to two minutes, and twice that
// with each move that did not hold, up to an hour.
func (b *backoff) steady() time.Duration {
	b.bound = max(b.bound, firstProbe)
	return max(b.next(), b.bound/2)
}

// reaches notes the first of servers that completes a handshake.
func (l *Link) reaches(ctx context.Context, servers []string) bool {
	for i, s := range servers {
		dial, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
		nc, err := l.dial(dial, s)
		cancel()
		if err == nil {
			nc.Close()
			l.better = i
			return true
		}
	}
	return false
}
