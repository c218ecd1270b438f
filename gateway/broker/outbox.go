package broker

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// An outbox is what waits for one connection's socket. Anyone may put packets
// in; they leave in that order, as many in one write as have gathered. Its
// writer is a goroutine that lives while there is something to write: a quiet
// connection has none, and no buffer.
type outbox struct {
	nc      net.Conn // what is written to
	raw     net.Conn // the socket under it: closed without another write
	version mqtt.Version
	limit   int           // bytes that may wait
	budget  *budget       // for all outboxes
	patient time.Duration // for one write
	room    chan struct{} // room for one: the writer took what was there
	flushed chan struct{} // closed when sealed and empty, or broken
	aliases *aliases      // of the topics of frames; nil: none. Covered by mu

	mu      sync.Mutex // covers the fields below; never held over a write
	pending *buffer    // nil: nothing waits
	writing bool       // the writer runs
	sealed  bool       // nothing more goes in
	broken  bool       // a write failed: everything is thrown away
	timed   time.Time  // when the last write deadline was set
}

type buffer struct{ b []byte }

// buffers are shared by all connections that have something to say.
var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 4<<10)} }}

const (
	maxPooled  = 64 << 10
	writeChunk = 64 << 10 // what one write deadline is for
)

func newOutbox(nc, raw net.Conn, l *Limits, all *budget) *outbox {
	return &outbox{
		nc: nc, raw: raw, limit: l.Outbox, budget: all, patient: l.Write,
		room: make(chan struct{}, 1), flushed: make(chan struct{}),
	}
}

// packet puts p in, whatever its size: what answers a client is bounded by what
// the client may have outstanding. It reports false when the client has let so
// much gather that it must go.
func (o *outbox) packet(p mqtt.Packet) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed || o.broken {
		return true
	}
	if o.waiting() > 2*min(o.limit, o.budget.share()) {
		return false
	}
	o.put(p)
	return true
}

// frame puts an encoded PUBLISH in if there is room for it. An empty outbox has
// room for any packet, unless all outboxes together have too much.
func (o *outbox) frame(f []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed || o.broken || !o.fits(len(f)) {
		return false
	}
	o.open()
	before := len(o.pending.b)
	o.pending.b = o.aliases.append(o.pending.b, f)
	o.budget.used.Add(int64(len(o.pending.b) - before))
	o.start()
	return true
}

// frameWait is frame for someone who can wait. It reports false when stop was
// closed, or nothing goes in any more.
func (o *outbox) frameWait(stop <-chan struct{}, f []byte) bool {
	for !o.frame(f) {
		if o.ended() {
			return false
		}
		if !o.await(stop) {
			return false
		}
	}
	return true
}

// await returns when it is worth trying again; false: stop was closed, or
// nothing goes in any more. With nothing in the outbox it is others who have to
// make room, and they tell nobody.
func (o *outbox) await(stop <-chan struct{}) bool {
	var retry <-chan time.Time
	if o.idle() {
		t := time.NewTimer(starvedRetry)
		defer t.Stop()
		retry = t.C
	}
	select {
	case <-retry:
	case <-o.room:
	case <-o.flushed:
		return false
	case <-stop:
		return false
	}
	return true
}

func (o *outbox) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting() == 0
}

// decided tells the limit that keeps frames out of the outbox.
func (o *outbox) decided() limit {
	if o.budget.share() < o.limit {
		return limitOutboxTotal
	}
	return limitOutbox
}

// seal lets what waits leave, and last, if not nil, behind it. The socket gets
// lingerTime for that; then flushed is closed.
func (o *outbox) seal(last mqtt.Packet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return
	}
	if last != nil && !o.broken {
		o.put(last)
	}
	o.sealed = true
	o.nc.SetWriteDeadline(time.Now().Add(lingerTime))
	if !o.writing {
		o.finish()
	}
}

// sever gives up what has not been written. Only the writer calls it.
func (o *outbox) sever() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = true
}

func (o *outbox) ended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sealed || o.broken
}

// The following are called with mu held.

func (o *outbox) waiting() int {
	if o.pending == nil {
		return 0
	}
	return len(o.pending.b)
}

// fits reports whether a frame of n bytes may go in.
func (o *outbox) fits(n int) bool {
	if o.waiting() == 0 {
		return n <= minShare || n <= o.budget.left()
	}
	return o.waiting()+n <= min(o.limit, o.budget.share())
}

func (o *outbox) open() {
	if o.pending == nil {
		o.pending = buffers.Get().(*buffer)
	}
}

func (o *outbox) put(p mqtt.Packet) {
	o.open()
	if b, err := mqtt.Append(o.pending.b, o.version, p); err == nil {
		o.budget.used.Add(int64(len(b) - len(o.pending.b)))
		o.pending.b = b
	}
	o.start()
}

// start makes sure that a writer runs. It stops when nothing is left, or at the
// first failed write, at the latest patient after seal.
func (o *outbox) start() {
	if !o.writing {
		o.writing = true
		go o.write()
	}
}

// finish closes flushed once nothing more will be written.
func (o *outbox) finish() {
	if !o.sealed && !o.broken {
		return
	}
	select {
	case <-o.flushed:
	default:
		close(o.flushed)
	}
}

// write is the writer.
func (o *outbox) write() {
	for {
		b := o.take()
		if b == nil {
			return
		}
		err := o.send(b.b)
		o.budget.used.Add(-int64(len(b.b)))
		if cap(b.b) <= maxPooled {
			b.b = b.b[:0]
			buffers.Put(b)
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !o.ended() {
				o.budget.hits.add(limitWrite)
			}
			o.sever()
			o.raw.Close() // ends the connection's read loop
		}
	}
}

// take hands the writer what has gathered, or ends it.
func (o *outbox) take() *buffer {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.pending
	o.pending = nil
	if b != nil && o.broken {
		o.budget.used.Add(-int64(len(b.b)))
	}
	if b == nil || o.broken {
		o.writing = false
		o.finish()
		return nil
	}
	select {
	case o.room <- struct{}{}:
	default:
	}
	return b
}

func (o *outbox) send(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), writeChunk)
		o.setDeadline()
		if _, err := o.nc.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// setDeadline gives the next write its time, or a little less when the last one
// had its only just now, unless seal has set the last one.
func (o *outbox) setDeadline() {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.sealed && now.Sub(o.timed) > o.patient/8 {
		o.timed = now
		o.nc.SetWriteDeadline(now.Add(o.patient))
	}
}
