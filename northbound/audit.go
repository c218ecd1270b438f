package northbound

import (
	"slices"
	"strconv"
	"strings"
)

// An Audit judges, at the cloud, what arrived by the identities of the
// messages: what is missing, what came more than once, what came out of order.
// It believes nothing else. It is for one goroutine at a time.
//
// A message names itself (hg-id) and the one that its link sent before it
// (hg-prev). One that is named and never comes is missing; what was never
// named, because it lies before the first or behind the last that came, is
// beyond what can be told.
type Audit struct {
	logs    map[string]*auditLog
	room    int    // for chunks, of all logs together
	unnamed uint64 // messages without an identity, or of one log too many
}

// An auditLog is what is known of one log of one gateway.
type auditLog struct {
	seen   map[uint64]*[auditChunk / 64]uint64 // a bit for each sequence, by sequence / auditChunk
	lowest uint64
	owed   map[uint64]struct{} // named by its successor, not seen
	topics map[string]uint64   // the newest sequence of each

	replays map[string]uint64 // the same of what is replayed: a stream of its own

	Finding
}

const (
	auditChunk  = 1 << 16 // sequences; 8 KiB
	auditTopics = 100_000 // beyond that many, order is judged no more
	auditOwed   = 1_000_000
	auditLogs   = 1000
	auditChunks = 1 << 15 // 256 MiB
)

// A Finding is what an Audit says of one log. Its JSON names are stable.
type Finding struct {
	Log        string  `json:"log"` // gateway and epoch
	Messages   uint64  `json:"messages"`
	First      uint64  `json:"first"` // sequence numbers
	Last       uint64  `json:"last"`
	Repeats    uint64  `json:"repeats"`
	Disordered uint64  `json:"disordered"` // came after a later one of their topic; what is replayed is a stream of its own
	Replayed   uint64  `json:"replayed"`   // live_first: sent after later ones, and says so
	Missing    uint64  `json:"missing"`
	Ranges     []Range `json:"missing_ranges,omitempty"` // the first hundred
	Unjudged   uint64  `json:"unjudged,omitempty"`       // too many to keep in mind
}

// A Range is of sequence numbers, both ends included.
type Range struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// NewAudit returns one that has heard nothing yet.
func NewAudit() *Audit { return &Audit{logs: map[string]*auditLog{}, room: auditChunks} }

// Hear takes what came on a topic with an hg-id, an hg-prev and, if replay, the
// mark of a message that is sent after later ones. Either identity may be empty
// or nonsense.
func (a *Audit) Hear(topic, id, prev string, replay bool) {
	name, seq, ok := splitID(id)
	l := a.logs[name]
	if !ok || l == nil && len(a.logs) >= auditLogs {
		a.unnamed++
		return
	}
	if l == nil {
		l = &auditLog{
			seen: map[uint64]*[auditChunk / 64]uint64{}, lowest: seq,
			owed: map[uint64]struct{}{}, topics: map[string]uint64{}, replays: map[string]uint64{},
			Finding: Finding{Log: name},
		}
		a.logs[name] = l
	}
	l.Messages++
	if l.seen[seq/auditChunk] == nil {
		if a.room == 0 {
			l.Unjudged++
			return
		}
		a.room--
	}
	l.hear(topic, seq, replay)
	if before, err := strconv.ParseUint(prev, 10, 64); err == nil && before > 0 && before < seq {
		l.follows(before)
	}
}

// splitID takes "gateway/epoch/sequence" apart.
func splitID(id string) (log string, seq uint64, ok bool) {
	at := strings.LastIndexByte(id, '/')
	if at <= 0 {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(id[at+1:], 10, 64)
	return id[:at], seq, err == nil && seq > 0
}

func (l *auditLog) hear(topic string, seq uint64, replay bool) {
	if !l.note(seq) {
		l.Repeats++
		return
	}
	delete(l.owed, seq)
	l.lowest = min(l.lowest, seq)
	topics := l.topics
	if replay {
		l.Replayed++
		topics = l.replays
	}
	newest, known := topics[topic]
	switch {
	case known && seq < newest:
		l.Disordered++
	case known || len(l.topics)+len(l.replays) < auditTopics:
		topics[strings.Clone(topic)] = seq
	default:
		l.Unjudged++
	}
}

// note remembers a sequence and reports whether it is new.
func (l *auditLog) note(seq uint64) bool {
	chunk := l.seen[seq/auditChunk]
	if chunk == nil {
		chunk = new([auditChunk / 64]uint64)
		l.seen[seq/auditChunk] = chunk
	}
	word, bit := &chunk[seq%auditChunk/64], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (l *auditLog) has(seq uint64) bool {
	chunk := l.seen[seq/auditChunk]
	return chunk != nil && chunk[seq%auditChunk/64]&(1<<(seq%64)) != 0
}

// follows notes that a message with that sequence was sent.
func (l *auditLog) follows(seq uint64) {
	switch {
	case l.has(seq):
	case len(l.owed) >= auditOwed:
		l.Unjudged++
	default:
		l.owed[seq] = struct{}{}
	}
}

// Unnamed is how many messages came without an identity.
func (a *Audit) Unnamed() uint64 { return a.unnamed }

// Findings returns what is known now, by the name of the log.
func (a *Audit) Findings() []Finding {
	var all []Finding
	for _, l := range a.logs {
		all = append(all, l.finding())
	}
	slices.SortFunc(all, func(x, y Finding) int { return strings.Compare(x.Log, y.Log) })
	return all
}

const auditRanges = 100

func (l *auditLog) finding() Finding {
	f := l.Finding
	f.First = l.lowest
	for n := range l.seen {
		for i := auditChunk - 1; i >= 0; i-- {
			if seq := n*auditChunk + uint64(i); seq > f.Last && l.has(seq) {
				f.Last = seq
				break
			}
		}
	}
	var missing []uint64
	for seq := range l.owed {
		if seq > l.lowest { // what came before the first that was heard is nobody's loss
			missing = append(missing, seq)
		}
	}
	slices.Sort(missing)
	f.Missing = uint64(len(missing))
	for _, seq := range missing {
		n := len(f.Ranges)
		switch {
		case n > 0 && f.Ranges[n-1].To+1 == seq:
			f.Ranges[n-1].To = seq
		case n < auditRanges:
			f.Ranges = append(f.Ranges, Range{seq, seq})
		}
	}
	return f
}
