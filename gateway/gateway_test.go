package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/northbound"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/storequeue"
)

// load writes and loads a configuration; data is the folder "data" beside it.
func load(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	file := filepath.Join(dir, "headgate.yaml")
	if err := os.WriteFile(file, []byte("version: 1\nadmin: {address: \"\"}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// open opens a gateway for the test, whose folder must be short.
func open(t *testing.T, cfg *config.Config) (*Gateway, *bytes.Buffer) {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", "/tmp")
	var log bytes.Buffer
	g, err := New(cfg, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, &log
}

const self1 = "gateway: {id: one, data: data}\n"

func TestDataFolderOfAnother(t *testing.T) {
	dir := t.TempDir()
	g, _ := open(t, load(t, dir, self1))
	g.Close()
	_, err := New(load(t, dir, "gateway: {id: two, data: data}\n"), Options{})
	if !errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), `belongs to gateway "one"`) {
		t.Errorf("another id: %v", err)
	}
}

func TestQueueThatIsGone(t *testing.T) {
	dir := t.TempDir()
	cfg := load(t, dir, self1)
	g, _ := open(t, cfg)
	g.Close()
	if err := os.RemoveAll(filepath.Join(dir, "data", "queue")); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, Options{}); !errors.Is(err, ErrSetup) || !errors.Is(err, storequeue.ErrMissing) {
		t.Errorf("no queue: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "queue")); err == nil {
		t.Error("a queue was made where one was missing")
	}
}

func TestDamagedIdentity(t *testing.T) {
	dir := t.TempDir()
	cfg := load(t, dir, self1)
	g, _ := open(t, cfg)
	g.Close()
	if err := os.WriteFile(filepath.Join(dir, "data", identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, Options{}); !errors.Is(err, ErrSetup) {
		t.Errorf("damaged identity: %v", err)
	}
}

// A device may publish below its own name, unless a rule of the file says no.
func TestBuiltInRules(t *testing.T) {
	const device = `buses: {b: {url: "tcp://127.0.0.1:1"}}
devices:
  - {id: boiler, adapter: modbus, bus: b, unit: 1, groups: {g: {interval: 1s}}, tags: {t: {group: g, address: "holding:1", type: int16}}}
`
	const uns = "telemetry: {publish: uns, uns: \"acme/{area}/{device}/{tag}\", labels: {area: hall}}\n"
	for name, tc := range map[string]struct {
		rules string
		topic string
		want  bool
	}{
		"own topic":      {"", "hg/one/boiler/g", true},
		"own state":      {"", "hg/one/boiler/state", true},
		"another device": {"", "hg/one/pump/g", false},
		"elsewhere":      {"", "plant/boiler", false},
		"plant":          {uns, "acme/hall/boiler/t", true},
		"plant's other":  {uns, "acme/hall/pump/t", false},
		"denied":         {"access: {rules: [{deny: publish, who: \"device:boiler\", topics: [\"#\"]}]}\n", "hg/one/boiler/g", false},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := open(t, load(t, t.TempDir(), self1+device+tc.rules))
			publish := g.publisher(access.Identity{Name: "device:boiler"})
			err := publish(t.Context(), southbound.Message{Topic: tc.topic, Payload: []byte("{}")})
			if (err == nil) != tc.want {
				t.Errorf("publish: %v, want allowed %v", err, tc.want)
			}
		})
	}
}

// What waits for a link that was taken out, or renamed by mistake, is kept and
// said; a link that nothing waits for is forgotten.
func TestLinkTakenOut(t *testing.T) {
	dir := t.TempDir()
	const rules = "access: {rules: [{allow: [publish, subscribe], who: \"*\", topics: [\"#\"]}]}\n"
	link := func(name, topic string) string {
		return fmt.Sprintf("  - {name: %s, client_id: %[1]s, servers: [\"mqtts://localhost:1\"], ca: a, certificate: b, key: c, send: [{topics: [%q]}]}\n", name, topic)
	}
	g, _ := open(t, load(t, dir, self1+rules+"northbound:\n"+link("cloud", "#")+link("idle", "nothing/#")))
	for i := range 3 {
		m := storequeue.Message{Topic: "a", Payload: fmt.Append(nil, i), QoS: 1}
		if err := g.broker.Publish(context.Background(), access.Identity{Name: "x"}, m); err != nil {
			t.Fatal(err)
		}
	}
	g.Close()
	g, log := open(t, load(t, dir, self1+rules))
	if !strings.Contains(log.String(), "link=cloud messages=3") || strings.Contains(log.String(), "link=idle") {
		t.Errorf("the log says\n%s", log)
	}
	for _, r := range g.queue.Stats().Readers {
		if r.Name == "link/idle" {
			t.Error("the idle link is still there")
		}
	}
	g.Close()
	g, _ = open(t, load(t, dir, self1+rules+"northbound:\n"+link("cloud", "#")))
	if got := g.Status().Links[0].Waiting; got != 3 {
		t.Errorf("%d messages wait after the link came back, want 3", got)
	}
}

// A queue without room does not keep the house from starting: what was
// quarantined stays where it is, and comes when there is room.
func TestStartWithAFullQueue(t *testing.T) {
	dir := t.TempDir()
	const text = self1 + "access: {rules: [{allow: subscribe, who: \"link:cloud\", topics: [\"#\"]}]}\nnorthbound:\n" +
		"  - {name: cloud, servers: [\"mqtts://localhost:1\"], ca: a, certificate: b, key: c, send: [{topics: [\"#\"]}]}\n"
	g, _ := open(t, load(t, dir, text))
	g.dropped(g.links[0], storequeue.Message{Topic: "a", Payload: []byte("1"), QoS: 1}, northbound.Refused)
	g.Close()
	g, log := open(t, load(t, dir, text+"queue: {min_free: 1000TiB}\n"))
	if got := g.links[0].quarantine.Waiting(); got != 1 {
		t.Errorf("%d in quarantine, want 1", got)
	}
	if !strings.Contains(log.String(), "no room") {
		t.Errorf("the log says\n%s", log)
	}
	g.Close()
	g, _ = open(t, load(t, dir, text))
	if got := g.links[0].lanes.all[0].Waiting(); got != 1 {
		t.Errorf("%d wait for the link, want 1", got)
	}
}

// What could not be announced is announced later.
func TestLossesAreNotForgotten(t *testing.T) {
	g, _ := open(t, load(t, t.TempDir(), self1))
	m := storequeue.Message{Topic: "a", Time: time.UnixMilli(5)}
	g.lost.skip("client", &m)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	g.sayLosses(ended)
	g.lost.skip("client", &m)
	if all := g.lost.take(); len(all) != 1 || all[0].Count != 2 || all[0].From != 5 {
		t.Errorf("losses %+v", all)
	}
}

// What a link lost is announced exactly once, also when the gateway dies between
// storing the announcement and striking it out, or before either.
func TestLossesAreAnnouncedOnce(t *testing.T) {
	dir := t.TempDir()
	const text = self1 + "access: {rules: [{allow: subscribe, who: \"link:cloud\", topics: [\"#\"]}]}\nnorthbound:\n" +
		"  - {name: cloud, servers: [\"mqtts://localhost:1\"], ca: a, certificate: b, key: c, send: [{topics: [\"#\"]}]}\n"
	lose := func(g *Gateway, n int) {
		t.Helper()
		r := g.links[0].lanes.all[0]
		for range n {
			m := storequeue.Message{Topic: "a", For: []storequeue.Mark{{Reader: r.ID()}}}
			if err := g.queue.Append(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			msgs, err := r.Poll(r.Acked(), 1)
			if err != nil || len(msgs) != 1 {
				t.Fatalf("%d messages, %v", len(msgs), err)
			}
			g.dropped(g.links[0], msgs[0], northbound.Expired)
			r.Ack(msgs[0].Seq)
		}
	}
	g, _ := open(t, load(t, dir, text))
	lose(g, 3)
	g.Close()
	g, _ = open(t, load(t, dir, text))
	lose(g, 2)
	g.saidAll = time.Time{} // as if it had been an hour
	all, err := g.queue.Losses(nil)
	if err != nil || len(all) != 2 || all[0].Count+all[1].Count != 5 {
		t.Fatalf("losses %+v, %v", all, err)
	}
	// The announcement is stored, and then the gateway dies.
	told := g.say(t.Context(), &loss{Link: "cloud", Reason: "expired", Count: all[0].Count}, []byte(all[0].ID), []storequeue.Mark{{Reader: g.told.ID()}})
	if told != nil {
		t.Fatal(told)
	}
	g.Close()
	g, _ = open(t, load(t, dir, text))
	lose(g, 4)
	g.saidAll = time.Time{}
	for range 2 {
		g.sayLosses(t.Context())
	}
	var counts []uint64
	msgs, err := g.links[0].lanes.own.Poll(0, 100)
	for _, m := range msgs {
		var e loss
		if err := json.Unmarshal(m.Payload, &e); err != nil || e.Link != "cloud" || e.Reason != "expired" {
			t.Errorf("announced %s, %v", m.Payload, err)
		}
		counts = append(counts, e.Count)
	}
	if err != nil || !slices.Equal(counts, []uint64{3, 2, 4}) && !slices.Equal(counts, []uint64{2, 3, 4}) {
		t.Errorf("announced %v, %v", counts, err)
	}
	if all, err := g.queue.Losses(nil); len(all) != 0 || err != nil {
		t.Errorf("left %+v, %v", all, err)
	}
}

// Many clients that lose something are not announced one by one.
func TestLossesOfManyClients(t *testing.T) {
	var l losses
	m := storequeue.Message{Topic: "a"}
	for i := range 3 * lossClients {
		l.skip(strconv.Itoa(i), &m)
	}
	all := l.take()
	var rest uint64
	for _, e := range all {
		if e.Client == "*" {
			rest = e.Count
		}
	}
	if len(all) != lossClients+1 || rest != 2*lossClients {
		t.Errorf("%d announcements, %d messages of others", len(all), rest)
	}
}

// A message that the disk has changed is announced once, however often it is
// come across.
func TestDamageIsAnnounced(t *testing.T) {
	dir := t.TempDir()
	const text = self1 + "access: {rules: [{allow: subscribe, who: \"link:cloud\", topics: [\"#\"]}]}\nnorthbound:\n" +
		"  - {name: cloud, servers: [\"mqtts://localhost:1\"], ca: a, certificate: b, key: c, send: [{topics: [\"#\"]}]}\n"
	g, _ := open(t, load(t, dir, text))
	for _, payload := range []string{"first", "to be damaged", "last"} {
		m := storequeue.Message{Topic: "a", Payload: []byte(payload), For: []storequeue.Mark{{Reader: g.links[0].lanes.all[0].ID(), QoS: 1}}}
		if err := g.queue.Append(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	g.Close()
	segments, err := filepath.Glob(filepath.Join(dir, "data", "queue", "seg-*"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	disk, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[0], bytes.ReplaceAll(disk, []byte("damaged"), []byte("DAMAGED")), 0o600); err != nil {
		t.Fatal(err)
	}
	g, _ = open(t, load(t, dir, text))
	for range 2 {
		if msgs, err := g.links[0].lanes.all[0].Poll(0, 10); err != nil || len(msgs) != 2 {
			t.Fatalf("%d messages, %v; want 2", len(msgs), err)
		}
	}
	all, err := g.queue.Losses(nil)
	if err != nil || len(all) != 1 || all[0].Count != 1 || all[0].Reason != storequeue.ReasonDamaged || all[0].Reader != "" {
		t.Errorf("losses %+v: %v", all, err)
	}
}
