package northbound

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/headgate-io/headgate/storequeue"
)

// A State keeps a link's half of its QoS 2 handshakes; *storequeue.Queue is one.
type State interface {
	State(bucket string, fn func(key string, value []byte) error) error
	// SetState is one commit, on disk when it returns.
	SetState(changes ...storequeue.Change) error
}

// A ledger knows which packet ids of QoS 2 stand for which messages, and which
// of these the cloud has received, as far as that must survive a crash.
//
// Packet ids come in blocks. A block is given to a lane for so many sequence
// numbers in a row, by a commit before the first of them is used; from then on
// the packet id follows from the sequence. It is given to somebody else once
// the lane's cursor is behind it on disk. So whatever the cloud remembers of a
// packet id after a crash is about the one message that the ledger names.
type ledger struct {
	state  State // nil: nothing survives
	bucket string

	mu     sync.Mutex // covers the fields below; not held over a commit
	server string     // whose session this is about; empty: unknown
	blocks [blocks]block
}

const (
	blocks     = 128
	blockSize  = 256
	firstID2   = maxPlainID + 1 // of QoS 2
	keyServer  = "server"
	blockBytes = 1 + 8 + blockSize/8 // layout version, first sequence, received; the lane's name follows
	blockV1    = 1
)

// A block is the packet ids of one stretch of a lane's sequence numbers.
type block struct {
	lane     string // empty: nobody's
	first    uint64
	received bitmap // PUBREC is on disk, or is being written
	held     bitmap // the cloud may know this packet id
}

type bitmap [blockSize / 64]uint64

func (b *bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b *bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b *bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

var allHeld = bitmap{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}

func blockKey(i int) string { return fmt.Sprintf("block/%03d", i) }

// splitID2 tells the block and the place in it.
func splitID2(id uint16) (nr, i int) {
	return int(id-firstID2) / blockSize, int(id-firstID2) % blockSize
}

func newLedger(state State, link string) (*ledger, error) {
	g := &ledger{state: state, bucket: "uplink/" + link}
	if state == nil {
		return g, nil
	}
	err := state.State(g.bucket, func(key string, value []byte) error {
		var nr int
		if key == keyServer {
			g.server = string(value)
		} else if _, err := fmt.Sscanf(key, "block/%d", &nr); err == nil && nr >= 0 && nr < blocks && len(value) > blockBytes && value[0] == blockV1 {
			b := &g.blocks[nr]
			b.first, b.lane, b.held = binary.BigEndian.Uint64(value[1:]), string(value[blockBytes:]), allHeld
			for i := range b.received {
				b.received[i] = binary.BigEndian.Uint64(value[9+8*i:])
			}
		} else {
			return fmt.Errorf("%s in %s is of a newer program: use that, or remove the link for one start", key, g.bucket)
		}
		return nil
	})
	return g, err
}

func (g *ledger) change(nr int) storequeue.Change {
	b := &g.blocks[nr]
	v := binary.BigEndian.AppendUint64([]byte{blockV1}, b.first)
	for _, w := range b.received {
		v = binary.BigEndian.AppendUint64(v, w)
	}
	return storequeue.Change{Bucket: g.bucket, Key: blockKey(nr), Value: append(v, b.lane...)}
}

func (g *ledger) commit(changes []storequeue.Change) error {
	if g.state == nil || len(changes) == 0 {
		return nil
	}
	return g.state.SetState(changes...)
}

// meet brings the ledger to the session that a server has, before anything is
// sent to it. Without a session, or with that of another server, what was not
// completed is a new message again [MQTT-3.2.2-5].
func (g *ledger) meet(server string, present bool) error {
	g.mu.Lock()
	same := present && g.server == server
	if same || !present && g.server == server && g.empty() {
		g.mu.Unlock()
		return nil
	}
	var changes []storequeue.Change
	for i := range g.blocks {
		changes = append(changes, storequeue.Change{Bucket: g.bucket, Key: blockKey(i)})
		g.blocks[i] = block{}
		if present { // there may be anything in it
			g.blocks[i].held = allHeld
		}
	}
	if g.server != server {
		g.server = server
		changes = append(changes, storequeue.Change{Bucket: g.bucket, Key: keyServer, Value: []byte(strings.Clone(server))})
	}
	g.mu.Unlock()
	err := g.commit(changes)
	if err != nil { // not on disk, so nobody may rely on it
		g.mu.Lock()
		g.server = ""
		g.mu.Unlock()
	}
	return err
}

// unused reports whether no packet id of QoS 2 may be in use.
func (g *ledger) unused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.empty()
}

