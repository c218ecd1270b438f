package gateway_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// BenchmarkToTheCloud is messages a second from a publisher's acknowledgement
// to a subscriber at the cloud: Headgate, which acknowledges what is on disk,
// beside mosquitto's bridge, which acknowledges what is in memory. Both speak
// mutual TLS to the same cloud. Run it with -benchtime 1x.
func BenchmarkToTheCloud(b *testing.B) {
	rates := map[string][]float64{}
	for _, name := range []string{"mosquitto", "headgate", "mosquitto", "headgate", "mosquitto", "headgate"} {
		b.Run(name, func(b *testing.B) {
			cloud := newCloud(b, "")
			cloud.start(b)
			var port int
			if name == "headgate" {
				s := newSite(b, cloud, "")
				startGateway(b, s.config)
				port = s.plain
			} else {
				port = startBridge(b, cloud)
			}
			for b.Loop() {
				rate := throughput(b, cloud, port)
				rates[name] = append(rates[name], rate)
				b.ReportMetric(rate, "msg/s")
			}
		})
	}
	ours, theirs := median(rates["headgate"]), median(rates["mosquitto"])
	fmt.Printf("\nto the cloud over mutual TLS, %d connections, %d in flight, %d bytes, QoS 1, medians:\n", benchPublishers, benchInFlight, benchPayload)
	fmt.Printf("  headgate   %8.0f msg/s   acknowledged after fsync\n  mosquitto  %8.0f msg/s   acknowledged from memory\n  ratio      %8.2f\n", ours, theirs, ours/theirs)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := append([]float64(nil), v...)
	for i := range sorted { // three values
		for j := i; j > 0 && sorted[j] < sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	return sorted[len(sorted)/2]
}

// startBridge starts a local mosquitto that bridges plant/# to the cloud, with
// no bound on what it queues.
func startBridge(t testing.TB, c *cloud) int {
	t.Helper()
	port := freePort(t)
	conf := filepath.Join(t.TempDir(), "bridge.conf")
	text := fmt.Sprintf(`listener %d 127.0.0.1
user root
allow_anonymous true
max_queued_messages 0
max_inflight_messages 1000
connection cloud
address localhost:%d
bridge_cafile %[3]s/ca.crt
bridge_certfile %[3]s/gw.crt
bridge_keyfile %[3]s/gw.key
bridge_protocol_version mqttv50
cleansession false
notifications false
topic plant/# out 1 "" sites/site-1/
`, port, c.port, c.dir)
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
