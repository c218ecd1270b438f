package gateway_test

import (
	"context"
	"crypto/tls"
	wire "encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// What one run of the comparison does.
const (
	benchMessages   = 100_000
	benchPublishers = 4
	benchInFlight   = 64
	benchPayload    = 100
)

// An entrance is where publishers of the comparison go in.
type entrance struct {
	port  int
	tls   *tls.Config
	topic string // of one publisher, before its number
}

// contenders carry the same load to the same cloud. mosquitto may queue without
// bound in each, or it would drop what it acknowledged.
var contenders = []struct {
	name, what string
	start      func(testing.TB, *cloud) entrance
}{
	{"headgate", "acknowledged after fsync", func(t testing.TB, c *cloud) entrance {
		s := newSite(t, c, "")
		startGateway(t, s.config)
		house := cloud{dir: filepath.Join(s.dir, "pki")}
		return entrance{s.port, house.tls(t, "press-1"), "plant/press-1/p"}
	}},
	{"mosquitto", "acknowledged from memory, its default of 20 in flight to the cloud", func(t testing.TB, c *cloud) entrance {
		return bridgeEntrance(t, c, "")
	}},
	{"mosquitto-1000", "acknowledged from memory, 1,000 in flight to the cloud", func(t testing.TB, c *cloud) entrance {
		return bridgeEntrance(t, c, "max_inflight_messages 1000")
	}},
	{"direct", "the same publishers at the cloud itself", func(t testing.TB, c *cloud) entrance {
		return entrance{c.port, c.tls(t, "watcher"), "sites/site-1/plant/p"}
	}},
}

// BenchmarkToTheCloud is messages a second from a publisher's acknowledgement
// to a subscriber at the cloud: Headgate, which acknowledges what is on disk,
// beside mosquitto's bridge, which acknowledges what is in memory, and beside no
// gateway at all. All hops have mutual TLS. Then what a message takes at a steady
// rate. Run it with -benchtime 1x; with PROVE=1 it fails where a bound is not held.
func BenchmarkToTheCloud(b *testing.B) {
	rates, late := map[string][]float64{}, map[string][]float64{}
	for range 5 {
		for _, c := range contenders {
			b.Run(c.name, func(b *testing.B) {
				cloud := newCloud(b, "")
				cloud.start(b)
				in := c.start(b, cloud)
				for b.Loop() {
					rate := throughput(b, cloud, in)
					rates[c.name] = append(rates[c.name], rate)
					b.ReportMetric(rate, "msg/s")
				}
				p99 := steady(b, cloud, in)
				late[c.name] = append(late[c.name], p99.Seconds()*1000)
				b.ReportMetric(p99.Seconds()*1000, "ms-p99")
			})
		}
	}
	fmt.Printf("\nto the cloud over mutual TLS, %d connections, %d in flight, %d bytes, QoS 1, medians:\n", benchPublishers, benchInFlight, benchPayload)
	ours := median(rates["headgate"])
	for _, c := range contenders {
		rate := median(rates[c.name])
		fmt.Printf("  %-15s %8.0f msg/s   headgate is %5.2f times that   p99 at %d/s %6.1f ms   (%s)\n",
			c.name, rate, ours/rate, steadyRate, median(late[c.name]), c.what)
	}
	if os.Getenv("PROVE") != "" && (ours < 3*median(rates["mosquitto"]) || ours < median(rates["direct"])/2 || median(late["headgate"]) > 50) {
		b.Error("a bound is not held")
	}
}

// bridgeEntrance is a bridge that takes publishers over mutual TLS.
func bridgeEntrance(t testing.TB, c *cloud, more string) entrance {
	port := freePort(t)
	startBridge(t, c, fmt.Sprintf(`%s
listener %d 127.0.0.1
cafile %[3]s/ca.crt
certfile %[3]s/broker.crt
keyfile %[3]s/broker.key
require_certificate true`, more, port, c.dir))
	return entrance{port, c.tls(t, "watcher"), "plant/p"}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(v))[len(v)/2]
}

