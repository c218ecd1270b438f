package northbound

import (
	"sync"
	"time"
)

// A window is what was sent on one connection, in order, up to the oldest
// message that is not done. It never blocks; wake tells that something changed.
type window struct {
	wake chan struct{} // room for one: told twice is harmless

	commit chan struct{} // the same for received

	mu        sync.Mutex // covers the fields below; held for moments only
	ring      []slot
	places    []uint16 // by packet id: index in ring + 1; 0: it answers for nothing; or kept
	lastID    uint16   // of QoS 1
	received  []uint16 // packet ids in slotReceived, in the order of their PUBREC
	head, n   int
	open      int // messages without an answer
	written   int // messages in slotWritten
	limit     int // of open: begins at 1, rises by one with each acknowledgement
	max       int // of limit: the server's Receive Maximum [MQTT-4.9.0-2]
	lanes     []track
	behind    behind
	answers   uint64 // counts PUBACKs, to see whether they still come
	refusals  bool   // something was refused, or taken with something put aside: send nothing more before a rewind
	aside     bool   // there is a slotAside
	interrupt func() // called once at the first refusal
}

// Packet ids: those of QoS 1 are free once they are answered; those of QoS 2
// follow from the ledger; the rest is for requests.
const (
	maxPlainID = 2 * maxInFlight
	kept       = ^uint16(0) // in places: for the message that had the packet id on the connection before
)

// A track is what stands in the window of one lane, up to the oldest message
// that is not done.
type track struct {
	cursor      uint64
	first, last uint16 // index in ring + 1; 0: nothing
}

// behind is what is in flight of lanes that are sent beside others, and how long
// one of their messages took.
type behind struct {
	from  int // the first such lane
	open  int
	probe uint16 // packet id of that message; 0: there is none
	sent  time.Time
	took  time.Duration // of the last one; 0: it was told
}

type slot struct {
	seq       uint64
	lane      int
	size      int    // of the packet
	next      uint16 // index + 1 of what follows in the lane; 0: none
	id        uint16 // packet id; 0: it has none
	state     slotState
	code      byte // why it was refused
	resumed   bool // PUBREL belongs to a PUBREC of an earlier connection
	overtaken bool // one that was sent after it was taken; see learn
}

func (s *slot) finished() bool {
	return s.state == slotDone || s.state == slotOnce || s.state == slotLeft
}

// sent says of a slot that its PUBLISH has no answer.
func (s *slot) sent() bool { return s.state == slotSent || s.state == slotSent2 }

type slotState byte

const (
	slotSent     slotState = iota + 1 // at QoS 1
	slotWritten                       // at QoS 0, into the connection's buffer
	slotSent2                         // at QoS 2
	slotReceived                      // PUBREC has come
	slotReleased                      // it is on disk, and PUBREL sent
	slotDone
	slotOnce // done at QoS 2: never sent again
	slotLeft // left out: counted, never sent
	slotRefused
	slotAside // not sent before another is taken
)

// newWindow makes a window that starts behind the lanes' cursors and never has
// more than max messages unanswered. Messages that are done take a place until those
// before them are: hence the larger ring.
func newWindow(cursors []uint64, max int) *window {
	lanes := make([]track, len(cursors))
	for i, at := range cursors {
		lanes[i].cursor = at
	}
	return &window{
		wake: make(chan struct{}, 1), commit: make(chan struct{}, 1),
		ring: make([]slot, 4*max), places: make([]uint16, firstRequestID), limit: 1, max: max, lanes: lanes,
		behind: behind{from: len(lanes)},
	}
}

func (w *window) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// admits reports whether another message may be sent now. It is false for good
// after a refusal, until reset.
func (w *window) admits() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == len(w.ring) {
		w.settle()
	}
	return !w.refusals && w.open < w.limit && w.n < len(w.ring)
}

// add appends a message and returns its packet id: at QoS 1 the one it had
// before, or a free one if that is 0. admits must have said yes.
func (w *window) add(m slot) (id uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.state == slotSent && m.id == 0 {
		m.id = w.freeID()
	}
	i := (w.head + w.n) % len(w.ring)
	w.ring[i] = m
	w.n++
	at := uint16(i + 1)
	if t := &w.lanes[m.lane]; t.first == 0 {
		t.first, t.last = at, at
	} else {
		w.ring[t.last-1].next, t.last = at, at
	}
	switch {
	case m.id != 0:
		w.places[m.id] = at
		w.open++
		if m.lane >= w.behind.from {
			w.behind.add(m.id)
		}
	case m.state == slotWritten:
		w.written++
	case m.state == slotAside:
		w.aside = true
	}
	return m.id
}

// freeID finds one: there are more than messages in flight.
func (w *window) freeID() uint16 {
	for {
		if w.lastID = w.lastID%maxPlainID + 1; w.places[w.lastID] == 0 {
			return w.lastID
		}
	}
}

// keep leaves packet ids to the messages that will be sent again under them.
func (w *window) keep(ids map[uint64]uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.places[id] = kept
	}
}

// slotOf wants mu held. It returns nil for a packet id that nothing waits for.
func (w *window) slotOf(id uint16) *slot {
	if int(id) >= len(w.places) || w.places[id] == 0 || w.places[id] == kept {
		return nil
	}
	return &w.ring[w.places[id]-1]
}

