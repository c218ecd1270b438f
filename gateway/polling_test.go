package gateway_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
)

// Many devices, each on a connection of its own, are polled once a second and all
// of it goes to the cloud: what that costs, and how late polls are.
func TestManyDevices(t *testing.T) {
	devices, lasts := 10, 3*time.Second
	if os.Getenv("PROVE") != "" {
		devices, lasts = 200, time.Minute
	}
	const tags = 50
	cloud := newCloud(t, "")
	cloud.start(t)
	s := newSite(t, cloud, manyDevices(t, devices, tags))
	g := startGateway(t, s.config)
	online := time.Now().Add(30 * time.Second)
	for len(regexp.MustCompile(`headgate_device_up\{[^}]*\} 1\n`).FindAllString(s.metrics(t, g), -1)) < devices {
		if time.Now().After(online) {
			t.Fatalf("of %d devices %.0f are online after 30 s", devices, sum(t, s.metrics(t, g), "device_up"))
		}
		<-time.After(50 * time.Millisecond)
	}
	before, used, began := s.metrics(t, g), g.processorTime(t), time.Now()
	<-time.After(lasts)
	after, took := s.metrics(t, g), time.Since(began)
	share := (g.processorTime(t) - used).Seconds() / took.Seconds()
	polls := sum(t, after, "device_polls_total") - sum(t, before, "device_polls_total")
	missed := sum(t, after, "device_missed_polls_total") - sum(t, before, "device_missed_polls_total")
	p99 := latest(t, before, after, 0.99)
	t.Logf("%d devices with %d tags: %.0f polls in %v, %.0f missed, %.1f %% of one core, half of the polls less than %v late, 90 %% %v, 99 %% %v", devices, tags, polls, took.Round(time.Second), missed, 100*share,
		latest(t, before, after, 0.5), latest(t, before, after, 0.9), p99)
	if want := float64(devices) * (took.Seconds() - 1); polls+missed < want {
		t.Errorf("%.0f polls, want %.0f", polls+missed, want)
	}
	if os.Getenv("PROVE") == "" {
		return
	}
	if share > 0.3 || p99 > 50*time.Millisecond || missed > 0 {
		t.Error("too much, too late, or not at all")
	}
}

// manyDevices starts devices and returns their configuration.
func manyDevices(t *testing.T, devices, tags int) string {
	t.Helper()
	var buses, list strings.Builder
	began := time.Now()
	for i := range devices {
		sim, err := simulator.Listen("tcp://127.0.0.1:0", simulator.Config{Read: func(_ byte, _ modbus.Table, address, quantity uint16) ([]uint16, error) {
			values := make([]uint16, quantity)
			for at := range values {
				values[at] = address + uint16(at) + uint16(time.Since(began).Seconds())
			}
			return values, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sim.Close() })
		fmt.Fprintf(&buses, "  b%d: {url: %q}\n", i, sim.URL())
		fmt.Fprintf(&list, "  - id: d%d\n    adapter: modbus\n    bus: b%[1]d\n    unit: 1\n    groups: {g: {interval: 1s}}\n    tags:\n", i)
		fmt.Fprintf(&list, "      t: {address: \"holding:0\", type: \"int16[%d]\", scale: 0.1}\n", tags)
	}
	return "buses:\n" + buses.String() + "devices:\n" + list.String()
}

// sum adds up a metric over its labels.
func sum(t *testing.T, metrics, name string) (total float64) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^headgate_`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		total += v
	}
	return total
}

// latest is below which bound a share of the polls between two readings of the
// metrics were late.
func latest(t *testing.T, before, after string, share float64) time.Duration {
	t.Helper()
	buckets := regexp.MustCompile(`(?m)^headgate_poll_late_seconds_bucket\{le="([^"]+)"\} (\d+)$`)
	then, now := buckets.FindAllStringSubmatch(before, -1), buckets.FindAllStringSubmatch(after, -1)
	if len(now) == 0 || len(then) != len(now) {
		t.Fatalf("no histogram of late polls:\n%s", after)
	}
	all := sum(t, after, "poll_late_seconds_count") - sum(t, before, "poll_late_seconds_count")
	for i := range now {
		high, _ := strconv.ParseFloat(now[i][2], 64) // digits
		low, _ := strconv.ParseFloat(then[i][2], 64)
		if bound, err := strconv.ParseFloat(now[i][1], 64); err == nil && high-low >= share*all {
			return time.Duration(bound * float64(time.Second))
		}
	}
	return time.Hour
}
