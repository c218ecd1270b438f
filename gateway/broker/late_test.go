package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// Who was revoked between handshake and CONNECT is not let in.
func TestRevokedBetweenHandshakeAndConnect(t *testing.T) {
	server, serverCA := selfSigned(t, "broker")
	press, clientCA := selfSigned(t, "press-1")
	var revoked atomic.Bool
	asked := make(chan struct{}, 10)
	conf := &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: clientCA, ClientAuth: tls.RequireAndVerifyClientCert}
	conf.VerifyConnection = func(tls.ConnectionState) error {
		asked <- struct{}{}
		if revoked.Load() {
			return errors.New("revoked")
		}
		return nil
	}
	h := open(t, Limits{})
	h.close()
	h.config.Listeners = []Listener{{Address: "127.0.0.1:0", TLS: func() (*tls.Config, error) { return conf, nil }}}
	h.start()
	h.b.access = byCertificate{h.gate}
	nc, err := tls.Dial("tcp", h.addr, &tls.Config{RootCAs: serverCA, Certificates: []tls.Certificate{press}})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	<-asked // the handshake is over at its side too, or nearly
	revoked.Store(true)
	h.b.Recheck() // what watchAccess does when the list changed
	c := newClient(t, nc, mqtt.V5)
	hello, err := mqtt.Append(nil, mqtt.V5, &mqtt.Connect{Version: mqtt.V5, ClientID: "a", CleanStart: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(hello); err != nil {
		return // cut off at once
	}
	if p, err := c.read(); err == nil { // an error is an alert of TLS
		if ack, ok := p.(*mqtt.Connack); !ok || ack.Code == mqtt.Success {
			t.Errorf("revoked before CONNECT, and in: %v", p)
		}
	}
}

type slowGate struct {
	expelling
	in, out chan struct{}
}

func (g *slowGate) Authenticate(ctx context.Context, c access.Credentials) (access.Identity, error) {
	id, err := g.expelling.Authenticate(ctx, c)
	if g.in != nil {
		g.in <- struct{}{}
		<-g.out
	}
	return id, err
}

// Who is removed while his CONNECT is being decided does not stay.
func TestRemovedWhileConnecting(t *testing.T) {
	h := open(t, Limits{})
	gate := &slowGate{expelling: expelling{password: password{h.gate}}, in: make(chan struct{}), out: make(chan struct{})}
	h.b.access = gate
	c := h.dial(mqtt.V5)
	go func() {
		<-gate.in
		who := "bob"
		gate.who.Store(&who)
		h.b.Recheck()
		close(gate.out)
	}()
	if code := c.connect("bob", "b").Code; code == mqtt.Success {
		c.send(&mqtt.Pingreq{})
		if p, err := c.read(); err == nil {
			if _, ok := p.(*mqtt.Pingresp); ok {
				t.Error("removed, and in")
			}
		}
	}
}

// A WebSocket client may ping when MQTT has been quiet for longer than limits.Write.
func TestWebSocketPingWhenQuiet(t *testing.T) {
	h := open(t, Limits{Write: 200 * time.Millisecond, Connect: time.Second})
	h.serve(Listener{WebSocket: true})
	w := h.web(t)
	w.write(frame(final|binaryFrame, encode(t, mqtt.V5, &mqtt.Connect{
		Version: mqtt.V5, ClientID: "a", CleanStart: true, Username: "alice", UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true})))
	w.next()
	wait(t.Context(), time.Second)
	w.write(frame(final|ping, []byte("?")))
	first, payload := w.next()
	if first != final|pong || string(payload) != "?" {
		t.Errorf("got %x %q", first, payload)
	}
}

// What waits for an older commit is bounded by the window.
func TestLateAnswersAreBounded(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(true, "*", both, "a")))
	c := h.login(mqtt.V5, "alice", "a")
	var on *conn
	for _, on = range h.b.connections() {
	}
	on.answers.submit() // a commit that the disk holds up
	flood := encode(t, mqtt.V5, &mqtt.Publish{Topic: []byte("forbidden"), QoS: 1, PacketID: 1})
	c.nc.SetDeadline(time.Now().Add(patience))
	for range 100_000 { // it is hung up on
		if _, err := c.nc.Write(flood); err != nil {
			break
		}
	}
	for {
		if _, err := c.dec.Read(); err != nil {
			break
		}
	}
	on.answers.mu.Lock()
	n := len(on.answers.late)
	on.answers.mu.Unlock()
	if n > 100 {
		t.Errorf("%d answers wait, of a window of 100", n)
	}
	on.answers.commit(nil)
}
