package gateway_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/client"
)

// waiting is what a reader of the queue has before it.
func waiting(st admin.Status, reader string) uint64 {
	for _, r := range st.Queue.Readers {
		if r.Name == reader {
			return r.Waiting
		}
	}
	return 0
}

// What the cloud refuses for good is kept aside, holds nobody up, and is tried
// again at the next start.
func TestRefusedByTheCloud(t *testing.T) {
	acl := filepath.Join(t.TempDir(), "acl")
	allow := func(topics ...string) {
		text := "user watcher\ntopic read #\nuser gw\n"
		for _, topic := range topics {
			text += "topic write sites/site-1/" + topic + "\n"
		}
		if err := os.WriteFile(acl, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allow("plant/right", "hg/#")
	cloud := newCloud(t, "acl_file "+acl)
	far := cloud.start(t)
	topics := make(chan string, 100)
	cloud.watch(t, func(m *client.Message) { topics <- strings.TrimPrefix(m.Topic, "sites/site-1/") })
	s := newSite(t, cloud, "")
	g := startGateway(t, s.config)
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "x", CleanStart: true})
	for _, topic := range []string{"plant/wrong", "plant/right", "plant/right", "plant/right"} {
		if err := cl.Publish(t.Context(), client.Message{Topic: topic, Payload: []byte("1"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, topics, "plant/right", 3)
	waitFor(t, func() bool {
		st := s.status(t, g)
		return waiting(st, "quarantine/cloud") == 1 && st.Links[0].Refused == 1 && st.Links[0].Waiting == 0
	})
	g.stop(t, 5*time.Second)
	allow("plant/#", "hg/#")
	far.Process.Signal(syscall.SIGHUP)
	startGateway(t, s.config)
	expect(t, topics, "plant/wrong", 1)
}

// A gateway that starts with a backlog delivers it, and then what comes after it.
func TestStartWithABacklog(t *testing.T) {
	cloud := newCloud(t, "persistence true\npersistence_location "+t.TempDir()+"/\n")
	s := newSite(t, cloud, "")
	address := fmt.Sprintf("127.0.0.1:%d", s.plain)
	g := startGateway(t, s.config)
	durable := client.Options{Address: address, ClientID: "durable", SessionExpiry: 3600}
	dial(t, durable, "plant/#").Disconnect()
	publish := func(topic string) {
		t.Helper()
		cl := dial(t, client.Options{Address: address, ClientID: "x", CleanStart: true})
		if err := cl.Publish(t.Context(), client.Message{Topic: topic, Payload: []byte("1"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		cl.Disconnect()
	}
	publish("plant/before")
	g.stop(t, 5*time.Second)

	startGateway(t, s.config)
	local, far := make(chan string, 100), make(chan string, 100)
	durable.OnMessage = func(m *client.Message) error { local <- m.Topic; return nil }
	dial(t, durable)
	cloud.start(t)
	cloud.watch(t, func(m *client.Message) { far <- strings.TrimPrefix(m.Topic, "sites/site-1/") })
	for _, topic := range []string{"plant/before", "plant/after", "plant/later"} {
		if topic != "plant/before" {
			publish(topic)
		}
		expect(t, local, topic, 1)
		expect(t, far, topic, 1)
	}
}

// expect waits for n messages on a topic; others may come between.
func expect(t *testing.T, topics <-chan string, want string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for n > 0 {
		select {
		case topic := <-topics:
			if topic == want {
				n--
			}
		case <-ctx.Done():
			t.Fatalf("%d messages on %s are missing after 30 s", n, want)
		}
	}
}
