package broker

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// fillUp publishes so many messages of 1 KiB, and cuts sessions back.
func (h *house) fillUp(n int, qos byte) {
	h.t.Helper()
	p := h.login(mqtt.V5, "alice", "p")
	for i := range n {
		p.publish("a", fmt.Sprintf("%d %01000d", i, 0), qos)
	}
	h.cutBack()
}

func (h *house) cutBack() {
	h.t.Helper()
	for _, e := range h.b.excessive() {
		if err := h.b.cutBack(h.t.Context(), e); err != nil {
			h.t.Fatal(err)
		}
	}
}

func number(t *testing.T, m *mqtt.Publish) int {
	t.Helper()
	text, _, _ := strings.Cut(string(m.Payload), " ")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("strange message %q", m.Payload)
	}
	return n
}

// A session that is away keeps the newest of what it may keep; the rest is
// counted and told, also after a restart.
func TestSessionQueue(t *testing.T) {
	h := open(t, Limits{SessionQueue: 100 << 10})
	h.close()
	var lost atomic.Uint64
	h.config.Lost = func(client string, m *storequeue.Message) {
		if client != "s" || m.Topic != "a" {
			t.Errorf("%s lost something on %s", client, m.Topic)
		}
		lost.Add(1)
	}
	h.start()
	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("a", 1)
	s.nc.Close()
	h.untilFree("s")
	const n = 300
	h.fillUp(n, 1)
	if got := h.b.Stats().DroppedQueue; got == 0 || got != lost.Load() {
		t.Fatalf("%d counted, %d told", got, lost.Load())
	}
	h.restart()
	h.cutBack() // nothing to do

	s = h.login(mqtt.V5, "bob", "s", durable)
	first := int(lost.Load())
	if first < n/2 || first > n-50 {
		t.Errorf("%d of %d messages of 1 KiB were skipped for a queue of 100 KiB", first, n)
	}
	for i := first; i < n; i++ {
		if got := number(t, new(s.expectMessage(fmt.Sprintf("%d %01000d", i, 0)))); got != i {
			t.Fatalf("got %d, want %d", got, i)
		}
	}
	s.ping()
}

// A client that is connected and acknowledges nothing is closed, and is told
// with PUBREL what it will not get to the end.
func TestSessionQueueOfASlowClient(t *testing.T) {
	h := open(t, Limits{SessionQueue: 50 << 10})
	s := h.login(mqtt.V5, "bob", "s", durable, func(r *mqtt.Connect) { r.ReceiveMaximum = 3 })
	s.subscribe("a", 2)
	p := h.login(mqtt.V5, "alice", "p")
	p.publish("a", "0 first", 2)
	ids := map[uint16]bool{expect[*mqtt.Publish](s).PacketID: true}
	const n = 100
	h.fillUp(n, 2)
	ids[expect[*mqtt.Publish](s).PacketID] = true
	ids[expect[*mqtt.Publish](s).PacketID] = true
	if code := s.expectClosed(); code != mqtt.QuotaExceeded {
		t.Errorf("closed with %v", code)
	}
	h.untilFree("s")
	h.cutBack()
	s = h.login(mqtt.V5, "bob", "s", durable)
	for range 3 {
		a := expect[*mqtt.Ack](s)
		if a.Kind != mqtt.PUBREL || !ids[a.PacketID] {
			t.Errorf("%v for packet id %d, want PUBREL for one of %v", a.Kind, a.PacketID, ids)
		}
		delete(ids, a.PacketID)
		s.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: a.PacketID})
	}
	m := expect[*mqtt.Publish](s)
	first := number(t, m)
	if dropped := int(h.b.Stats().DroppedQueue); first+1 != dropped || m.Dup {
		t.Errorf("goes on with %d, dup %v, after %d were skipped", first, m.Dup, dropped)
	}
	for i := first + 1; i < n; i++ {
		if got := number(t, expect[*mqtt.Publish](s)); got != i {
			t.Fatalf("got %d, want %d", got, i)
		}
	}
}

// What waits for all sessions of one identity is bounded: those with the most
// are cut, and neither small ones nor other identities lose anything.
func TestIdentityQueue(t *testing.T) {
	const limit = 200 << 10
	h := open(t, Limits{IdentityQueue: limit})
	h.close()
	var lost atomic.Uint64
	h.config.Lost = func(client string, _ *storequeue.Message) {
		if client != "b1" && client != "b2" {
			t.Errorf("%s lost something", client)
		}
		lost.Add(1)
	}
	h.start()
	for id, filter := range map[string]string{"b1": "a", "b2": "a", "small": "s", "alice1": "a"} {
		s := h.login(mqtt.V5, map[bool]string{true: "alice", false: "bob"}[id == "alice1"], id, durable)
		s.subscribe(filter, 1)
		s.nc.Close()
		h.untilFree(id)
	}
	p := h.login(mqtt.V5, "alice", "q")
	for range 10 {
		p.publish("s", fmt.Sprintf("%01000d", 0), 1)
	}
	const n = 150
	h.fillUp(n, 1)
	waiting := map[string]uint64{}
	h.b.mu.Lock()
	for _, id := range []string{"b1", "b2", "small", "alice1"} { // they are away, and keep their readers
		waiting[id] = h.b.sessions[id].reader.WaitingBytes()
	}
	h.b.mu.Unlock()
	all := waiting["b1"] + waiting["b2"] + waiting["small"]
	if all > limit || all < limit*3/4 || waiting["b1"] > waiting["b2"]+2<<10 || waiting["b2"] > waiting["b1"]+2<<10 {
		t.Errorf("waiting: %v", waiting)
	}
	if waiting["alice1"] < n<<10*9/10 || waiting["small"] < 9<<10 {
		t.Errorf("others lost: %v", waiting)
	}
	if got := h.b.Stats().DroppedQueue; got == 0 || got != lost.Load() {
		t.Errorf("%d counted, %d told", got, lost.Load())
	}
	h.expectHit("identity_queue")
}
