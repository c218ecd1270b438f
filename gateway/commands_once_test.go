package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// receiveAtQoS2 lets commands in.
func (s *site) receiveAtQoS2(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "who: \"local\", topics: [", "who: \"local\", topics: [\"cmd/#\", ", 1)
	changed = strings.Replace(changed, "  rules:\n", "  rules:\n    - {allow: publish, who: \"link:cloud\", topics: [\"cmd/#\"]}\n", 1)
	changed += "    receive: [{topics: [\"sites/{gateway}/cmd/#\"], qos: 2, strip: \"sites/{gateway}/\"}]\n"
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The gateway is killed at random moments while the cloud sends commands at QoS
// 2: each is stored, once.
func TestKill9CommandsQoS2(t *testing.T) {
	for _, protocol := range []string{"", "    protocol: 3.1.1\n"} {
		t.Run(strings.TrimSpace(protocol), func(t *testing.T) { killCommands(t, protocol) })
	}
}

func killCommands(t *testing.T, protocol string) {
	rounds := 3
	if os.Getenv("PROVE") != "" {
		rounds = 50
	}
	cloud := newCloud(t, "")
	cloud.start(t)
	s := newSite(t, cloud, protocol)
	s.receiveAtQoS2(t)
	var mu sync.Mutex // covers got
	got := map[string]int{}
	local := client.Options{
		Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "machine", SessionExpiry: 3600, ReceiveMaximum: 1000,
		OnMessage: func(m *client.Message) error {
			mu.Lock()
			defer mu.Unlock()
			got[string(m.Payload)]++
			return nil
		},
	}
	g := startGateway(t, s.config)
	dial(t, local, "cmd/#").Disconnect() // its session keeps what comes
	online := make(chan struct{}, 100)
	sender := cloud.watchAs(t, "sender", func(m *client.Message) {
		if m.Topic == "sites/site-1/hg/site-1/state" {
			online <- struct{}{}
		}
	})
	<-online // it has subscribed: from now on the cloud keeps what is for it
	sent := 0
	for range rounds {
		sent = command(t, sender, sent, time.After(time.Duration(300+rand.IntN(900))*time.Millisecond))
		g.kill()
		g = startGateway(t, s.config)
	}
	dial(t, local)
	waitWithin(t, time.Minute, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) >= sent
	})
	mu.Lock()
	defer mu.Unlock()
	for i := range sent {
		if n := got[fmt.Sprint(i)]; n != 1 {
			t.Errorf("command %d came %d times", i, n)
		}
	}
	t.Logf("%d commands over %d kills", sent, rounds)
	if sent < 20*rounds {
		t.Error("too few: the test did not test")
	}
}

// command sends numbered commands, one after another, until it is time.
func command(t *testing.T, sender *client.Client, n int, until <-chan time.Time) int {
	t.Helper()
	acked := make(chan error, 1)
	for {
		sender.PublishAsync(client.Message{Topic: "sites/site-1/cmd/do", Payload: fmt.Append(nil, n), QoS: 2}, func(err error) { acked <- err })
		if err := <-acked; err != nil {
			t.Fatal(err)
		}
		n++
		select {
		case <-until:
			return n
		default:
		}
	}
}
