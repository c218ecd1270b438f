package broker

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"testing"

	"github.com/eclipse/paho.golang/paho"
)

// paho connects a client of paho.golang, with a session that outlives its
// connection. It is closed by the function returned.
func (h *house) paho(ctx context.Context, id string, got chan<- *paho.Publish) (c *paho.Client, present bool, leave func()) {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	c = paho.NewClient(paho.ClientConfig{
		ClientID: id, Conn: nc,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet
			return true, nil
		}},
	})
	expiry := uint32(3600)
	ack, err := c.Connect(ctx, &paho.Connect{
		ClientID: id, KeepAlive: 30, Username: "alice", UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true,
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return c, ack.SessionPresent, func() {
		if err := c.Disconnect(&paho.Disconnect{}); err != nil {
			h.t.Error(err)
		}
		<-c.Done()
	}
}

func TestPahoGo(t *testing.T) {
	h := open(t, Limits{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const total = 30
	got := make(chan *paho.Publish, total)
	s, _, leave := h.paho(ctx, "s", got)
	if _, err := s.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "t/#", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	leave()
	h.restart()

	p, _, leave := h.paho(ctx, "p", nil)
	properties := paho.PublishProperties{
		ContentType: "text", ResponseTopic: "answer/to", CorrelationData: []byte{0, 1},
		User: paho.UserProperties{{Key: "k", Value: "2"}, {Key: "k", Value: "1"}},
	}
	for i := range total {
		if _, err := p.Publish(ctx, &paho.Publish{Topic: "t/x", QoS: byte(1 + i%2), Payload: fmt.Append(nil, i), Properties: &properties}); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	h.restart()

	_, present, leave := h.paho(ctx, "s", got)
	if !present {
		t.Error("the session is gone")
	}
	for i := range total {
		select {
		case m := <-got:
			if string(m.Payload) != fmt.Sprint(i) || m.QoS != byte(1+i%2) {
				t.Fatalf("message %d is %q with QoS %d", i, m.Payload, m.QoS)
			}
			if !reflect.DeepEqual(*m.Properties, properties) {
				t.Fatalf("message %d: %+v", i, *m.Properties)
			}
		case <-ctx.Done():
			t.Fatalf("%d of %d came", i, total)
		}
	}
	leave()
}
