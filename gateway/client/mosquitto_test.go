package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mosquitto starts Debian's broker with extra configuration and returns its
// address. It ends with the test.
func mosquitto(t *testing.T, extra string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("user root\nlistener %s 127.0.0.1\nmax_inflight_messages 0\nmax_queued_messages 0\n%s\n", port, extra)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	broker := exec.Command("/usr/sbin/mosquitto", "-c", file)
	if err := broker.Start(); err != nil {
		t.Fatalf("start mosquitto: %v; install the package mosquitto", err)
	}
	t.Cleanup(func() {
		broker.Process.Kill()
		broker.Wait()
	})
	ready, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return address
		}
		select {
		case <-retry.C:
		case <-ready.Done():
			t.Fatal("mosquitto does not listen")
		}
	}
}

func dial(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	})
	return c
}

var versions = map[string]mqtt.Version{"3.1.1": mqtt.V311, "5": mqtt.V5}

func TestEveryQoS(t *testing.T) {
	address := mosquitto(t, "allow_anonymous true")
	for name, version := range versions {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s QoS %d", name, qos), func(t *testing.T) {
				got := make(chan *Message, 1)
				c := dial(t, Options{
					Address: address, Version: version, CleanStart: true, KeepAlive: time.Second,
					OnMessage: func(m *Message) error { got <- m; return nil },
				})
				codes, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "t/+", QoS: qos})
				if err != nil || len(codes) != 1 || codes[0] != mqtt.ReasonCode(qos) {
					t.Fatal(codes, err)
				}
				sent := Message{Topic: "t/a", Payload: []byte("x"), QoS: qos}
				if version == mqtt.V5 {
					sent.ContentType, sent.CorrelationData = "text/plain", []byte{1}
					sent.UserProperties = []mqtt.UserProperty{{Key: "k", Value: "v"}}
				}
				if err := c.Publish(t.Context(), sent); err != nil {
					t.Fatal(err)
				}
				if m := <-got; fmt.Sprint(*m) != fmt.Sprint(sent) {
					t.Errorf("got %+v, sent %+v", *m, sent)
				}
				if _, err := c.Unsubscribe(t.Context(), "t/+"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestPipelinedInOrder(t *testing.T) {
	const count = 5000
	address := mosquitto(t, "allow_anonymous true")
	for name, version := range versions {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s QoS %d", name, qos), func(t *testing.T) {
				next, all := 0, make(chan struct{})
				subscriber := dial(t, Options{Address: address, Version: version, CleanStart: true,
					OnMessage: func(m *Message) error {
						if string(m.Payload) != fmt.Sprint(next) {
							return fmt.Errorf("message %d is %s", next, m.Payload)
						}
						if next++; next == count {
							close(all)
						}
						return nil
					}})
				if _, err := subscriber.Subscribe(t.Context(), mqtt.Subscription{Filter: "n", QoS: qos}); err != nil {
					t.Fatal(err)
				}
				publisher := dial(t, Options{Address: address, Version: version, CleanStart: true})
				var pending sync.WaitGroup
				for i := range count {
					pending.Add(1)
					publisher.PublishAsync(Message{Topic: "n", Payload: []byte(fmt.Sprint(i)), QoS: qos}, func(err error) {
						if err != nil {
							t.Error(err)
						}
						pending.Done()
					})
				}
				pending.Wait()
				select {
				case <-all:
				case <-subscriber.Done():
					t.Fatal(subscriber.Err())
				}
			})
		}
	}
}

func TestUnacknowledgedComesAgain(t *testing.T) {
	address := mosquitto(t, "allow_anonymous true")
	refuse := errors.New("disk full")
	o := Options{Address: address, ClientID: "durable", SessionExpiry: 60,
		OnMessage: func(*Message) error { return refuse }}
	first, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Subscribe(t.Context(), mqtt.Subscription{Filter: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, Options{Address: address, CleanStart: true}).Publish(t.Context(), Message{Topic: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if <-first.Done(); !errors.Is(first.Err(), refuse) {
		t.Fatal(first.Err())
	}
	again := make(chan *Message, 1)
	o.OnMessage = func(m *Message) error { again <- m; return nil }
	if second := dial(t, o); !second.Connack().SessionPresent {
		t.Error("session is gone")
	}
	if m := <-again; !m.Dup {
		t.Error("a repetition has to say so")
	}
}

func TestWill(t *testing.T) {
	address := mosquitto(t, "allow_anonymous true")
	got := make(chan *Message, 1)
	watcher := dial(t, Options{Address: address, CleanStart: true,
		OnMessage: func(m *Message) error { got <- m; return nil }})
	if _, err := watcher.Subscribe(t.Context(), mqtt.Subscription{Filter: "state"}); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), Options{Address: address, CleanStart: true,
		Will: &mqtt.Will{Topic: "state", Payload: []byte("offline")}})
	if err != nil {
		t.Fatal(err)
	}
	c.stop(errors.New("cable cut"))
	<-c.Done()
	if m := <-got; string(m.Payload) != "offline" {
		t.Errorf("%s", m.Payload)
	}
}

func TestRefusedConnectNamesTheReason(t *testing.T) {
	address := mosquitto(t, "allow_anonymous false")
	for name, version := range versions {
		_, err := Dial(t.Context(), Options{Address: address, Version: version, CleanStart: true,
			Username: "u", Password: []byte("wrong")})
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Code != mqtt.NotAuthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
}
