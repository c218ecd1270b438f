package northbound

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A mailbox is a Handle that keeps what it gets.
type mailbox struct {
	mu  sync.Mutex // covers got
	got []storequeue.Message
}

func (b *mailbox) put(_ context.Context, m storequeue.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m)
	return nil
}

func (b *mailbox) topics() (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.got {
		all = append(all, fmt.Sprint(m.Topic, " ", m.Retain))
	}
	return all
}

// What was retained is taken, kept or left as the route says, both ways.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.hello = func(cc *cloudConn) {
			for i, topic := range []string{"usual", "clear", "keep"} {
				p := command(uint16(i+1), "in/"+topic)
				p.Retain = true
				cc.send(p)
			}
			cc.send(command(4, "in/keep"))
		}
		var box mailbox
		cfg := testConfig()
		cfg.Handle = box.put
		cfg.Receive = []Route{
			{Topics: []string{"in/usual"}}, {Topics: []string{"in/clear"}, Retain: RetainClear}, {Topics: []string{"in/keep"}, Retain: RetainKeep},
		}
		cfg.Send = []Route{{Topics: []string{"out/clear"}, QoS: 1, Retain: RetainClear}, {Topics: []string{"out/#"}, QoS: 1}}
		src := newSource(t, c)
		src.put(t, storequeue.Message{Topic: "out/clear", Retain: true, QoS: 1}, storequeue.Message{Topic: "out/keep", Retain: true, QoS: 1},
			storequeue.Message{Topic: "out/keep", QoS: 1})
		_, stop := start(t, cfg, src, c)
		until(t, "both ways", func() bool { return src.Acked() == 3 && len(box.topics()) == 3 })
		stop()
		if want := []string{"in/clear false", "in/keep true", "in/keep false"}; !slices.Equal(box.topics(), want) {
			t.Errorf("taken %v, want %v", box.topics(), want)
		}
		var sent []bool
		for _, p := range c.received() {
			sent = append(sent, p.Retain)
		}
		if want := []bool{false, true, false}; !slices.Equal(sent, want) {
			t.Errorf("sent with RETAIN %v, want %v", sent, want)
		}
		for i, want := range []packets.SubOptions{{RetainHandling: 2}, {RetainHandling: 1}, {RetainHandling: 1, RetainAsPublished: true}} {
			if s := c.subs[i]; s.RetainHandling != want.RetainHandling || s.RetainAsPublished != want.RetainAsPublished {
				t.Errorf("subscribed to %+v", s)
			}
		}
	})
}

// The hg-ids of the gateways that a message came through end its way in a
// circle, and after too many of them.
func TestLoops(t *testing.T) {
	id := func(gateway string) packets.User { return packets.User{Key: propID, Value: gateway + "/1/1"} }
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.hello = func(cc *cloudConn) {
			cc.send(command(1, "sites/gw/cmd/far", id("a"), id("b"), id("c"), id("d")))
			cc.send(command(2, "sites/gw/cmd/circle", id("a"), id("gw"), id("c")))
			cc.send(command(3, "sites/gw/cmd/lost", id("a"), id("b"), id("c"), id("d"), id("e")))
			cc.send(command(4, "sites/gw/cmd/gw2", id("gw2")))
		}
		var box mailbox
		cfg := receiveConfig()
		cfg.Handle = box.put
		l, stop := start(t, cfg, newSource(t, c), c)
		until(t, "all acknowledged", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.pubacks) == 4 })
		stop()
		if want := []string{"cmd/far false", "cmd/gw2 false"}; !slices.Equal(box.topics(), want) || l.Stats().Looped != 2 {
			t.Errorf("taken %v, want %v; %+v", box.topics(), want, l.Stats())
		}
		if p := box.got[0].Properties; len(p) != 4 || p[3].Value != "d/1/1" {
			t.Errorf("the way it took is not kept: %v", p)
		}
	})
}

// New routes hold for what waits and for what comes; subscriptions that are
// gone end, though the cloud keeps the session.
func TestSetRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		cfg := receiveConfig()
		var box mailbox
		cfg.Handle = box.put
		cfg.Receive = append(cfg.Receive, Route{Topics: []string{"stays"}})
		src := newSource(t, c)
		l, stop := start(t, cfg, src, c)
		defer stop()
		src.put(t, storequeue.Message{Topic: "plant/1", QoS: 1})
		until(t, "sent", func() bool { return src.Acked() == 1 })

		l.SetRoutes([]Route{{Topics: []string{"plant/#"}, QoS: 1, Prefix: "new/"}}, []Route{{Topics: []string{"stays"}}, {Topics: []string{"more"}}})
		until(t, "subscribed anew", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.connects) == 2 && len(c.subs) == 2 })
		src.put(t, storequeue.Message{Topic: "plant/2", QoS: 1})
		until(t, "sent", func() bool { return src.Acked() == 2 })
		time.Sleep(time.Minute)
		if got := c.received(); got[1].Topic != "new/plant/2" {
			t.Errorf("sent as %s", got[1].Topic)
		}
		if want := []string{"sites/gw/cmd/#"}; !slices.Equal(c.unsubs, want) {
			t.Errorf("unsubscribed from %v, want %v", c.unsubs, want)
		}
		if c.subs[0].Topic != "stays" || c.subs[1].Topic != "more" || len(c.connects) != 2 {
			t.Errorf("subscribed to %v after %d connections", c.subs, len(c.connects))
		}
		if len(c.byes) == 0 || c.byes[0] != packets.DisconnectDisconnectWithWillMessage {
			t.Errorf("left with %v: who looks at the old topic thinks that we are there", c.byes)
		}
		if _, ok := l.Wants("hg/x"); ok {
			t.Error("an old route still takes")
		}
	})
}
