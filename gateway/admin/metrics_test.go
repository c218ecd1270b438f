package admin

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var sampleLine = regexp.MustCompile(`^headgate_[a-z0-9_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+$`)

// Every line is one of the format, each family is described once, before its
// samples, and no sample is there twice.
func TestMetricsFormat(t *testing.T) {
	st := sample
	st.Clients.Logins = map[string]uint64{"ok": 1, "locked": 2}
	st.Clients.Listeners = []ListenerStatus{{"0.0.0.0:8883", "5", 3}}
	st.Queue.Lost = []LostStatus{{"any", "damaged", 3}, {"link", "max_size", 7}}
	st.Queue.Lanes = []LaneStatus{{Link: "cloud", Lane: "alarms"}, {Link: "cloud", Lane: "telemetry", Waiting: 5, Bytes: 4096, Oldest: time.Now().Add(-time.Hour)}}
	st.Queue.Corrupt = 2
	var latency Latency
	latency.Commit.Observe(3 * time.Millisecond)
	latency.Commit.Observe(time.Minute)
	text := string(metrics(st, []Client{{ID: `a"\b`, Identity: "i", Waiting: 4}}, &latency))
	family, seen := "", map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			family, _, _ = strings.Cut(rest, " ")
			if seen[family] {
				t.Errorf("%s is described twice", family)
			}
			seen[family] = true
			continue
		}
		if strings.HasPrefix(line, "# TYPE "+family+" ") {
			continue
		}
		name, _, _ := strings.Cut(line, " ")
		if !sampleLine.MatchString(line) || !strings.HasPrefix(line, family) || seen[name] && name != family {
			t.Errorf("not a line of the format, or not of family %s, or there twice: %q", family, line)
		}
		seen[name] = true
	}
	for _, want := range []string{
		`headgate_device_up{device="odd\"name"} 1`, `headgate_logins_total{result="locked"} 2`,
		`headgate_connections{listener="0.0.0.0:8883",mqtt="5"} 3`, `headgate_client_waiting_messages{client="a\"\\b",identity="i"} 4`,
		`headgate_commit_seconds_bucket{le="0.0025"} 0`, `headgate_commit_seconds_bucket{le="0.005"} 1`, `headgate_commit_seconds_bucket{le="10"} 1`,
		`headgate_commit_seconds_bucket{le="+Inf"} 2`, `headgate_commit_seconds_count 2`, `headgate_commit_seconds_sum 60.003`,
		`headgate_build_info{version="1",go="`,
		`headgate_queue_lost_total{reader="any",reason="damaged"} 3`, `headgate_queue_lost_total{reader="link",reason="max_size"} 7`,
		`headgate_lane_bytes{link="cloud",lane="telemetry"} 4096`, `headgate_lane_waiting_messages{link="cloud",lane="telemetry"} 5`,
		`headgate_lane_oldest_seconds{link="cloud",lane="alarms"} 0`, `headgate_lane_oldest_seconds{link="cloud",lane="telemetry"} 3600`,
		`headgate_queue_corrupt_files 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// However many clients there are, the number of series is bounded and the sums
// are right.
func TestClientSeriesAreBounded(t *testing.T) {
	var all []Client
	for i := range 20_000 {
		all = append(all, Client{ID: fmt.Sprintf("c%05d", i), Identity: "i", Sent: 1})
	}
	text := string(metrics(sample, all, &Latency{}))
	if n := strings.Count(text, "\n"); n > 10_000 {
		t.Errorf("%d lines", n)
	}
	if want := `headgate_client_sent_messages_total{client="(others)",identity=""} 19000`; !strings.Contains(text, want) {
		t.Errorf("no %s", want)
	}
	if len(all) != 20_000 || all[1000].ID != "c01000" {
		t.Error("the list was changed")
	}
}

func TestClientsOverTheSocket(t *testing.T) {
	socket := filepath.Join(socketDir(t), "s")
	serve(t, &Server{Socket: socket})
	got, err := GetClients(t.Context(), socket)
	if err != nil || len(got) != 1 || got[0] != (Client{ID: "c", Identity: "i", Connected: true, Sent: 5}) {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := GetClients(ctx, socket); err == nil {
		t.Error("asked after the context ended")
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Observe(3 * time.Millisecond)
	}
}