// empty wants mu held.
func (g *ledger) empty() bool {
	for i := range g.blocks {
		if g.blocks[i].lane != "" || g.blocks[i].held != (bitmap{}) {
			return false
		}
	}
	return true
}

// A standing says where the handshake of a message is.
type standing struct {
	id       uint16 // 0: it has none
	received bool   // PUBREL comes next
	dup      bool   // the cloud may have it
}

// find tells what is known of a message.
func (g *ledger) find(lane string, seq uint64) standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	for nr := range g.blocks {
		b := &g.blocks[nr]
		if b.lane == lane && seq >= b.first && seq-b.first < blockSize {
			i := int(seq - b.first)
			return standing{id: uint16(firstID2 + nr*blockSize + i), received: b.received.has(i), dup: b.held.has(i)}
		}
	}
	return standing{}
}

// reserve gives a block to a lane, from seq on, if one is free: flushed says of
// a lane how far its cursor is on disk. It returns the packet ids that the cloud
// may still know from before; PUBREL must be sent for them before they are used.
func (g *ledger) reserve(lane string, seq uint64, flushed func(lane string) uint64) (stale []uint16, ok bool, err error) {
	g.mu.Lock()
	nr := g.free(flushed)
	if nr < 0 {
		g.mu.Unlock()
		return nil, false, nil
	}
	b := &g.blocks[nr]
	for i := range blockSize {
		if b.held.has(i) {
			stale = append(stale, uint16(firstID2+nr*blockSize+i))
		}
	}
	was := *b
	*b = block{lane: lane, first: seq}
	change := g.change(nr)
	g.mu.Unlock()
	if err := g.commit([]storequeue.Change{change}); err != nil {
		g.mu.Lock()
		*b = was
		g.mu.Unlock()
		return nil, false, err
	}
	return stale, true, nil
}

// free wants mu held. It returns -1 if no block is.
func (g *ledger) free(flushed func(lane string) uint64) int {
	found := -1
	for nr := range g.blocks {
		switch b := &g.blocks[nr]; {
		case b.lane != "" && flushed(b.lane) < b.first+blockSize-1:
			continue
		case b.held == (bitmap{}):
			return nr
		case found < 0:
			found = nr
		}
	}
	return found
}

// sent notes that a PUBLISH leaves; over notes that the cloud knows nothing of
// its packet id any more.
func (g *ledger) sent(id uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	nr, i := splitID2(id)
	g.blocks[nr].held.set(i)
}

func (g *ledger) over(id uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	nr, i := splitID2(id)
	g.blocks[nr].held.clear(i)
}

// receive puts on disk that the cloud has received messages.
func (g *ledger) receive(ids []uint16) error {
	g.mu.Lock()
	var touched [blocks]bool
	var changes []storequeue.Change
	for _, id := range ids {
		nr, i := splitID2(id)
		g.blocks[nr].received.set(i)
		touched[nr] = true
	}
	for nr := range touched {
		if touched[nr] {
			changes = append(changes, g.change(nr))
		}
	}
	g.mu.Unlock()
	return g.commit(changes)
}

// lose takes back that the cloud has received a message: it says that it knows
// nothing of it.
func (g *ledger) lose(id uint16) error {
	g.mu.Lock()
	nr, i := splitID2(id)
	g.blocks[nr].received.clear(i)
	g.blocks[nr].held.clear(i)
	change := g.change(nr)
	g.mu.Unlock()
	return g.commit([]storequeue.Change{change})
}
