package broker

import "slices"

// A flight is what a session was sent and has not finished acknowledging, in
// the log's order. It knows nothing of sockets; whoever uses it holds the
// session's lock.
type flight struct {
	items     []item   // by rising sequence; no two finished ones are neighbours
	seen      uint64   // the newest sequence begun or skipped
	open      int      // sent on this connection and not finished
	recorded  []uint64 // rising: PUBREC received, and the cursor on disk is not past it
	abandoned []uint16 // packet ids of skipped messages that the client may have
}

// An item is one message of the log on its way, or several finished ones that
// wait for an older one.
type item struct {
	seq   uint64
	id    uint16
	qos   byte
	stage stage
	sent  bool // on this connection
}

type stage uint8

const (
	published stage = iota // PUBLISH sent, or about to be
	received               // PUBREC received: the ledger is about to have it
	released               // PUBREL sent, or about to be
	finished
)

// find returns the item of seq. It is nil for a message that is new, and for
// one that is finished.
func (f *flight) find(seq uint64) (it *item, isNew bool) {
	if seq > f.seen {
		return nil, true
	}
	for i := range f.items {
		if f.items[i].seq == seq && f.items[i].stage != finished {
			return &f.items[i], false
		}
	}
	return nil, false
}

// packetID is the packet id of the message with that sequence, in every
// session and after every crash.
func packetID(seq uint64) uint16 { return uint16(1 + seq%65535) }

// begin adds a message whose packet id nothing else in flight has.
func (f *flight) begin(seq uint64, qos byte) *item {
	f.seen = seq
	f.items = append(f.items, item{seq: seq, id: packetID(seq), qos: qos})
	return &f.items[len(f.items)-1]
}

// record notes that PUBREC came for seq.
func (f *flight) record(seq uint64) {
	if i, ok := slices.BinarySearch(f.recorded, seq); !ok {
		f.recorded = slices.Insert(f.recorded, i, seq)
	}
}

func (f *flight) isRecorded(seq uint64) bool {
	_, ok := slices.BinarySearch(f.recorded, seq)
	return ok
}

// trim forgets the records up to a cursor that is on disk.
func (f *flight) trim(flushed uint64) {
	i, _ := slices.BinarySearch(f.recorded, flushed+1)
	f.recorded = slices.Delete(f.recorded, 0, i)
}

// skip notes that nothing has to be sent for seq.
func (f *flight) skip(seq uint64) {
	f.seen = seq
	if n := len(f.items); n > 0 && f.items[n-1].stage == finished {
		f.items[n-1].seq = seq
		return
	}
	f.items = append(f.items, item{seq: seq, stage: finished})
}

// transmit notes that it is sent on this connection; from now on it takes a
// place in the receiver's window [MQTT-4.9.0-1].
func (f *flight) transmit(it *item) {
	if !it.sent {
		it.sent = true
		f.open++
	}
}

// byID returns the unfinished item with that packet id, or nil.
func (f *flight) byID(id uint16) *item {
	for i := range f.items {
		if f.items[i].id == id && f.items[i].stage != finished {
			return &f.items[i]
		}
	}
	return nil
}

// finish marks it done.
func (f *flight) finish(it *item) {
	if it.sent {
		f.open--
	}
	it.stage, it.sent = finished, false
}

// settle removes the finished head and returns the newest sequence in it; ok is
// false if there is none. Neighbours that are finished become one.
func (f *flight) settle() (seq uint64, ok bool) {
	head := 0
	for head < len(f.items) && f.items[head].stage == finished {
		seq, ok = f.items[head].seq, true
		head++
	}
	kept := f.items[:0]
	for _, it := range f.items[head:] {
		if n := len(kept); n > 0 && it.stage == finished && kept[n-1].stage == finished {
			kept[n-1].seq = it.seq
			continue
		}
		kept = append(kept, it)
	}
	f.items = kept
	return seq, ok
}

// resume forgets what the last connection was sent: all of it goes out again,
// under its old packet ids [MQTT-4.4.0-1].
func (f *flight) resume() {
	for i := range f.items {
		f.items[i].sent = false
	}
	f.open = 0
}