// startBridge starts a local mosquitto that bridges plant/# to the cloud.
func startBridge(t testing.TB, c *cloud, more string, ofBridge ...string) int {
	t.Helper()
	port := freePort(t)
	conf := filepath.Join(t.TempDir(), "bridge.conf")
	text := fmt.Sprintf(`listener %[1]d 127.0.0.1
user root
allow_anonymous true
max_queued_messages 0
%[4]s
connection cloud
address localhost:%[2]d
bridge_cafile %[3]s/ca.crt
bridge_certfile %[3]s/gw.crt
bridge_keyfile %[3]s/gw.key
bridge_protocol_version mqttv50
cleansession false
notifications false
topic plant/# out 1 "" sites/site-1/
%[5]s
`, port, c.port, c.dir, more, strings.Join(ofBridge, "\n"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	waitListening(t, start(t, nil, "/usr/sbin/mosquitto", "-c", conf), port)
	return port
}

// publisher is the i-th of those that go in there.
func (e *entrance) publisher(t testing.TB, i int) (cl *client.Client, topic string) {
	t.Helper()
	return dial(t, client.Options{
		Address: fmt.Sprintf("127.0.0.1:%d", e.port), TLS: e.tls, ClientID: fmt.Sprint("p", i), CleanStart: true, Version: mqtt.V5,
	}), fmt.Sprint(e.topic, i)
}

// throughput publishes and waits until all of it is at the cloud.
func throughput(t testing.TB, cloud *cloud, in entrance) float64 {
	t.Helper()
	var got atomic.Int64
	all := make(chan struct{})
	defer cloud.watch(t, func(m *client.Message) {
		if strings.Contains(m.Topic, "/plant/") && got.Add(1) == benchMessages {
			close(all)
		}
	}).Disconnect()
	began := time.Now()
	var publishers sync.WaitGroup
	for i := range benchPublishers {
		cl, topic := in.publisher(t, i)
		defer cl.Disconnect()
		publishers.Go(func() { pump(t, cl, topic, benchMessages/benchPublishers) })
	}
	publishers.Wait()
	select {
	case <-all:
	case <-time.After(2 * time.Minute):
		t.Fatalf("only %d of %d messages arrived", got.Load(), benchMessages)
	}
	return benchMessages / time.Since(began).Seconds()
}

const (
	steadyRate = 5000 // messages a second
	steadyFor  = 5 * time.Second
)

// steady publishes at a steady rate and returns the p99 from publishing a message
// until it is with a subscriber at the cloud.
func steady(t testing.TB, cloud *cloud, in entrance) time.Duration {
	t.Helper()
	const each = steadyRate / benchPublishers / 100 // messages of one publisher in 10 ms
	const want = each * benchPublishers * 100 * int(steadyFor/time.Second)
	late := make([]time.Duration, 0, want)
	all := make(chan struct{})
	defer cloud.watch(t, func(m *client.Message) {
		if len(m.Payload) != benchPayload || !strings.Contains(m.Topic, "/plant/") || len(late) == want {
			return
		}
		sent := wire.BigEndian.Uint64(m.Payload)
		if sent == 0 { // of the throughput: the session hears it again
			return
		}
		if late = append(late, time.Since(time.Unix(0, int64(sent)))); len(late) == want {
			close(all)
		}
	}).Disconnect()
	var publishers sync.WaitGroup
	for i := range benchPublishers {
		cl, topic := in.publisher(t, i)
		defer cl.Disconnect()
		publishers.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for n := 0; n < want/benchPublishers; <-tick.C {
				for range each {
					payload := wire.BigEndian.AppendUint64(make([]byte, 0, benchPayload), uint64(time.Now().UnixNano()))
					cl.PublishAsync(client.Message{Topic: topic, Payload: payload[:benchPayload], QoS: 1}, func(err error) {
						if err != nil {
							t.Errorf("publish: %v", err)
						}
					})
					n++
				}
			}
		})
	}
	publishers.Wait()
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Fatalf("only %d of %d messages arrived", len(late), want)
	}
	slices.Sort(late)
	return late[len(late)*99/100]
}

// pump publishes n messages with benchInFlight unacknowledged.
func pump(t testing.TB, cl *client.Client, topic string, n int) {
	window := make(chan struct{}, benchInFlight)
	payload := make([]byte, benchPayload)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for range n {
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
			t.Error("publisher is stuck")
			return
		}
		cl.PublishAsync(client.Message{Topic: topic, Payload: payload, QoS: 1}, func(err error) {
			if err != nil {
				t.Errorf("publish: %v", err)
			}
			<-window
		})
	}
	for range benchInFlight {
		window <- struct{}{}
	}
}
