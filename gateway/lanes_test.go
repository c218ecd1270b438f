package gateway_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

const twoLanes = `queue:
  lanes:
    - {name: alarms, topics: ["plant/+/alarm/#"], priority: 5, max_size: 1MiB, when_full: refuse}
    - {name: telemetry, topics: ["#"], max_size: 1MiB, when_full: drop_oldest}
`

// While the link is down, telemetry loses its oldest and alarms are refused,
// each without hurting the other; the gateway is killed; and when the link is
// back the cloud gets all that was accepted, or hears exactly how much it does
// not get.
func TestLanes(t *testing.T) {
	cloud := newCloud(t, "")
	s := newSite(t, cloud, twoLanes)
	g := startGateway(t, s.config)
	address := fmt.Sprintf("127.0.0.1:%d", s.plain)
	cl := dial(t, client.Options{Address: address, ClientID: "x", CleanStart: true})
	put := func(topic string, n int) error {
		payload := append(fmt.Appendf(nil, "%d ", n), make([]byte, 8<<10)...)
		return cl.Publish(t.Context(), client.Message{Topic: topic, Payload: payload, QoS: 1})
	}
	alarms, telemetry := 0, 0
	for i := range 400 {
		if err := put("plant/p/t", i); err != nil {
			t.Fatalf("telemetry %d: %v", i, err)
		}
		telemetry++
		if i < 200 {
			if err := put("plant/p/alarm/x", i); err == nil {
				alarms++
			} else if !strings.Contains(err.Error(), "quota exceeded") {
				t.Fatalf("alarm %d: %v", i, err)
			}
		}
	}
	if alarms < 50 || alarms == 200 {
		t.Fatalf("%d alarms were taken", alarms)
	}
	old := dial(t, client.Options{Address: address, ClientID: "old", CleanStart: true, Version: mqtt.V311})
	if err := old.Publish(t.Context(), client.Message{Topic: "plant/p/alarm/x", Payload: make([]byte, 16<<10), QoS: 1}); err == nil {
		t.Error("an alarm of a 3.1.1 client was acknowledged")
	}
	g.kill()

	cloud.start(t)
	var mu sync.Mutex // covers the rest
	seen := map[string]map[int]bool{"plant/p/t": {}, "plant/p/alarm/x": {}}
	var lost uint64
	var early int
	cloud.watch(t, func(m *client.Message) {
		mu.Lock()
		defer mu.Unlock()
		topic := strings.TrimPrefix(m.Topic, "sites/site-1/")
		if topic == "hg/site-1/lost" {
			var e struct {
				Link, Lane, Reason string
				Count              uint64
			}
			if err := json.Unmarshal(m.Payload, &e); err != nil || e.Link != "cloud" || e.Lane != "telemetry" || e.Reason != "max_size" {
				t.Errorf("announced %s, %v", m.Payload, err)
			}
			lost += e.Count
		}
		if of := seen[topic]; of != nil {
			word, _, _ := strings.Cut(string(m.Payload), " ")
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Errorf("payload %q", word)
			}
			of[n] = true
			if len(seen["plant/p/alarm/x"]) < alarms && topic == "plant/p/t" {
				early++
			}
		}
	})
	startGateway(t, s.config)
	whole := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen["plant/p/alarm/x"]) == alarms && len(seen["plant/p/t"])+int(lost) >= telemetry
	}
	for deadline := time.After(40 * time.Second); !whole(); {
		select {
		case <-deadline:
			t.Fatalf("of %d alarms %d come, of %d telemetry %d and %d are lost", alarms, len(seen["plant/p/alarm/x"]), telemetry, len(seen["plant/p/t"]), lost)
		case <-time.After(50 * time.Millisecond):
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if got := len(seen["plant/p/t"]) + int(lost); got != telemetry || lost < 100 {
		t.Errorf("%d telemetry come and %d are lost, together %d of %d", len(seen["plant/p/t"]), lost, got, telemetry)
	}
	if early > alarms {
		t.Errorf("%d telemetry came before the last alarm", early)
	}
	t.Logf("%d alarms taken and delivered; of %d telemetry %d delivered, %d lost and told", alarms, telemetry, len(seen["plant/p/t"]), lost)
}
