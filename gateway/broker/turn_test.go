package broker

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// Handshakes wait for their turn, clients do not, and who stops in the middle of
// a handshake has no turn.
func TestHandshakesTakeTurns(t *testing.T) {
	cert, ca := selfSigned(t, "broker")
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	h := open(t, Limits{})
	h.close()
	h.config.Listeners = []Listener{{Address: "127.0.0.1:0", TLS: func() (*tls.Config, error) { return conf, nil }}}
	h.start()
	dial := func() *tls.Conn {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return tls.Client(nc, &tls.Config{RootCAs: ca, ServerName: "127.0.0.1"})
	}
	in := newClient(t, dial(), mqtt.V5)
	in.connect("alice", "in")

	for range 2 * cap(h.b.turns) { // more than there are turns
		halfway, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer halfway.Close()
		if _, err := halfway.Write([]byte{22, 3, 1, 1, 0, 1}); err != nil { // a ClientHello of 256 bytes, of which one
			t.Fatal(err)
		}
	}
	newClient(t, dial(), mqtt.V5).connect("alice", "beside")

	for range cap(h.b.turns) {
		h.b.turns <- struct{}{}
	}
	late := dial()
	late.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if err := late.Handshake(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a handshake without a turn: %v", err)
	}
	in.ping()
	for range cap(h.b.turns) {
		<-h.b.turns
	}
	newClient(t, dial(), mqtt.V5).connect("alice", "late")
	for range cap(h.b.turns) {
		select {
		case h.b.turns <- struct{}{}:
		case <-time.After(patience):
			t.Fatal("a turn did not come back")
		}
	}
	for range cap(h.b.turns) { // the handshakes that the end of the test breaks off need them
		<-h.b.turns
	}
}

// A turn goes back when the handshake is over in the middle of it.
func TestTurnGoesBack(t *testing.T) {
	near, far := net.Pipe()
	all := make(turns, 1)
	s := &shaking{Conn: near, turns: all}
	go far.Write([]byte("x")) // ends with the read
	if _, err := s.Read(make([]byte, 1)); err != nil || len(all) != 1 {
		t.Fatal(err, len(all))
	}
	if s.over(); len(all) != 0 {
		t.Error("the turn is kept")
	}
	go far.Write([]byte("x"))
	if _, err := s.Read(make([]byte, 1)); err != nil || len(all) != 0 {
		t.Errorf("a turn is taken after the handshake: %v", err)
	}
}
