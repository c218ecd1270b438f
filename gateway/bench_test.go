package gateway_test

import (
	"context"
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

// contenders carry the same load to the same cloud. mosquitto may queue without
// bound in each, or it would drop what it acknowledged.
var contenders = []struct {
	name, what string
	start      func(testing.TB, *cloud) int // returns the port to publish to
}{
	{"headgate", "acknowledged after fsync", func(t testing.TB, c *cloud) int {
		s := newSite(t, c, "")
		startGateway(t, s.config)
		return s.plain
	}},
	{"mosquitto", "acknowledged from memory, its default of 20 in flight to the cloud", func(t testing.TB, c *cloud) int {
		return startBridge(t, c, "")
	}},
	{"mosquitto-1000", "acknowledged from memory, 1,000 in flight to the cloud", func(t testing.TB, c *cloud) int {
		return startBridge(t, c, "max_inflight_messages 1000")
	}},
}

// BenchmarkToTheCloud is messages a second from a publisher's acknowledgement
// to a subscriber at the cloud: Headgate, which acknowledges what is on disk,
// beside mosquitto's bridge, which acknowledges what is in memory. All speak
// mutual TLS to the cloud. Run it with -benchtime 1x.
func BenchmarkToTheCloud(b *testing.B) {
	rates := map[string][]float64{}
	for range 5 {
		for _, c := range contenders {
			b.Run(c.name, func(b *testing.B) {
				cloud := newCloud(b, "")
				cloud.start(b)
				port := c.start(b, cloud)
				for b.Loop() {
					rate := throughput(b, cloud, port)
					rates[c.name] = append(rates[c.name], rate)
					b.ReportMetric(rate, "msg/s")
				}
			})
		}
	}
	fmt.Printf("\nto the cloud over mutual TLS, %d connections, %d in flight, %d bytes, QoS 1, medians:\n", benchPublishers, benchInFlight, benchPayload)
	ours := median(rates["headgate"])
	for _, c := range contenders {
		rate := median(rates[c.name])
		fmt.Printf("  %-15s %8.0f msg/s   headgate is %5.2f times that   (%s)\n", c.name, rate, ours/rate, c.what)
	}
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

// throughput publishes and waits until all of it is at the cloud.
func throughput(t testing.TB, cloud *cloud, port int) float64 {
	t.Helper()
	var got atomic.Int64
	all := make(chan struct{})
	cloud.watch(t, func(m *client.Message) {
		if strings.Contains(m.Topic, "/plant/") && got.Add(1) == benchMessages {
			close(all)
		}
	})
	began := time.Now()
	var publishers sync.WaitGroup
	for i := range benchPublishers {
		cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", port), ClientID: fmt.Sprint("p", i), CleanStart: true, Version: mqtt.V5})
		publishers.Go(func() { pump(t, cl, fmt.Sprintf("plant/p%d", i), benchMessages/benchPublishers) })
	}
	publishers.Wait()
	select {
	case <-all:
	case <-time.After(2 * time.Minute):
		t.Fatalf("only %d of %d messages arrived", got.Load(), benchMessages)
	}
	return benchMessages / time.Since(began).Seconds()
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
