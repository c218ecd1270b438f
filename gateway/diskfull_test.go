package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// A stranger fills the disk: publishers are refused and told so, local clients
// go on with QoS 0, and when there is room again so does everything. What was
// acknowledged arrives, no more and no less.
func TestDiskFull(t *testing.T) {
	config, address, disk := siteOnSmallDisk(t)
	g := startGateway(t, config)
	got := make(chan string, 100_000)
	dial(t, client.Options{Address: address, ClientID: "away", SessionExpiry: 3600}, "plant/full").Disconnect()
	near := make(chan string, 100)
	dial(t, client.Options{Address: address, ClientID: "near", CleanStart: true, OnMessage: func(m *client.Message) error {
		near <- string(m.Payload)
		return nil
	}}, "plant/near")
	cl := dial(t, client.Options{Address: address, ClientID: "writer", CleanStart: true})
	p := &filler{t: t, cl: cl, size: 4 << 10}
	for range 100 {
		p.publish()
	}
	fillDisk(t, filepath.Join(disk, "foreign"))
	for p.refused < 20 {
		p.publish()
	}
	near0 := client.Message{Topic: "plant/near", Payload: []byte("on"), QoS: 0}
	if err := cl.Publish(t.Context(), near0); err != nil {
		t.Fatal(err)
	}
	select {
	case <-near:
	case <-time.After(5 * time.Second):
		t.Error("QoS 0 between local clients has stopped")
	}
	if err := os.Remove(filepath.Join(disk, "foreign")); err != nil {
		t.Fatal(err)
	}
	began, before := time.Now(), len(p.kept)
	for len(p.kept) == before {
		if p.publish(); time.Since(began) > 5*time.Second {
			t.Fatal("refused for 5 s after there was room")
		}
	}
	t.Logf("goes on after %v", time.Since(began).Round(time.Millisecond))
	for range 100 {
		p.publish()
	}
	g.kill()
	startGateway(t, config)
	dial(t, client.Options{Address: address, ClientID: "away", SessionExpiry: 3600, OnMessage: func(m *client.Message) error {
		number, _, _ := strings.Cut(string(m.Payload), " ")
		got <- number
		return nil
	}})
	p.wantKept(got)
	t.Logf("%d acknowledged and delivered, %d refused with 0x97", len(p.kept), p.refused)
}

// A lane that drops its oldest goes on when the disk is full: what is
// acknowledged comes to the cloud, or the cloud is told of it, to the message.
func TestDiskFullDropsOldest(t *testing.T) {
	cloud := newCloud(t, "")
	s := newSite(t, cloud, `queue:
  min_free: 0B
  lanes:
    - {name: telemetry, topics: ["#"], when_full: drop_oldest}
`)
	mountSmall(t, filepath.Join(s.dir, "data", "queue"))
	startGateway(t, s.config)
	p := &filler{t: t, cl: dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "writer", CleanStart: true}), size: 64 << 10}
	for range 2000 { // twice what there is room for
		p.publish()
	}
	var mu sync.Mutex // covers come and lost
	come, lost := map[string]bool{}, 0
	cloud.start(t)
	cloud.watch(t, func(m *client.Message) {
		mu.Lock()
		defer mu.Unlock()
		var e struct{ Count int }
		switch strings.TrimPrefix(m.Topic, "sites/site-1/") {
		case "plant/full":
			number, _, _ := strings.Cut(string(m.Payload), " ")
			come[number] = true
		case "hg/site-1/lost":
			if err := json.Unmarshal(m.Payload, &e); err != nil {
				t.Errorf("announced %s, %v", m.Payload, err)
			}
			lost += e.Count
		}
	})
	waitWithin(t, 40*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(come)+lost >= len(p.kept) && come[strconv.Itoa(p.kept[len(p.kept)-1])]
	})
	mu.Lock()
	defer mu.Unlock()
	if len(come)+lost != len(p.kept) || lost == 0 {
		t.Errorf("%d come and %d lost, of %d acknowledged", len(come), lost, len(p.kept))
	}
	t.Logf("%d acknowledged, %d refused; %d delivered, %d lost and told", len(p.kept), p.refused, len(come), lost)
}

// A filler publishes numbered messages.
type filler struct {
	t       *testing.T
	cl      *client.Client
	size    int
	sent    int
	kept    []int // acknowledged
	refused int
}

func (p *filler) publish() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	payload := append(fmt.Appendf(nil, "%d ", p.sent), make([]byte, p.size)...)
	err := p.cl.Publish(ctx, client.Message{Topic: "plant/full", Payload: payload, QoS: 1})
	switch {
	case err == nil:
		p.kept = append(p.kept, p.sent)
	case strings.Contains(err.Error(), "quota exceeded"):
		p.refused++
	default:
		p.t.Fatalf("message %d: %v", p.sent, err)
	}
	p.sent++
}

// wantKept wants what was acknowledged, in order and nothing else.
func (p *filler) wantKept(got <-chan string) {
	p.t.Helper()
	for _, want := range p.kept {
		select {
		case number := <-got:
			if number != strconv.Itoa(want) {
				p.t.Fatalf("%s came, where %d was to come", number, want)
			}
		case <-time.After(10 * time.Second):
			p.t.Fatalf("%d was acknowledged and does not come", want)
		}
	}
	select {
	case number := <-got:
		p.t.Errorf("%s came, which was refused", number)
	case <-time.After(300 * time.Millisecond):
	}
}

// siteOnSmallDisk is a gateway whose data lies on a disk of 64 MB.
func siteOnSmallDisk(t *testing.T) (config, address, disk string) {
	t.Helper()
	config, address = localSite(t)
	disk = filepath.Join(filepath.Dir(config), "disk")
	mountSmall(t, disk)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(text), "data: data}", "data: disk/data}\nqueue: {min_free: 0B}", 1)
	if err := os.WriteFile(config, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, address, disk
}

// mountSmall makes dir a disk of 64 MB.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = syscall.Mount("none", dir, "tmpfs", 0, "size=64m,mode=700")
	}
	if err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fillDisk writes a file until nothing more goes.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
}
