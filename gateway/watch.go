package gateway

import (
	"context"
	"crypto/tls"
	"os"
	"slices"
	"time"
)

// watchPause is how often files that decide who may stay are looked at: who was
// removed or revoked is gone within a second.
const watchPause = 500 * time.Millisecond

// seen is what files looked like that decide who may stay.
type seen struct {
	users time.Time
	tls   []*tls.Config // one for each listener; another one when its files changed
}

// look takes files that went for changed.
func (g *Gateway) look() seen {
	var s seen
	if fi, err := os.Stat(UsersFile(g.cfg)); err == nil {
		s.users = fi.ModTime()
	}
	for _, files := range g.tls {
		c, _ := files() // right once, so it is right for good
		s.tls = append(s.tls, c)
	}
	return s
}

func (s seen) equal(other seen) bool {
	return s.users.Equal(other.users) && slices.Equal(s.tls, other.tls)
}

// watchAccess cuts whoever was removed, lost a role, or has a certificate that
// was revoked or whose CA is gone. New ones need nobody's help: they are looked
// up when they come.
func (g *Gateway) watchAccess(ctx context.Context) error {
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	last := g.look()
	for {
		select {
		case <-tick.C:
			if now := g.look(); !now.equal(last) {
				last = now
				g.broker.Recheck(g.gate.Current)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
