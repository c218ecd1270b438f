package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/broker"
	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/storequeue"
)

// A cloud stands in for the far broker: mutual TLS, a CA of its own, and a
// watcher that counts what arrives.
type cloud struct {
	dir    string // of its certificates
	queue  *storequeue.Queue
	broker *broker.Broker
	tally  tally
}

const gatewayName, watcherName = "demo-gateway", "watcher"

func newCloud(dir string) (*cloud, error) {
	c := &cloud{dir: filepath.Join(dir, "cloud-pki"), tally: tally{seen: map[uint64]int{}}}
	if err := pki.Init(c.dir, nil); err != nil {
		return nil, err
	}
	for _, name := range []string{gatewayName, watcherName} {
		if _, _, err := pki.Issue(c.dir, name, pki.ForClient, pki.Options{}); err != nil {
			return nil, err
		}
	}
	rules, err := access.Compile([]access.Rule{
		{Allow: true, Actions: []access.Action{access.Publish}, Who: gatewayName, Topics: []string{"sites/#"}},
		{Allow: true, Actions: []access.Action{access.Subscribe}, Who: watcherName, Topics: []string{"sites/#"}},
	})
	if err != nil {
		return nil, err
	}
	if c.queue, err = storequeue.Open(filepath.Join(dir, "cloud-queue"), storequeue.Config{}); err != nil {
		return nil, err
	}
	c.broker, err = broker.New(broker.Config{
		Listeners: []broker.Listener{{Address: "127.0.0.1:0", TLS: pki.Server(pki.ServerFiles{
			Certificate: c.file(pki.BrokerCertificate), Key: c.file(pki.BrokerKey),
			ClientCA: c.file(pki.CACertificate), Policy: pki.Required,
		})}},
		Access: access.NewGate(access.Config{}, nil, rules, nil),
		Queue:  c.queue,
	})
	return c, err
}

func (c *cloud) file(name string) string { return filepath.Join(c.dir, name) }

// address waits until the cloud listens.
func (c *cloud) address(ctx context.Context) (string, error) {
	select {
	case <-c.broker.Ready():
		return c.broker.Addrs()[0].String(), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// watch subscribes at the cloud, not through the cable that gets cut.
func (c *cloud) watch(ctx context.Context) (*client.Client, error) {
	address, err := c.address(ctx)
	if err != nil {
		return nil, err
	}
	config, err := pki.Client(pki.ClientFiles{
		CA: c.file(pki.CACertificate), Certificate: c.file(watcherName + ".crt"), Key: c.file(watcherName + ".key"),
	})("localhost")
	if err != nil {
		return nil, err
	}
	w, err := client.Dial(ctx, client.Options{
		Address: address, TLS: config, ClientID: watcherName, Version: mqtt.V5, CleanStart: true,
		KeepAlive: time.Minute, OnMessage: c.tally.arrived,
	})
	if err != nil {
		return nil, err
	}
	codes, err := w.Subscribe(ctx, mqtt.Subscription{Filter: "sites/#", QoS: 1})
	if err == nil && codes[0] >= 0x80 {
		err = fmt.Errorf("subscribe at the cloud: %v", codes[0])
	}
	return w, err
}

// A tally counts messages at the cloud by their identity.
type tally struct {
	mu      sync.Mutex     // covers the fields below
	seen    map[uint64]int // sequence → times
	repeats int
	strange int // without an hg-id
	first   time.Time
	topic   string // of the last one, and its payload
	payload string
}

func (t *tally) arrived(m *client.Message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Retain {
		return nil // the state of before we looked
	}
	seq, ok := sequence(m.Properties.UserProperties)
	if !ok {
		t.strange++ // the will, for one: the cloud publishes it, not the queue
		return nil
	}
	if t.seen[seq]++; t.seen[seq] > 1 {
		t.repeats++
		return nil
	}
	if isReading(m.Topic) {
		if t.first.IsZero() {
			t.first = time.Now()
		}
		t.topic, t.payload = m.Topic, string(m.Payload)
	}
	return nil
}

// isReading tells telemetry from state and meta.
func isReading(topic string) bool {
	last := topic[strings.LastIndexByte(topic, '/')+1:]
	return last != "state" && last != "meta"
}

// sequence is the last part of hg-id.
func sequence(props []mqtt.UserProperty) (uint64, bool) {
	for _, p := range props {
		if p.Key == "hg-id" {
			n, err := strconv.ParseUint(p.Value[strings.LastIndexByte(p.Value, '/')+1:], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// missing counts the sequences up to last that did not arrive.
func (t *tally) missing(last uint64) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for seq := uint64(1); seq <= last; seq++ {
		if t.seen[seq] == 0 {
			n++
		}
	}
	return n
}

func (t *tally) snapshot() (arrived, repeats int, first time.Time, topic, payload string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.seen), t.repeats, t.first, t.topic, t.payload
}
