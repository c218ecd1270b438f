package northbound

import "sync"

// A window is what was sent on one connection, in order, up to the oldest
// message that is not done. It never blocks; wake tells that something changed.
type window struct {
	wake chan struct{} // room for one: told twice is harmless

	mu        sync.Mutex // covers the fields below; held for moments only
	ring      []slot     // a message's packet id is its index + 1
	head, n   int
	open      int // messages without an answer
	written   int // messages in slotWritten
	limit     int // of open: begins at 1, rises by one with each acknowledgement
	max       int // of limit: the server's Receive Maximum [MQTT-4.9.0-2]
	lanes     []track
	answers   uint64 // counts PUBACKs, to see whether they still come
	refusals  bool   // something was refused: send nothing more before a rewind
	interrupt func() // called once at the first refusal
}

// A track is what stands in the window of one lane, up to the oldest message
// that is not done.
type track struct {
	cursor      uint64
	first, last uint16 // packet ids; 0: nothing
}

type slot struct {
	seq       uint64
	lane      int
	next      uint16 // the packet id that follows in the lane; 0: none
	state     slotState
	code      byte // why it was refused
	overtaken bool // one that was sent after it was taken; see learn
}

func (s *slot) finished() bool { return s.state == slotDone || s.state == slotLeft }

type slotState byte

const (
	slotSent    slotState = iota + 1 // at QoS 1
	slotWritten                      // at QoS 0, into the connection's buffer
	slotDone
	slotLeft // left out: counted, never sent
	slotRefused
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
		wake: make(chan struct{}, 1),
		ring: make([]slot, 4*max), limit: 1, max: max, lanes: lanes,
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

// add appends a message and returns its packet id. admits must have said yes.
func (w *window) add(lane int, seq uint64, state slotState) (id uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := (w.head + w.n) % len(w.ring)
	w.ring[i] = slot{seq: seq, lane: lane, state: state}
	w.n++
	id = uint16(i + 1)
	if t := &w.lanes[lane]; t.first == 0 {
		t.first, t.last = id, id
	} else {
		w.ring[t.last-1].next, t.last = id, id
	}
	switch state {
	case slotSent:
		w.open++
	case slotWritten:
		w.written++
	}
	return id
}

// answer takes a PUBACK and reports whether it answers something.
func (w *window) answer(id uint16, code byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := int(id) - 1
	if i < 0 || i >= len(w.ring) || w.ring[i].state != slotSent {
		return false
	}
	w.answers++
	w.open--
	if code < 0x80 {
		w.ring[i].state = slotDone
		w.limit = min(w.limit+1, w.max)
		return true
	}
	w.ring[i].state, w.ring[i].code = slotRefused, code
	w.refusals = true
	if w.interrupt != nil {
		w.interrupt()
		w.interrupt = nil
	}
	return true
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
	for i := range w.lanes {
		w.lanes[i].first = 0
	}
	w.n, w.open, w.written, w.refusals = 0, 0, 0, false
	return rest
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
