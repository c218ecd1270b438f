package broker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// A books is the ledger as anyone would keep it on paper.
type books struct {
	in       map[uint16]bool // must be known after a crash
	maybeIn  map[uint16]bool // released, and nobody was told: either will do
	out      map[uint64]bool
	maybeOut map[uint64]bool
}

// Random messages, PUBREL, PUBREC, writes and crashes; after each crash every
// session holds what was promised before, and nothing that was taken back.
func TestLedgerModel(t *testing.T) {
	for seed := range uint64(8) {
		m := newLedgerModel(t, seed)
		for range 400 {
			m.step()
		}
		m.crash()
	}
}

type ledgerModel struct {
	t     *testing.T
	rnd   *rand.Rand
	queue *storequeue.Queue
	b     *Broker
	books map[string]*books // by client id
}

func newLedgerModel(t *testing.T, seed uint64) *ledgerModel {
	q, err := storequeue.Open(t.TempDir(), storequeue.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	m := &ledgerModel{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), queue: q, books: map[string]*books{}}
	m.crash()
	for i := range 3 {
		id := fmt.Sprint("c", i)
		s := &session{clientID: id, owner: "alice", number: newNumber(), expiry: time.Hour}
		changes, err := s.record(nil, true)
		if err == nil {
			err = m.b.openReader(s, changes...)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.kept, m.b.sessions[id] = true, s
		m.books[id] = &books{map[uint16]bool{}, map[uint16]bool{}, map[uint64]bool{}, map[uint64]bool{}}
	}
	return m
}

func (m *ledgerModel) step() {
	id := fmt.Sprint("c", m.rnd.IntN(3))
	s, k := m.b.sessions[id], m.books[id]
	packet, seq := uint16(1+m.rnd.IntN(20)), uint64(1+m.rnd.IntN(200))
	switch m.rnd.IntN(10) {
	case 0, 1, 2: // PUBLISH, committed
		if s.received[packet] != nil {
			return
		}
		c := &conn{b: m.b, session: s}
		s.receive(packet, c, 100)
		msg := storequeue.Message{Topic: "t", QoS: 2, Note: appendNote(nil, s.number, packet),
			For: []storequeue.Mark{{Reader: m.b.ledger.reader.ID()}}}
		done := make(chan struct{})
		m.queue.Submit(&msg, func(seq uint64, err error) {
			s.stored(packet, err == nil)
			m.b.ledger.note(s, seq)
			close(done)
		})
		<-done
		k.in[packet] = true
		delete(k.maybeIn, packet)
	case 3, 4, 5: // PUBREL
		if was, known := s.release(packet, nil); known && !was.released {
			delete(k.in, packet)
			k.maybeIn[packet] = true
			m.b.ledger.commit(s, func() {
				delete(s.received, packet)
				delete(k.maybeIn, packet)
			})
		}
	case 6, 7: // PUBREC
		if !k.out[seq] && !k.maybeOut[seq] {
			s.flight.record(seq)
			k.maybeOut[seq] = true
			m.b.ledger.commit(s, func() { delete(k.maybeOut, seq); k.out[seq] = true })
		}
	case 8:
		if err := m.b.ledger.write(); err != nil {
			m.t.Fatal(err)
		}
	case 9:
		m.crash()
	}
}

// crash forgets all that is in memory.
func (m *ledgerModel) crash() {
	m.t.Helper()
	b, err := New(Config{Queue: m.queue, Access: password{}})
	if err != nil {
		m.t.Fatal(err)
	}
	m.b = b
	for id, k := range m.books {
		s := b.sessions[id]
		in := slices.Collect(maps.Keys(s.received))
		checkBooks(m.t, id+" in", in, k.in, k.maybeIn)
		checkBooks(m.t, id+" out", s.flight.recorded, k.out, k.maybeOut)
		k.in, k.out = setOf(in), setOf(s.flight.recorded)
		clear(k.maybeIn)
		clear(k.maybeOut)
	}
}

func setOf[T comparable](all []T) map[T]bool {
	set := map[T]bool{}
	for _, v := range all {
		set[v] = true
	}
	return set
}

func checkBooks[T comparable](t *testing.T, what string, got []T, must, may map[T]bool) {
	t.Helper()
	set := setOf(got)
	for v := range must {
		if !set[v] {
			t.Fatalf("%s: %v is forgotten; have %v", what, v, got)
		}
	}
	for v := range set {
		if !must[v] && !may[v] {
			t.Fatalf("%s: %v came back; have %v", what, v, got)
		}
	}
}

func FuzzDecodeNote(f *testing.F) {
	f.Add(appendNote(nil, 1<<63, 65535))
	f.Add([]byte{noteVersion, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		number, id, err := decodeNote(b)
		if err == nil && string(appendNote(nil, number, id)) != string(b) {
			t.Errorf("%x is session %x, packet id %d", b, number, id)
		}
	})
}

// What is finished, and whose session has ended, leaves the disk; a session
// made later for the same client id inherits nothing.
func TestLedgerIsCleared(t *testing.T) {
	h := open(t, Limits{})
	p := h.login(mqtt.V5, "alice", "p", durable)
	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("a", 2)
	qos2 := func(payload string, id uint16) {
		p.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte(payload), QoS: 2, PacketID: id})
		p.expectAck(mqtt.PUBREC, id, mqtt.Success)
	}
	qos2("open", 1)
	m := s.expectMessage("open")
	s.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: m.PacketID})
	s.expectAck(mqtt.PUBREL, m.PacketID, mqtt.Success)
	h.close()
	h.start()
	if n := h.ledgerSize(); n != 2 {
		t.Errorf("%d sessions in the ledger, want both", n)
	}
	// Both ends start anew.
	p, s = h.login(mqtt.V5, "alice", "p"), h.login(mqtt.V5, "bob", "s")
	p.send(&mqtt.Disconnect{})
	s.send(&mqtt.Disconnect{})
	p.expectClosed()
	s.expectClosed()
	h.untilFree("p")
	h.untilFree("s")
	if err := h.b.ledger.write(); err != nil {
		t.Fatal(err)
	}
	if n := h.ledgerSize(); n != 0 {
		t.Errorf("%d sessions in the ledger after their end", n)
	}
	p, s = h.login(mqtt.V5, "alice", "p", durable), h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("a", 2)
	qos2("new under the same id", 1)
	if m := s.expectMessage("new under the same id"); m.Dup {
		t.Error("the new session's first message is a duplicate")
	}
}

