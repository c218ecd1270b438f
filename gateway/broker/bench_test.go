package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// BenchmarkPublishQoS1 is a PUBLISH from a socket to its PUBACK, the commit in
// between included: 4 connections with 64 messages in flight each.
func BenchmarkPublishQoS1(b *testing.B) {
	for _, subscribers := range []int{0, 1} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) { benchmarkPublish(b, subscribers) })
	}
}

func benchmarkPublish(b *testing.B, subscribers int) {
	const connections, window = 4, 64
	h := open(b, Limits{})
	for i := range subscribers {
		go h.login(mqtt.V311, "bob", fmt.Sprint("s", i)).drain(b)
	}
	var clients []*client
	for i := range connections {
		clients = append(clients, h.login(mqtt.V311, "alice", fmt.Sprint("p", i)))
	}
	payload := strings.Repeat("x", 100)
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			left, open := b.N/connections, 0
			for id := uint16(0); left > 0 || open > 0; {
				var burst []byte
				for ; left > 0 && open < window; left, open = left-1, open+1 {
					id = id%60000 + 1
					burst, _ = mqtt.Append(burst, c.v, &mqtt.Publish{Topic: []byte("plant/line/temp"), Payload: []byte(payload), QoS: 1, PacketID: id})
				}
				if len(burst) > 0 {
					c.raw(burst)
				}
				for {
					expect[*mqtt.Ack](c)
					if open--; c.dec.Buffered() == 0 {
						break
					}
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(b.N)/float64(h.queue.Stats().Commits), "msg/commit")
}

// drain subscribes with QoS 1 and acknowledges until the end.
func (c *client) drain(b *testing.B) {
	c.subscribe("plant/#", 1)
	var acks []byte
	for {
		p, err := c.read()
		if err != nil {
			return
		}
		if m, ok := p.(*mqtt.Publish); ok {
			acks, _ = mqtt.Append(acks, c.v, &mqtt.Ack{Kind: mqtt.PUBACK, PacketID: m.PacketID})
		}
		if c.dec.Buffered() == 0 {
			if _, err := c.nc.Write(acks); err != nil {
				return
			}
			acks = acks[:0]
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	var t subscriptions
	for i := range 10_000 {
		s := &session{clientID: fmt.Sprint(i)}
		t.add(s, &subscription{match: fmt.Sprintf("plant/%d/+/temp", i%1000), qos: 1, reader: 1})
	}
	var m matches
	b.ReportAllocs()
	for b.Loop() {
		m.reset()
		t.match("plant/7/line-1/temp", nil, &m)
	}
}

func BenchmarkFanOutQoS0(b *testing.B) {
	h := open(b, Limits{})
	const subscribers = 50
	var done sync.WaitGroup
	for i := range subscribers {
		c := h.login(mqtt.V311, "bob", fmt.Sprint("s", i))
		c.subscribe("a", 0)
		done.Go(func() {
			for {
				if _, err := c.read(); err != nil {
					return
				}
			}
		})
	}
	p := h.login(mqtt.V311, "alice", "p")
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p.publish("a", "twenty-one degrees", 0)
		if i%64 == 0 {
			p.ping()
		}
	}
	p.ping()
	b.StopTimer()
	h.close()
	done.Wait()
}
