package gateway_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// BenchmarkRates is what the broker owes: PUBLISH to PUBACK from the disk, for a
// durable subscriber that is away, 100 bytes, from one connection and from many.
// Clients and gateway are two processes. Run it with -benchtime 1x.
func BenchmarkRates(b *testing.B) {
	for b.Loop() {
		for _, s := range []shape{
			{publishers: 1, qos: 1, messages: 300_000, window: 1000},
			{publishers: 64, qos: 1, messages: 300_000, window: 64},
		} {
			rate := appendRate(b, s)
			fmt.Printf("%2d connections with %4d in flight each, durable messages/s %26.0f\n", s.publishers, s.window, rate)
			if rate < 60_000 {
				b.Errorf("%d connections: %.0f messages a second", s.publishers, rate)
			}
		}
	}
}

// appendRate is how many messages a second are on disk and acknowledged.
func appendRate(b *testing.B, s shape) float64 {
	config, port := plainConfig(b)
	text, err := os.ReadFile(config)
	if err == nil { // the default of 100 would be what is in flight
		err = os.WriteFile(config, bytes.Replace(text, []byte("broker:\n"), []byte("broker:\n  limits: {receive_maximum: 1000}\n"), 1), 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	g := startGateway(b, config)
	dialLine(b, port, &mqtt.Connect{ClientID: "away"}, &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "plant/#", QoS: 1}}}).close()
	l := newLoad(b, port, s)
	took := l.run()
	l.close()
	g.kill()
	q, err := storequeue.Open(filepath.Join(filepath.Dir(config), "data", "queue"), storequeue.Config{MustExist: true})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	waiting := uint64(0)
	for _, r := range q.Stats().Readers {
		waiting = max(waiting, r.Waiting)
	}
	if waiting < uint64(s.messages) {
		b.Errorf("%d messages were acknowledged, %d wait for the subscriber", s.messages, waiting)
	}
	return float64(s.messages) / took.Seconds()
}
