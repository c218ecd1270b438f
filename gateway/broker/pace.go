package broker

import (
	"context"
	"time"
)

// subscribeRate is how many filters a second one client may subscribe to and
// unsubscribe from, or limits.Subscriptions if that is more.
const subscribeRate = 1000

// A pace holds one client to so many of something a second, with a second's
// worth of burst. Only the connection's own goroutine uses it.
type pace struct {
	next time.Time // when the bucket is full
}

// take counts n and returns for how long they are too early.
func (p *pace) take(n, rate int) time.Duration {
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return p.next.Sub(now) - time.Second
}

// slow returns after as long as the client was too early, by what limit says;
// false: the connection ends.
func (c *conn) slow(ctx context.Context, early time.Duration, by limit) bool {
	if early <= 0 {
		return true
	}
	c.b.stats.hits.add(by)
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

// mayPublish waits for limits.PublishRate; false: the connection ends.
func (c *conn) mayPublish(ctx context.Context) bool {
	rate := c.limits.PublishRate
	return rate <= 0 || c.slow(ctx, c.publishing.take(1, rate), limitPublishRate)
}

// mayChange waits until so many subscriptions may change; false: the connection
// ends.
func (c *conn) mayChange(ctx context.Context, filters int) bool {
	rate := max(subscribeRate, c.limits.Subscriptions)
	return c.slow(ctx, c.subscribing.take(filters, rate), limitSubscribeRate)
}
