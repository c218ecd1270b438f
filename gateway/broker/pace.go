package broker

import (
	"context"
	"time"
)

// A pace holds one client to limits.PublishRate, with a second's worth of
// burst. Only the connection's own goroutine uses it.
type pace struct {
	next time.Time // when the bucket is full
}

// wait returns when the next message may be taken; false: the connection ends.
func (p *pace) wait(ctx context.Context, c *conn) bool {
	rate := c.limits.PublishRate
	if rate <= 0 {
		return true
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Second / time.Duration(rate))
	early := p.next.Sub(now) - time.Second
	if early <= 0 {
		return true
	}
	c.b.stats.hits.add(limitPublishRate)
	t := time.NewTimer(early)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.quit:
	case <-ctx.Done():
	}
	return false
}
