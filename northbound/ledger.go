package northbound

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
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
// all of them are done on disk. So whatever the cloud remembers of a
// packet id after a crash is about the one message that the ledger names.
//
// A lane's second place has blocks of its own, ahead of the lane's: after a crash
// they tell what it may have sent. Where a block of the lane reaches into one of
// those, the message was sent under that of the second place, or never.
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
	blockBytes = 1 + 8 + blockSize/8 + 2 // layout version, first sequence, received, length - 1, live; the lane's name follows
	blockV2    = 2
	blockV1    = 1 // without the two before the name
)

// A block is the packet ids of one stretch of a lane's sequence numbers.
type block struct {
	lane     string // empty: nobody's
	live     bool   // of the lane's second place
	first    uint64
	more     uint8  // sequence numbers behind the first
	received bitmap // PUBREC is on disk, or is being written
	held     bitmap // the cloud may know this packet id
}

type bitmap [blockSize / 64]uint64

func (b *bitmap) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b *bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b *bitmap) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

func (b *block) last() uint64 { return b.first + uint64(b.more) }

func (b *block) has(lane string, seq uint64) bool {
	return b.lane == lane && seq >= b.first && seq <= b.last()
}

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
		} else if _, err := fmt.Sscanf(key, "block/%d", &nr); err == nil && nr >= 0 && nr < blocks && g.blocks[nr].decode(value) {
			g.blocks[nr].held = allHeld
		} else {
			return fmt.Errorf("%s in %s is of a newer program: use that, or remove the link for one start", key, g.bucket)
		}
		return nil
	})
	return g, err
}

func (g *ledger) change(nr int) storequeue.Change {
	b := &g.blocks[nr]
	v := binary.BigEndian.AppendUint64([]byte{blockV2}, b.first)
	for _, w := range b.received {
		v = binary.BigEndian.AppendUint64(v, w)
	}
	v = append(v, b.more, 0)
	if b.live {
		v[len(v)-1] = 1
	}
	return storequeue.Change{Bucket: g.bucket, Key: blockKey(nr), Value: append(v, b.lane...)}
}

// decode reports whether v is what change has written.
func (b *block) decode(v []byte) bool {
	name, known := 0, false
	switch {
	case len(v) > blockBytes && v[0] == blockV2:
		name, known = blockBytes, true
		b.more, b.live = v[blockBytes-2], v[blockBytes-1] == 1
	case len(v) > blockBytes-2 && v[0] == blockV1:
		name, known = blockBytes-2, true
		b.more = blockSize - 1
	}
	if known {
		b.first, b.lane = binary.BigEndian.Uint64(v[1:]), string(v[name:])
		for i := range b.received {
			b.received[i] = binary.BigEndian.Uint64(v[9+8*i:])
		}
	}
	return known
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
	var at standing
	for nr := range g.blocks {
		if b := &g.blocks[nr]; b.has(lane, seq) && (b.live || at.id == 0) {
			i := int(seq - b.first)
			at = standing{id: uint16(firstID2 + nr*blockSize + i), received: b.received.has(i), dup: b.held.has(i)}
			if b.live {
				break
			}
		}
	}
	return at
}

// sentLive lists what a lane's second place may have sent and is not done.
func (g *ledger) sentLive(lane string, settled func(lane string, first, last uint64) bool) (all []storequeue.Range) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for nr := range g.blocks {
		if b := &g.blocks[nr]; b.lane == lane && b.live && !settled(lane, b.first, b.last()) {
			all = append(all, storequeue.Range{First: b.first, Last: b.last()})
		}
	}
	slices.SortFunc(all, func(x, y storequeue.Range) int { return cmp.Compare(x.First, y.First) })
	return all
}

// cut takes from a lane's second place what it has not sent of its blocks: what
// lies behind seq is the lane's now, and must not hold them until its turn.
func (g *ledger) cut(lane string, seq uint64) error {
	g.mu.Lock()
	was := g.blocks
	var changes []storequeue.Change
	for nr := range g.blocks {
		if b := &g.blocks[nr]; b.lane == lane && b.live && b.first <= seq && seq < b.last() {
			b.more = uint8(seq - b.first)
			changes = append(changes, g.change(nr))
		}
	}
	g.mu.Unlock()
	err := g.commit(changes)
	if err != nil { // nothing was sent meanwhile
		g.mu.Lock()
		g.blocks = was
		g.mu.Unlock()
	}
	return err
}

// reserve gives a block to a lane, as want says, if one is free: settled says of
// a lane what is done on disk. It returns the packet ids that the cloud
// may still know from before; PUBREL must be sent for them before they are used.
func (g *ledger) reserve(want block, settled func(lane string, first, last uint64) bool) (stale []uint16, ok bool, err error) {
	g.mu.Lock()
	nr := g.free(settled)
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
	*b = want
	b.more = blockSize - 1
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
func (g *ledger) free(settled func(lane string, first, last uint64) bool) int {
	found := -1
	for nr := range g.blocks {
		switch b := &g.blocks[nr]; {
		case b.lane != "" && !settled(b.lane, b.first, b.last()):
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
