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
	const telemetry = 400
	alarms := fillLanes(t, address, telemetry, 200)
	if alarms < 50 || alarms == 200 {
		t.Fatalf("%d alarms were taken", alarms)
	}
	old := dial(t, client.Options{Address: address, ClientID: "old", CleanStart: true, Version: mqtt.V311})
	if err := old.Publish(t.Context(), client.Message{Topic: alarmLane, Payload: make([]byte, 16<<10), QoS: 1}); err == nil {
		t.Error("an alarm of a 3.1.1 client was acknowledged")
	}
	said := s.metrics(t, g)
	for _, want := range []string{`headgate_queue_lost_total{reader="link",reason="max_size"} `, `headgate_lane_waiting_messages{link="cloud",lane="alarms"} ` + fmt.Sprint(alarms)} {
		if !strings.Contains(said, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	g.kill()

	cloud.start(t)
	got := &lanesAtCloud{t: t, alarms: alarms, seen: map[string]map[int]bool{telemetryLane: {}, alarmLane: {}}}
	cloud.watch(t, got.add)
	startGateway(t, s.config)
	waitWithin(t, 40*time.Second, func() bool {
		a, b, lost := got.counts()
		return a == alarms && b+lost >= telemetry
	})
	_, come, lost := got.counts()
	if come+lost != telemetry || lost < 100 {
		t.Errorf("%d telemetry come and %d are lost, together %d of %d", come, lost, come+lost, telemetry)
	}
	if got.early > alarms {
		t.Errorf("%d telemetry came before the last alarm", got.early)
	}
	t.Logf("%d alarms taken and delivered; of %d telemetry %d delivered, %d lost and told", alarms, telemetry, come, lost)
}

const telemetryLane, alarmLane = "plant/p/t", "plant/p/alarm/x" // topics

// fillLanes publishes so many of telemetry, all of which must be taken, and of
// alarms, and returns how many alarms were.
func fillLanes(t *testing.T, address string, telemetry, alarms int) (taken int) {
	cl := dial(t, client.Options{Address: address, ClientID: "x", CleanStart: true})
	put := func(topic string, n int) error {
		payload := append(fmt.Appendf(nil, "%d ", n), make([]byte, 8<<10)...)
		return cl.Publish(t.Context(), client.Message{Topic: topic, Payload: payload, QoS: 1})
	}
	for i := range telemetry {
		if err := put(telemetryLane, i); err != nil {
			t.Fatalf("telemetry %d: %v", i, err)
		}
		if i >= alarms {
			continue
		}
		if err := put(alarmLane, i); err == nil {
			taken++
		} else if !strings.Contains(err.Error(), "quota exceeded") {
			t.Fatalf("alarm %d: %v", i, err)
		}
	}
	return taken
}

// lanesAtCloud is what the cloud got of both lanes.
type lanesAtCloud struct {
	t      *testing.T
	alarms int // that must come

	mu    sync.Mutex // covers the rest
	seen  map[string]map[int]bool
	lost  int
	early int // telemetry, before the last alarm
}

func (a *lanesAtCloud) counts() (alarms, telemetry, lost int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen[alarmLane]), len(a.seen[telemetryLane]), a.lost
}

func (a *lanesAtCloud) add(m *client.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	topic := strings.TrimPrefix(m.Topic, "sites/site-1/")
	if topic == "hg/site-1/lost" {
		var e struct {
			Link, Lane, Reason string
			Count              int
		}
		if err := json.Unmarshal(m.Payload, &e); err != nil || e.Link != "cloud" || e.Lane != "telemetry" || e.Reason != "max_size" {
			a.t.Errorf("announced %s, %v", m.Payload, err)
		}
		a.lost += e.Count
	}
	of := a.seen[topic]
	if of == nil {
		return
	}
	word, _, _ := strings.Cut(string(m.Payload), " ")
	n, err := strconv.Atoi(word)
	if err != nil {
		a.t.Errorf("payload %q", word)
	}
	of[n] = true
	if topic == telemetryLane && len(a.seen[alarmLane]) < a.alarms {
		a.early++
	}
}
