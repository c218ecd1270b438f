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
	users os.FileInfo   // nil: there was none
	tls   []*tls.Config // one for each listener; another one when its files changed
}

// look takes files that went for changed.
func (g *Gateway) look() seen {
	var s seen
	if fi, err := os.Stat(UsersFile(g.cfg)); err == nil {
		s.users = fi
	}
	for _, files := range g.tls {
		c, _ := files() // right once, so it is right for good
		s.tls = append(s.tls, c)
	}
	return s
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// watchAccess cuts whoever was removed, lost a role, or has a certificate that
// was revoked or whose CA is gone. New ones need nobody's help: they are looked
// up when they come.
func (g *Gateway) watchAccess(ctx context.Context) error {
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	last, failed := g.look(), ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now := g.look()
		if !same(now.users, last.users) {
			if err := g.users.Reload(); err != nil { // for want of file descriptors, perhaps: tried again
				if failed != err.Error() {
					g.log.Error("the changed users are refused: they stay as they were", "error", err)
				}
				failed, now.users = err.Error(), last.users
			}
		}
		changedUsers, changedTLS := !same(now.users, last.users), !slices.Equal(now.tls, last.tls)
		if last = now; changedUsers || changedTLS {
			failed = ""
			g.log.Info("changed files were taken over", "event", "reload", "by", "change of a file", "users", changedUsers, "tls", changedTLS)
			g.broker.Recheck()
		}
	}
}
