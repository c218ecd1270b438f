package northbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

func command(id uint16, topic string, user ...packets.User) *packets.Publish {
	return &packets.Publish{
		Topic: topic, QoS: 1, PacketID: id, Payload: fmt.Append(nil, id),
		Properties: &packets.Properties{ResponseTopic: "sites/gw/hg/answers", CorrelationData: []byte("c"), User: user},
	}
}

func receiveConfig() Config {
	cfg := testConfig()
	cfg.Receive = []Route{{Topics: []string{"sites/gw/cmd/#"}, QoS: 2, Strip: "sites/gw/"}}
	return cfg
}

func TestReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.hello = func(cc *cloudConn) {
			retained := command(4, "sites/gw/cmd/old")
			retained.Retain = true
			for _, p := range []*packets.Publish{
				command(1, "sites/gw/cmd/a", packets.User{Key: "k", Value: "v"}),
				command(2, "sites/gw/cmd/own", packets.User{Key: "hg-id", Value: "gw/9/9"}),
				command(3, "elsewhere"), retained,
				command(5, "sites/gw/cmd/b"),
			} {
				cc.send(p)
			}
		}
		cfg := receiveConfig()
		var got []storequeue.Message
		cfg.Handle = func(_ context.Context, m storequeue.Message) error { got = append(got, m); return nil }
		src := newSource(t, c)
		l, stop := start(t, cfg, src, c)
		until(t, "all acknowledged", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.pubacks) == 5 })
		stop()
		if !slices.Equal(c.pubacks, []uint16{1, 2, 3, 4, 5}) { // [MQTT-4.6.0-2]
			t.Errorf("PUBACK order %v", c.pubacks)
		}
		if len(got) != 2 || got[0].Topic != "cmd/a" || got[1].Topic != "cmd/b" {
			t.Fatalf("handed on %v", got)
		}
		m := got[0]
		if m.From != "link:cloud" || m.ResponseTopic != "hg/answers" || string(m.CorrelationData) != "c" || m.QoS != 1 ||
			!slices.Equal(m.Properties, []storequeue.Property{{Key: "k", Value: "v"}}) {
			t.Errorf("handed on %+v", m)
		}
		if st := l.Stats(); st.Received != 2 || st.Looped != 1 || st.Unwanted != 2 {
			t.Errorf("stats %+v", st)
		}
		if s := c.subs; len(s) != 1 || s[0].Topic != "sites/gw/cmd/#" || s[0].QoS != 2 || !s[0].NoLocal || s[0].RetainHandling != 2 {
			t.Errorf("subscribed to %+v", s)
		}
	})
}

// What cannot be handed on is not acknowledged; it comes again over a new
// connection, and sending goes on meanwhile.
func TestHandleError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.hello = func(cc *cloudConn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.pubacks) == 0 {
				cc.send(command(7, "sites/gw/cmd/a"))
			}
		}
		cfg := receiveConfig()
		tries := 0
		cfg.Handle = func(context.Context, storequeue.Message) error {
			if tries++; tries < 4 {
				return errors.New("disk full")
			}
			return nil
		}
		src := newSource(t, c)
		src.put(t, numbered(5)...)
		l, stop := start(t, cfg, src, c)
		defer stop()
		until(t, "acknowledged", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.pubacks) == 1 })
		until(t, "sent", func() bool { return src.Acked() == 5 })
		if tries != 4 || len(c.connects) != 4 || l.Stats().Received != 1 {
			t.Errorf("%d tries over %d connections", tries, len(c.connects))
		}
	})
}

// A Handle that hangs ends with the connection, and does not hold shutdown.
func TestHandleHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.hello = func(cc *cloudConn) {
			for i := range uint16(receiveMaximum) {
				cc.send(command(i+1, "sites/gw/cmd/a"))
			}
		}
		cfg := receiveConfig()
		cfg.Handle = func(ctx context.Context, _ storequeue.Message) error { <-ctx.Done(); return ctx.Err() }
		_, stop := start(t, cfg, newSource(t, c), c)
		time.Sleep(time.Second)
		stop()
		if len(c.pubacks) > 0 {
			t.Errorf("acknowledged %v", c.pubacks)
		}
	})
}

// A packet larger than announced is refused before it is read.
func TestInboundTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.hello = func(cc *cloudConn) { cc.Write([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}) }
		l, stop := start(t, receiveConfigWith(nil), newSource(t, c), c)
		defer stop()
		until(t, "noticed", func() bool { return strings.Contains(l.Stats().LastError, "a packet of more than") })
	})
}

func receiveConfigWith(err error) Config {
	cfg := receiveConfig()
	cfg.Handle = func(context.Context, storequeue.Message) error { return err }
	return cfg
}

// The gateway dies between the commit of a command and its acknowledgement: it
// is there, and comes again.
func TestDeathBeforePuback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.connack.SessionPresent = true
		c.hello = func(cc *cloudConn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.pubacks) == 0 {
				cc.send(command(7, "sites/gw/cmd/a"))
			}
		}
		src := newSource(t, nil)
		stored := 0
		for _, dies := range []bool{true, false} {
			cfg := receiveConfig()
			cfg.Handle = func(ctx context.Context, m storequeue.Message) error {
				if err := src.queue.Append(t.Context(), m); err != nil {
					return err
				}
				stored++
				if dies {
					<-ctx.Done()
				}
				return nil
			}
			_, stop := start(t, cfg, src, c)
			until(t, "stored", func() bool { return stored > 0 })
			if !dies {
				until(t, "acknowledged", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.pubacks) > 0 })
			}
			stop()
			if dies && len(c.pubacks) > 0 {
				t.Error("acknowledged by somebody dead")
			}
		}
		if stored != 2 {
			t.Errorf("stored %d times, want 2: at QoS 1 a repeat, and no loss", stored)
		}
	})
}
