package broker

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

func TestSys(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		h.b.version = "1.2.3"
		h.gate.SetRules(rules(t, rule(true, "bob", sub, "$SYS/#", "#"), rule(true, "alice", both, "#")))
		kept := h.login(v, "alice", "alice")
		kept.subscribe("#", 2)
		kept.publish("a", "x", 0, retain)
		kept.expectMessage("x")
		kept.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "$SYS/broker/version"}}})
		if a := expect[*mqtt.Suback](kept); !a.Codes[0].Failed() {
			t.Error("a rule for # lets alice see $SYS")
		}
		s := h.login(v, "bob", "bob")
		s.subscribe("#", 1)
		expect[*mqtt.Publish](s) // "a"
		s.subscribe("$SYS/#", 1)

		ctx, cancel := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		loop.Go(func() { h.b.sysLoop(ctx, time.Millisecond) }) // ended by cancel
		defer loop.Wait()
		defer cancel()
		said := map[string]string{}
		for len(said) < 8 {
			p := expect[*mqtt.Publish](s)
			if p.QoS != 0 || p.Retain {
				t.Fatalf("%s with QoS %d, retained %v", p.Topic, p.QoS, p.Retain)
			}
			said[strings.TrimPrefix(string(p.Topic), "$SYS/broker/")] = string(p.Payload)
		}
		for name, want := range map[string]string{
			"version": "headgate 1.2.3", "uptime": "0 seconds", "clients/connected": "2", "clients/total": "2",
			"messages/received": "1", "subscriptions/count": "3", "retained messages/count": "1",
		} {
			if said[name] != want {
				t.Errorf("%s is %q, want %q", name, said[name], want)
			}
		}
		cancel()
		loop.Wait()
		kept.ping() // and got nothing of it
	})
}
