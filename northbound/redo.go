package northbound

import (
	"maps"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A redo is what is known of a lane's messages behind the cursor's gap when they come
// from the source again: after a refusal, or on a new connection. It is for
// one goroutine at a time, and holds no more than a window does.
type redo struct {
	known   map[uint64]slotState // slotDone, slotOnce or slotLeft
	ids     map[uint64]uint16    // packet ids at QoS 1 of what had no answer when the connection went
	until   uint64               // the newest of them
	moved   map[string]struct{}  // topics with a message sent again: those behind it follow
	strikes map[uint64]int       // final refusals by message
	singled map[uint64]struct{}  // refused while others were taken: it is the message, not the link
	dead    map[uint64]byte      // what goes into quarantine, and why
	hung    map[uint64]int       // how often the server closed the connection with just that message in flight; see suspect
}

func newRedo() redo {
	return redo{
		known: map[uint64]slotState{}, ids: map[uint64]uint16{}, moved: map[string]struct{}{},
		strikes: map[uint64]int{}, singled: map[uint64]struct{}{}, dead: map[uint64]byte{}, hung: map[uint64]int{},
	}
}

const maxStrikes = 3

// take learns from what a window held after cursor. It returns the code of a
// refusal that asks for time, or zero. "Not authorized" asks for time too,
// unless a message behind it was taken: a wrong access list at the cloud refuses
// everything, and must not clear the backlog away in a minute.
func (r *redo) take(cursor uint64, rest []slot) (later byte) {
	r.forget(cursor)
	for _, s := range rest {
		r.until = max(r.until, s.seq)
		switch {
		case s.finished():
			r.known[s.seq] = s.state
		case s.state == slotAside:
			r.isSingled(&s)
		case s.state == slotRefused && !refusedForGood(s.code):
			later = s.code
		case s.state == slotRefused:
			if s.code == packets.PubackNotAuthorized && !r.isSingled(&s) {
				later = s.code
			}
			if r.strikes[s.seq]++; r.strikes[s.seq] >= maxStrikes {
				r.dead[s.seq] = s.code
			}
		}
	}
	return later
}

func (r *redo) isSingled(s *slot) bool {
	if s.overtaken {
		r.singled[s.seq] = struct{}{}
	}
	_, ok := r.singled[s.seq]
	return ok
}

// forget drops what the cursor has passed.
func (r *redo) forget(cursor uint64) {
	for seq := range r.strikes {
		if seq <= cursor {
			delete(r.strikes, seq)
			delete(r.dead, seq)
		}
	}
	for seq := range r.hung {
		if seq <= cursor {
			delete(r.hung, seq)
			delete(r.dead, seq)
		}
	}
	for seq := range r.singled {
		if seq <= cursor {
			delete(r.singled, seq)
		}
	}
	if cursor >= r.until {
		clear(r.known)
		clear(r.moved)
		clear(r.ids)
	}
}

// join takes over what another lane's is about: its messages are of this lane now.
func (r *redo) join(o *redo) {
	maps.Copy(r.known, o.known)
	maps.Copy(r.ids, o.ids)
	maps.Copy(r.moved, o.moved)
	maps.Copy(r.strikes, o.strikes)
	maps.Copy(r.singled, o.singled)
	maps.Copy(r.dead, o.dead)
	maps.Copy(r.hung, o.hung)
	r.until = max(r.until, o.until)
	*o = newRedo()
}

type verdict byte

const (
	sendIt verdict = iota
	sendDone
	sendLeft
	sendNever
)

// verdict says what to do with a message in this pass.
func (r *redo) verdict(m *storequeue.Message) verdict {
	if m.Seq > r.until {
		if len(r.known) > 0 {
			clear(r.known)
		}
		if len(r.moved) > 0 {
			clear(r.moved)
		}
		if len(r.ids) > 0 {
			clear(r.ids)
		}
		return sendIt
	}
	if _, ok := r.dead[m.Seq]; ok {
		if r.known[m.Seq] == slotLeft {
			return sendLeft
		}
		return sendNever
	}
	_, moved := r.moved[m.Topic]
	switch known := r.known[m.Seq]; {
	case known == slotLeft:
		return sendLeft
	case known == slotOnce: // rather late than twice
		return sendDone
	case known == slotDone && !moved:
		return sendDone
	}
	r.moved[m.Topic] = struct{}{}
	return sendIt
}

// learn tells each lane what became of what stood in the window, and returns
// the code of a refusal that asks for time, or zero.
func (l *Link) learn(w *window, rest []slot) (later byte) {
	taken := false
	by := make([][]slot, len(l.lanes))
	for i := len(rest) - 1; i >= 0; i-- {
		rest[i].overtaken = taken
		taken = taken || rest[i].state == slotDone || rest[i].state == slotOnce
	}
	for _, s := range rest {
		by[s.lane] = append(by[s.lane], s)
	}
	for i := range l.redo {
		later = max(later, l.redo[i].take(w.done(i), by[i]))
	}
	return later
}

// blame marks the message in flight that the server has ended the connection
// over, if there is no doubt which: there is just one, or a packet was too
// large, and that is the largest.
func (l *Link) blame(rest []slot, code byte) {
	var worst *slot
	n, equal := 0, false
	for i := range rest {
		if !rest[i].sent() {
			continue
		}
		n++
		switch {
		case worst == nil || rest[i].size > worst.size:
			worst, equal = &rest[i], false
		case rest[i].size == worst.size:
			equal = true
		}
	}
	if n == 0 || n > 1 && (equal || code != packets.DisconnectPacketTooLarge) {
		return
	}
	worst.state, worst.code = slotRefused, code
	l.redo[worst.lane].singled[worst.seq] = struct{}{}
	if code == packets.DisconnectPacketTooLarge {
		l.redo[worst.lane].dead[worst.seq] = code
	}
}

// suspect is for a server that closes the connection without a word, as one of
// MQTT 3.1.1 does that does not want a message, and as any network does. Each
// connection begins with one message, so what is meant comes to be alone in
// flight. After three such ends the message is put aside until one behind it is
// taken; if the connection then ends over it once more, it is the message.
func (l *Link) suspect(rest []slot) {
	var only *slot
	for i := range rest {
		switch {
		case !rest[i].sent():
		case only != nil:
			return
		default:
			only = &rest[i]
		}
	}
	if only == nil {
		return
	}
	r := &l.redo[only.lane]
	r.hung[only.seq]++
	if _, singled := r.singled[only.seq]; singled && r.hung[only.seq] > maxStrikes {
		r.dead[only.seq] = packets.PubackUnspecifiedError
	}
}

const maxAside = 8 // messages; if none behind them is taken, it is the server

// putsAside reports whether a message is to wait until one behind it is taken.
func (s *sender) putsAside(lane int, seq uint64) bool {
	r := &s.link.redo[lane]
	if _, singled := r.singled[seq]; singled || r.hung[seq] < maxStrikes || !s.link.lanes[lane].More(seq) {
		return false
	}
	if s.aside == maxAside {
		clear(r.hung)
		return false
	}
	s.aside++
	return true
}
