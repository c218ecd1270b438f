package broker

import (
	"context"
	"strconv"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// sysInterval is how often the broker speaks of itself.
const sysInterval = 10 * time.Second

// sysLoop publishes what the broker says of itself under $SYS, in mosquitto's
// names, until ctx ends. It goes to those who are there and whom a rule that
// names $SYS allows it, with QoS 0 and not retained: nothing of it is stored and
// no link takes it along.
func (b *Broker) sysLoop(ctx context.Context, every time.Duration) {
	started := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s := b.Stats()
		number := func(name string, n uint64) { b.announce("$SYS/broker/"+name, strconv.FormatUint(n, 10)) }
		b.announce("$SYS/broker/version", "headgate "+b.version)
		b.announce("$SYS/broker/uptime", strconv.Itoa(int(time.Since(started)/time.Second))+" seconds")
		number("clients/connected", uint64(s.Connections))
		number("clients/total", uint64(s.Sessions))
		number("messages/received", s.Received)
		number("messages/sent", s.Delivered)
		number("subscriptions/count", uint64(s.Subscriptions))
		number("retained messages/count", uint64(s.Retained))
	}
}

// announce hands a message of the broker's own to who is there.
func (b *Broker) announce(topic, payload string) {
	p := b.newPublication()
	defer p.recycle()
	b.subs.match(topic, nil, &p.matches)
	m := storequeue.Message{Topic: topic, Payload: []byte(payload)}
	for i := range p.matches.found {
		p.live.add(&m, &p.matches.found[i])
	}
	b.handOut(&p.live, topic)
}