func (h *house) ledgerSize() (n int) {
	h.t.Helper()
	if err := h.queue.State(bucketLedger, func(string, []byte) error { n++; return nil }); err != nil {
		h.t.Fatal(err)
	}
	return n
}

// A full queue refuses messages, not the answers to those that are there: it
// could never be emptied otherwise.
func TestFullQueueFinishesQoS2(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	h.disk = storequeue.Config{MaxSize: 2 << 20, SegmentSize: 256 << 10}
	h.start()
	s := h.login(mqtt.V5, "bob", "s", durable, func(r *mqtt.Connect) { r.ReceiveMaximum = 1 })
	s.subscribe("a", 2)
	p := h.login(mqtt.V5, "alice", "p", durable)
	payload := string(make([]byte, 100<<10))
	stored := 0
	for id := uint16(1); ; id++ {
		p.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte(payload), QoS: 2, PacketID: id})
		if a := expect[*mqtt.Ack](p); a.Code == mqtt.QuotaExceeded {
			break
		}
		stored++
	}
	for id := range stored {
		p.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: uint16(id + 1)})
		p.expectAck(mqtt.PUBCOMP, uint16(id+1), mqtt.Success)
	}
	for range stored {
		m := s.expectMessage(payload)
		s.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: m.PacketID})
		s.expectAck(mqtt.PUBREL, m.PacketID, mqtt.Success)
		s.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: m.PacketID})
	}
	s.ping()
	if w := waiting(h, "session/bob/s"); w != 0 || stored < 5 {
		t.Errorf("%d of %d messages wait", w, stored)
	}
}

// A 3.1.1 client knows of no window. One that never sends PUBREL is closed
// before what it leaves behind costs much.
func TestNoEndlessPackets(t *testing.T) {
	h := open(t, Limits{})
	p := h.login(mqtt.V311, "alice", "p", durable)
	for id := range maxReceived {
		p.send(&mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: uint16(id + 1)})
		if id%100 == 0 {
			p.pingPast()
		}
	}
	p.send(&mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: maxReceived + 1})
	p.expectClosed()
}

// pingPast is ping for a client that is not interested in what comes before.
func (c *client) pingPast() {
	c.t.Helper()
	c.send(&mqtt.Pingreq{})
	for {
		p, err := c.read()
		if err != nil {
			c.t.Fatal(err)
		}
		if _, ok := p.(*mqtt.Pingresp); ok {
			return
		}
	}
}

// Notes of sessions that are gone do not hold the log.
func TestNotesOfNobody(t *testing.T) {
	m := newLedgerModel(t, 1)
	msg := storequeue.Message{Topic: "t", QoS: 2, Note: appendNote(nil, newNumber(), 1),
		For: []storequeue.Mark{{Reader: m.b.ledger.reader.ID()}}}
	if err := m.queue.Append(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	m.crash()
	if err := m.b.ledger.write(); err != nil {
		t.Fatal(err)
	}
	if n := m.b.ledger.reader.Waiting(); n != 0 {
		t.Errorf("%d notes still wait", n)
	}
}