// answer takes a PUBACK and reports whether it answers something.
func (w *window) answer(id uint16, code byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.slotOf(id)
	if s == nil || s.state != slotSent {
		return false
	}
	w.end(s, slotDone, code)
	return true
}

// end takes the last answer to a message. It wants mu held.
func (w *window) end(s *slot, done slotState, code byte) {
	w.answers++
	w.open--
	w.places[s.id] = 0
	if s.lane >= w.behind.from {
		w.behind.end(s.id)
	}
	if code < 0x80 {
		s.state = done
		w.limit = min(w.limit+1, w.max)
		if !w.aside {
			return
		}
	} else {
		s.state, s.code = slotRefused, code
	}
	w.refusals = true
	if w.interrupt != nil {
		w.interrupt()
		w.interrupt = nil
	}
}

// pubrec takes a PUBREC. known: it is of a message in flight; refused: it is
// answered by that.
func (w *window) pubrec(id uint16, code byte) (known, refused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.slotOf(id)
	switch {
	case s == nil || s.state == slotSent:
		return false, false
	case s.state != slotSent2: // again
		return true, false
	case code >= 0x80:
		w.end(s, slotOnce, code)
		return true, true
	}
	w.answers++
	s.state = slotReceived
	w.received = append(w.received, id)
	select {
	case w.commit <- struct{}{}:
	default:
	}
	return true, false
}

// takeReceived returns what PUBREC has come for since the last call.
func (w *window) takeReceived() []uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := w.received
	w.received = nil
	return ids
}

// release says that their PUBREL leaves now.
func (w *window) release(ids []uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if s := w.slotOf(id); s != nil && s.state == slotReceived {
			s.state = slotReleased
		}
	}
}

// pubcomp takes a PUBCOMP. done: the message is; unknown: the server forgot it
// between its own PUBREC and our PUBREL.
func (w *window) pubcomp(id uint16, code byte) (done, unknown bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.slotOf(id)
	if s == nil || s.state != slotReleased {
		return false, false
	}
	if code >= 0x80 && s.resumed { // it was complete: its PUBCOMP did not come through
		code = 0
	}
	w.end(s, slotOnce, code)
	return code < 0x80, code >= 0x80
}

// flushed says that everything written so far has left, and returns how many
// messages are done by that.
func (w *window) flushed() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 0; w.written > 0; i++ {
		if s := &w.ring[(w.head+i)%len(w.ring)]; s.state == slotWritten {
			s.state = slotDone
			w.written--
			n++
		}
	}
	return n
}

// done moves over the longest finished prefix of a lane and returns where it ends.
func (w *window) done(lane int) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	return w.lanes[lane].cursor
}

// settle moves each lane's cursor, and then frees places: what is finished at
// the head has been passed, since nothing of its lane stands before it.
func (w *window) settle() {
	for i := range w.lanes {
		for t := &w.lanes[i]; t.first != 0 && w.ring[t.first-1].finished(); {
			s := &w.ring[t.first-1]
			t.cursor, t.first = s.seq, s.next
		}
	}
	for w.n > 0 && w.ring[w.head].finished() {
		w.ring[w.head] = slot{}
		w.head = (w.head + 1) % len(w.ring)
		w.n--
	}
}

// onRefusal has fn called at the next refusal; nil takes it back. It returns
// false if there was one already.
func (w *window) onRefusal(fn func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interrupt = fn
	return !w.refusals
}

// reset empties the window back to the cursors and returns what stood in it
// behind them, in the order in which it was sent. After it, answers to what was sent before are unknown; so it is for
// when all have come, or the connection is gone.
func (w *window) reset() []slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	rest := make([]slot, 0, w.n)
	for i := range w.n {
		if s := w.ring[(w.head+i)%len(w.ring)]; s.seq > w.lanes[s.lane].cursor {
			rest = append(rest, s)
		}
	}
	clear(w.ring)
	clear(w.places)
	w.received = nil
	for i := range w.lanes {
		w.lanes[i].first = 0
	}
	w.n, w.open, w.written, w.refusals, w.aside = 0, 0, 0, false, false
	w.behind = behind{from: w.behind.from}
	return rest
}

func (b *behind) add(id uint16) {
	b.open++
	if b.probe == 0 {
		b.probe, b.sent = id, time.Now()
	}
}

func (b *behind) end(id uint16) {
	b.open--
	if b.probe == id {
		b.probe, b.took = 0, max(time.Since(b.sent), 1)
	}
}

// lag returns what is in flight of the lanes that are sent beside others, and
// once how long one of their messages took.
func (w *window) lag() (open int, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	took, w.behind.took = w.behind.took, 0
	return w.behind.open, took
}

// begin starts over with one message.
func (w *window) begin() {
	w.mu.Lock()
	w.limit = 1
	w.mu.Unlock()
}

// slow begins again with two messages: what becomes of the second tells whether
// the first was meant or everything.
func (w *window) slow() {
	w.mu.Lock()
	w.limit = min(2, w.max)
	w.mu.Unlock()
}

func (w *window) unanswered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

func (w *window) refused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusals
}

func (w *window) answered() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers
}
