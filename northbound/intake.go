package northbound

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// Notes are a reader of the queue for what came at QoS 2: a message that the
// link hands on is marked for it and carries its packet id as the Note, so that
// both are on disk or neither is. *storequeue.Reader is one.
type Notes interface {
	ID() storequeue.ReaderID
	Acked() uint64
	Poll(after uint64, max int) ([]storequeue.Message, error)
	// Checkpoint moves the cursor and changes the state in one commit, on disk when it returns.
	Checkpoint(seq uint64, changes ...storequeue.Change) error
}

// An intake knows the packet ids of QoS 2 whose messages are here: what comes
// again under one of them is not handed on [MQTT-4.3.3-10]. On disk they are
// the notes behind the reader's cursor, and a record of those before it.
// PUBCOMP leaves after the commit that forgets the packet id: otherwise the
// next message under it would be taken for a repeat of the last one.
type intake struct {
	notes  Notes // nil: nothing survives
	bucket string
	after  uint64              // notes up to here are in kept
	kept   map[uint16]struct{} // as on disk
	server string              // whose session this is about; empty: unknown
	wake   chan struct{}       // room for one: something is in released

	mu       sync.Mutex // covers the fields below
	taken    map[uint16]struct{}
	released []uint16 // PUBREL has come
}

type intakeRecord struct {
	Server string   `json:"server"`
	In     []uint16 `json:"in,omitempty"`
}

const keyIntake = "in"

func newIntake(state State, notes Notes, link string) (*intake, error) {
	in := &intake{bucket: "downlink/" + link, kept: map[uint16]struct{}{}, taken: map[uint16]struct{}{}, wake: make(chan struct{}, 1)}
	if state == nil || notes == nil {
		return in, nil
	}
	in.notes, in.after = notes, notes.Acked()
	err := state.State(in.bucket, func(key string, value []byte) error {
		var r intakeRecord
		if err := json.Unmarshal(value, &r); key != keyIntake || err != nil {
			return fmt.Errorf("%s in %s is of a newer program: use that, or remove the link for one start", key, in.bucket)
		}
		in.server = r.Server
		for _, id := range r.In {
			in.kept[id] = struct{}{}
		}
		return nil
	})
	if err == nil {
		err = in.learn()
	}
	in.taken = maps.Clone(in.kept)
	return in, err
}

// learn reads the notes that came since.
func (in *intake) learn() error {
	for in.notes != nil {
		msgs, err := in.notes.Poll(in.after, nextMax)
		if err != nil || len(msgs) == 0 {
			return err
		}
		for i := range msgs {
			if n := msgs[i].Note; len(n) == 2 {
				in.kept[binary.BigEndian.Uint16(n)] = struct{}{}
			}
		}
		in.after = msgs[len(msgs)-1].Seq
	}
	return nil
}

func (in *intake) commit() error {
	if in.notes == nil {
		return nil
	}
	v, err := json.Marshal(intakeRecord{in.server, slices.Sorted(maps.Keys(in.kept))})
	if err != nil {
		return err
	}
	return in.notes.Checkpoint(in.after, storequeue.Change{Bucket: in.bucket, Key: keyIntake, Value: v})
}

// meet brings the intake to the session that a server has, before anything is
// taken from it: without that session, the packet ids mean nothing any more.
func (in *intake) meet(server string, present bool) error {
	if err := in.learn(); err != nil {
		return err
	}
	if in.server == server && (present || len(in.kept) == 0) {
		return nil
	}
	in.mu.Lock()
	clear(in.taken)
	in.released = nil
	in.mu.Unlock()
	clear(in.kept)
	in.server = server
	err := in.commit()
	if err != nil { // not on disk, so nobody may rely on it
		in.server = ""
	}
	return err
}

// begin forgets what a connection before has not answered: the server asks again.
func (in *intake) begin() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.released = nil
}

// has reports whether a packet id's message is here.
func (in *intake) has(id uint16) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.taken[id]
	return ok
}

// take notes that it is.
func (in *intake) take(id uint16) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken[id] = struct{}{}
}

// mark lets a message carry its packet id to the disk.
func (in *intake) mark(m *storequeue.Message, id uint16) {
	if in.notes != nil {
		m.Note = binary.BigEndian.AppendUint16(nil, id)
		m.For = []storequeue.Mark{{Reader: in.notes.ID()}}
	}
}

// release takes a PUBREL; discharge answers it.
func (in *intake) release(id uint16) {
	in.mu.Lock()
	in.released = append(in.released, id)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// discharge answers each PUBREL with PUBCOMP, after a commit that all share that
// came while the one before was being written. It ends with life.
func (l *Link) discharge(life context.Context, c *connection) {
	in := l.intake
	for {
		select {
		case <-in.wake:
		case <-life.Done():
			return
		}
		in.mu.Lock()
		ids := in.released
		in.released = nil
		in.mu.Unlock()
		if err := l.persist(life, func() error { return in.forget(ids) }); err != nil {
			c.fail(err)
			return
		}
		var out []byte
		for _, id := range ids {
			out = binary.BigEndian.AppendUint16(append(out, packets.PUBCOMP<<4, 2), id)
		}
		if c.conn.writePacket(out, nil) != nil {
			return
		}
	}
}

// forget strikes packet ids out, on disk where they are there.
func (in *intake) forget(ids []uint16) error {
	if err := in.learn(); err != nil {
		return err
	}
	was := maps.Clone(in.kept)
	for _, id := range ids {
		delete(in.kept, id)
	}
	if len(in.kept) < len(was) {
		if err := in.commit(); err != nil {
			in.kept = was
			return err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, id := range ids {
		delete(in.taken, id)
	}
	return nil
}
