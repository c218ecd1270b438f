package broker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// childEnv makes the test binary a broker over the queue it names.
const childEnv = "HEADGATE_BROKER_TEST_QUEUE"

// child serves until it is killed, or its standard input ends.
func child(dir string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	q, err := storequeue.Open(dir, storequeue.Config{})
	if err != nil {
		fail(err)
	}
	all, err := access.Compile([]access.Rule{{Allow: true, Who: "*", Actions: both, Topics: []string{"#"}}})
	if err != nil {
		fail(err)
	}
	b, err := New(Config{Queue: q, Access: password{access.NewGate(access.Config{}, nil, all, nil)},
		Listeners: []Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		fail(err)
	}
	go func() { fail(b.Run(context.Background())) }()
	<-b.Ready()
	fmt.Println(b.Addrs()[0])
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// spawn starts a broker over the house's queue in a process of its own.
func (h *house) spawn() (kill func()) {
	h.t.Helper()
	h.close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+h.dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
	})
	h.t.Cleanup(kill)
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = strings.TrimSpace(string(line[:n]))
	return kill
}

func TestProbe19Kill(t *testing.T) {
	h := open(t, Limits{})
	kill := h.spawn()
	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("a", 1)
	s.nc.Close()
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("kept", "retained", 1, retain)
	for i := range 500 {
		p.publish("a", fmt.Sprint(i), 1+byte(i%2))
	}
	kill()

	h.start()
	s = h.login(mqtt.V5, "bob", "s", durable)
	for i := range 500 {
		s.expectMessage(fmt.Sprint(i))
	}
	s.subscribe("kept", 0)
	s.expectMessage("retained")
}

// A cut ends the broker and gives it back: by its death, or by that of the
// connection alone.
var cuts = []struct {
	name string
	kill bool
}{{"connection", false}, {"kill -9", true}}

// eachCut runs a test with both versions and both ways of being cut off. again
// cuts and resumes the session.
func eachCut(t *testing.T, test func(t *testing.T, h *house, again func(c *client, user, id string) *client)) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		for _, cut := range cuts {
			t.Run(cut.name, func(t *testing.T) {
				h := open(t, Limits{})
				kill := h.spawn()
				first := h.login(v, "alice", "first", durable)
				first.ping()
				test(t, h, func(c *client, user, id string) *client {
					t.Helper()
					if cut.kill && c != nil {
						kill()
						kill = h.spawn()
					} else if c != nil {
						c.nc.Close()
					}
					c = h.dial(v)
					if ack := c.connect(user, id, durable); ack.Code != mqtt.Success {
						t.Fatalf("CONNECT: %v", ack.Code)
					}
					return c
				})
				kill()
			})
		}
	})
}

// The publisher is cut off after each packet of the QoS 2 flow, and goes on as
// the standard says. Each message is stored once.
func TestCutWhilePublishing(t *testing.T) {
	eachCut(t, func(t *testing.T, h *house, again func(*client, string, string) *client) {
		s := again(nil, "bob", "s")
		s.subscribe("a", 2)
		s.nc.Close()
		p := again(nil, "alice", "p")
		message := func(payload string, dup bool) *mqtt.Publish {
			return &mqtt.Publish{Topic: []byte("a"), Payload: []byte(payload), QoS: 2, PacketID: 7, Dup: dup}
		}
		rel := &mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 7}
		finish := func() {
			t.Helper()
			p.send(rel)
			p.expectAck(mqtt.PUBCOMP, 7, mqtt.Success)
		}

		p.send(message("after PUBLISH", false))
		p = again(p, "alice", "p")
		p.send(message("after PUBLISH", true))
		p.expectAck(mqtt.PUBREC, 7, mqtt.Success)
		finish()

		p.send(message("after PUBREC", false))
		p.expectAck(mqtt.PUBREC, 7, mqtt.Success)
		p = again(p, "alice", "p")
		p.send(message("after PUBREC", true)) // it never saw it
		p.expectAck(mqtt.PUBREC, 7, mqtt.Success)
		p = again(p, "alice", "p")
		finish()

		p.send(message("after PUBREL", false))
		p.expectAck(mqtt.PUBREC, 7, mqtt.Success)
		p.send(rel)
		p = again(p, "alice", "p")
		p.send(rel)
		if a := expect[*mqtt.Ack](p); a.Kind != mqtt.PUBCOMP || a.Code != mqtt.Success && a.Code != mqtt.PacketIdentifierNotFound {
			t.Errorf("PUBREL again: %v %v", a.Kind, a.Code)
		}

		p.send(message("after PUBCOMP", false))
		p.expectAck(mqtt.PUBREC, 7, mqtt.Success)
		finish()
		p = again(p, "alice", "p")
		p.send(rel)
		if a := expect[*mqtt.Ack](p); a.Kind != mqtt.PUBCOMP || p.v == mqtt.V5 && a.Code != mqtt.PacketIdentifierNotFound {
			t.Errorf("PUBREL of what is finished: %v %v", a.Kind, a.Code)
		}
		p.publish("a", "the same id", 2)

		s = again(nil, "bob", "s")
		for _, want := range []string{"after PUBLISH", "after PUBREC", "after PUBREL", "after PUBCOMP", "the same id"} {
			s.expectMessage(want)
		}
		s.ping() // and nothing else
	})
}

// The subscriber is cut off after each packet of the QoS 2 flow. No message is
// published again once its PUBREL was seen, and all keep their packet ids.
func TestCutWhileReceiving(t *testing.T) {
	eachCut(t, func(t *testing.T, h *house, again func(*client, string, string) *client) {
		s := again(nil, "bob", "s")
		s.subscribe("a", 2)
		publish := func(payload string) { h.login(s.v, "alice", "p").publish("a", payload, 2) }
		rec := func(m mqtt.Publish) { s.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: m.PacketID}) }
		rel := func(m mqtt.Publish) { t.Helper(); s.expectAck(mqtt.PUBREL, m.PacketID, mqtt.Success) }
		comp := func(m mqtt.Publish) { s.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: m.PacketID}) }

		publish("after PUBLISH")
		m := s.expectMessage("after PUBLISH")
		s = again(s, "bob", "s")
		if second := s.expectMessage("after PUBLISH"); second.PacketID != m.PacketID || !second.Dup {
			t.Errorf("sent again with packet id %d, dup %v; want %d", second.PacketID, second.Dup, m.PacketID)
		}

		rec(m) // seen or not
		s = again(s, "bob", "s")
		if p, err := s.read(); err != nil {
			t.Fatal(err)
		} else if second, ok := p.(*mqtt.Publish); ok && (second.PacketID != m.PacketID || !second.Dup) {
			t.Errorf("after PUBREC sent again as %+v", second)
		} else if ok {
			rec(m)
			rel(m)
		} else if a := p.(*mqtt.Ack); a.Kind != mqtt.PUBREL || a.PacketID != m.PacketID {
			t.Errorf("after PUBREC: %+v", a)
		}

		s = again(s, "bob", "s") // after PUBREL
		rel(m)
		comp(m)
		s.ping()
		s = again(s, "bob", "s") // after PUBCOMP, which may have been forgotten
		publish("next")
		p, err := s.read()
		if a, ok := p.(*mqtt.Ack); ok && a.Kind == mqtt.PUBREL && a.PacketID == m.PacketID {
			comp(m)
			p, err = s.read()
		}
		if next, ok := p.(*mqtt.Publish); !ok || string(next.Payload) != "next" || next.Dup || next.PacketID == m.PacketID {
			t.Errorf("after PUBCOMP: %+v, %v", p, err)
		}
	})
}
