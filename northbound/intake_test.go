package northbound

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A commander is a cloud's half of sending at QoS 2 in one session: it repeats
// what has no PUBREC, and PUBREL for what has, on each connection, and uses two
// packet ids again and again.
type commander struct {
	left  []string
	open  map[uint16]string // without PUBREC
	freed map[uint16]bool   // PUBREC came
}

func (cm *commander) hello(c *cloudConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range []uint16{1, 2} {
		if text, ok := cm.open[id]; ok {
			cm.send(c, id, text, true)
		} else if cm.freed[id] {
			c.send(&packets.Pubrel{PacketID: id, Properties: &packets.Properties{}})
		} else {
			cm.next(c, id)
		}
	}
}

// next wants c's mu held.
func (cm *commander) next(c *cloudConn, id uint16) {
	if len(cm.left) == 0 {
		return
	}
	cm.open[id], cm.left = cm.left[0], cm.left[1:]
	cm.send(c, id, cm.open[id], false)
}

func (cm *commander) send(c *cloudConn, id uint16, text string, dup bool) {
	c.send(&packets.Publish{Topic: "sites/gw/cmd/a", QoS: 2, PacketID: id, Duplicate: dup, Payload: []byte(text), Properties: &packets.Properties{}})
}

func (cm *commander) pubrec(c *cloudConn, id uint16) {
	c.mu.Lock()
	delete(cm.open, id)
	cm.freed[id] = true
	c.mu.Unlock()
	c.send(&packets.Pubrel{PacketID: id, Properties: &packets.Properties{}})
}

func (cm *commander) pubcomp(c *cloudConn, id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cm.freed[id] {
		delete(cm.freed, id)
		cm.next(c, id)
	}
}

const (
	atPubrecIn  step = "PUBREC in"
	atPubcompIn step = "PUBCOMP in"
	atStored    step = "stored" // before the link hears of it
)

// Commands at QoS 2 over a line that breaks, and a gateway that dies, after each
// packet of the handshake: each is stored once.
func TestCommandsExactlyOnce(t *testing.T) {
	for _, at := range []step{atConnack, atStored, atPubrecIn, atPubcompIn} {
		for _, crash := range []bool{false, true} {
			for k := 1; k <= 6 && (crash || at != atStored); k++ {
				t.Run(fmt.Sprint(at, k, crash), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { commandsOnce(t, at, k, crash) })
				})
			}
		}
	}
}

func commandsOnce(t *testing.T, at step, k int, crash bool) {
	const n = 8
	c := newCloud(t)
	c.connack.SessionPresent = true
	cm := &commander{open: map[uint16]string{}, freed: map[uint16]bool{}}
	for i := range n {
		cm.left = append(cm.left, fmt.Sprint("command ", i))
	}
	c.hello, c.commander = cm.hello, cm
	src := newSource(t, nil)
	notes, err := src.queue.Reader("came/cloud")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := src.queue.Reader("stored")
	if err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{}, 10)
	c.cut = func(s step, i int) bool {
		if s != at || i != k && i != k+2 {
			return false
		}
		if crash {
			dead <- struct{}{}
		}
		return true
	}
	finished := func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(cm.left)+len(cm.open)+len(cm.freed) == 0 }
	for !finished() {
		cfg := receiveConfig()
		cfg.State, cfg.Notes, cfg.MaxPause = src.queue, notes, 10*time.Millisecond
		cfg.Handle = func(ctx context.Context, m storequeue.Message) error {
			m.For = append(m.For, storequeue.Mark{Reader: stored.ID()})
			err := src.queue.Append(context.WithoutCancel(ctx), m)
			if c.at(atStored) {
				<-ctx.Done() // the gateway dies here
			}
			return err
		}
		_, stop := start(t, cfg, src, c)
		gone := false
		until(t, "done", func() bool {
			select {
			case <-dead:
				gone = true
			default:
			}
			return gone || finished()
		})
		stop()
	}
	wantOnce(t, stored, n)
}

func wantOnce(t *testing.T, stored *storequeue.Reader, n int) {
	t.Helper()
	msgs, err := stored.Peek(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for i := range msgs {
		got = append(got, string(msgs[i].Payload))
	}
	for i := range n {
		want = append(want, fmt.Sprint("command ", i))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("stored %v", got)
	}
}

// Packet ids of another session, or of another server, mean nothing.
func TestIntakeForgetsTheSession(t *testing.T) {
	src := newSource(t, nil)
	notes, err := src.queue.Reader("came/cloud")
	if err != nil {
		t.Fatal(err)
	}
	open := func() *intake {
		in, err := newIntake(src.queue, notes, "cloud")
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	in := open()
	meet := func(server string, present bool) {
		t.Helper()
		if err := in.meet(server, present); err != nil {
			t.Fatal(err)
		}
	}
	come := func(id uint16) {
		t.Helper()
		m := storequeue.Message{Topic: "a"}
		in.mark(&m, id)
		if err := src.queue.Append(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		in.take(id)
	}
	meet("a:1", true)
	come(7)
	come(8)
	if in = open(); !in.has(7) || !in.has(8) {
		t.Fatal("a start forgets what is noted")
	}
	if err := in.forget([]uint16{7, 9}); err != nil {
		t.Fatal(err)
	}
	meet("a:1", true)
	if in = open(); in.has(7) || !in.has(8) {
		t.Fatal("what PUBREL came for is kept, or more is gone")
	}
	come(7)
	for _, other := range []struct {
		server  string
		present bool
	}{{"b:1", true}, {"b:1", false}} {
		meet(other.server, other.present)
		if in.has(7) || in.has(8) {
			t.Errorf("%v: the packet ids of before count", other)
		}
		if in = open(); in.has(7) || in.has(8) {
			t.Errorf("%v: the packet ids of before count after a start", other)
		}
		come(7)
	}
}
