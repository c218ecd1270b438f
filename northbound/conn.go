package northbound

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// A conn is the connection as the MQTT client sees it. Reads are buffered and
// bounded by packet size. Packets written while it is corked gather in a
// buffer; otherwise each leaves at once. A write that the network does not
// take in time ends the connection.
type conn struct {
	net.Conn                 // TLS, as a rule
	raw      net.Conn        // beneath TLS
	timeout  time.Duration   // of a write
	hold     func()          // called by the reader at each Read; may make it wait
	idle     func()          // called by the reader before it waits for the network
	fail     func(error)     // told of the first error
	lost     <-chan struct{} // closed once fail has been told

	heard, said moment // when bytes came and left last

	in         *bufio.Reader
	frame      frame
	old        bool                            // the server speaks MQTT 3.1.1; set before the first packet
	translated []byte                          // what is left of a packet that came as 3.1.1
	answer     func(kind byte, id uint16) bool // takes a plain PUBACK, PUBREC or PUBCOMP, or leaves it to the client

	mu     sync.Mutex // covers the fields below; held over writes, so that packets stay whole
	out    *bufio.Writer
	corked bool
	over   bool   // nothing of ours may follow: DISCONNECT is next
	packet []byte // to a 3.1.1 server: what the client library has written of one
}

const (
	readBuffer  = 16 << 10
	writeBuffer = 16 << 10        // as much as a TLS record holds
	politeClose = time.Second / 2 // TLS may take so long to say goodbye
	lastWords   = time.Second / 2 // the server's, to be read after a write has failed
)

func newConn(nc net.Conn, timeout time.Duration, fail func(error)) *conn {
	c := &conn{Conn: nc, raw: nc, timeout: timeout, fail: fail, hold: func() {}, idle: func() {}, answer: func(byte, uint16) bool { return false }}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		c.raw = t.NetConn()
	}
	c.heard.now()
	c.said.now()
	c.in = bufio.NewReaderSize(nc, readBuffer)
	c.out = bufio.NewWriterSize(writerFunc(c.send), writeBuffer)
	return c
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// send is the only place that writes to the network.
func (c *conn) send(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.said.now()
	return n, err
}

// Read is for one goroutine at a time.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if err != nil {
		c.fail(err)
	}
	return n, err
}

func (c *conn) read(p []byte) (int, error) {
	if len(c.translated) == 0 {
		c.hold()
		for more := true; more; more = c.takeAnswers() {
			if err := c.await(); err != nil {
				return 0, err
			}
		}
		old, err := c.isOld()
		if err == nil && old {
			err = c.readOld()
		}
		if err != nil {
			return 0, err
		}
	}
	if len(c.translated) > 0 {
		n := copy(p, c.translated)
		c.translated = c.translated[n:]
		return n, nil
	}
	n, err := c.in.Read(p)
	if bad := c.frame.pass(p[:n]); bad != nil {
		n, err = 0, bad
	}
	return n, err
}

// await waits for the network if nothing is left of what was read.
func (c *conn) await() error {
	if c.in.Buffered() > 0 {
		return nil
	}
	c.idle()
	if _, err := c.in.Peek(1); err != nil {
		return err
	}
	c.heard.now()
	return nil
}

const answerPlain = 4 // bytes of a PUBACK that says nothing but its packet id [MQTT-3.4.2-1]

// takeAnswers takes plain PUBACK, PUBREC and PUBCOMP off the front of what was
// read; they are by far the most packets, and the client would spend more than a
// kilobyte on each. It reports whether nothing is left to read.
func (c *conn) takeAnswers() bool {
	for c.frame.between() && c.in.Buffered() >= answerPlain {
		b, err := c.in.Peek(answerPlain)
		if err != nil || !isAnswer(b[0]) || b[1] != 2 || !c.answer(b[0]>>4, binary.BigEndian.Uint16(b[2:])) {
			return false
		}
		c.in.Discard(answerPlain)
	}
	return c.in.Buffered() == 0
}

func isAnswer(first byte) bool {
	return first == packets.PUBACK<<4 || first == packets.PUBREC<<4 || first == packets.PUBCOMP<<4
}

// Lock and Unlock go around all writes of one packet; paho calls them.
func (c *conn) Lock() { c.mu.Lock() }

// Unlock sends what was written, unless the connection is corked.
func (c *conn) Unlock() {
	if len(c.packet) > 0 {
		p, err := toOld(c.packet)
		if err != nil {
			c.broken(err)
		}
		c.put(p)
		c.packet = c.packet[:0]
	}
	if !c.corked {
		c.drain()
	}
	c.mu.Unlock()
}

// Write is called with the lock held.
func (c *conn) Write(p []byte) (int, error) {
	if c.old {
		c.packet = append(c.packet, p...)
		return len(p), nil
	}
	return c.put(p)
}

func (c *conn) put(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if err != nil {
		c.broken(err)
	}
	return n, err
}

// writePacket writes a packet of ours, which is as the server knows it, in two parts.
func (c *conn) writePacket(head, body []byte) error {
	c.Lock()
	defer c.Unlock()
	if c.over {
		return net.ErrClosed
	}
	if _, err := c.put(head); err != nil {
		return err
	}
	_, err := c.put(body)
	return err
}

// end lets only the client library write from now on, which says goodbye [MQTT-3.14.4-2].
func (c *conn) end() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
}

// cork gathers packets until uncork. Whoever corks must not wait for anything
// else before uncorking.
func (c *conn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// uncork sends what was gathered.
func (c *conn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.drain()
}

func (c *conn) drain() error {
	err := c.out.Flush()
	if err != nil {
		c.broken(err)
	}
	return err
}

// broken ends the connection, so that its reader returns as well. A server that
// closes it may have said why, and that counts for more than that nothing can be
// written now: the reader is given the time to hear it.
func (c *conn) broken(err error) {
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-c.lost:
	case <-t.C:
	}
	c.fail(fmt.Errorf("write: %w", err))
	c.raw.Close()
}

// Close says goodbye where that is quick.
func (c *conn) Close() error {
	t := time.AfterFunc(politeClose, func() { c.raw.Close() })
	defer t.Stop()
	err := c.Conn.Close()
	c.raw.Close()
	return err
}

// maxReceive bounds a packet from the cloud. It is announced in CONNECT and
// enforced here, because the MQTT client allocates whatever a header claims.
const maxReceive = 1 << 20

// A frame follows the packets in a stream [MQTT-1.5.5-1].
type frame struct {
	left   int  // of the packet's body
	length int  // as far as known
	shift  uint // of the next length byte
	header bool // the first byte was seen, the length is not complete
}

// between reports whether the next byte begins a packet.
func (f *frame) between() bool { return f.left == 0 && !f.header }

// pass takes the next bytes and refuses a packet that is too large at the last
// byte of its length.
func (f *frame) pass(p []byte) error {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		if !f.header {
			*f = frame{header: true}
			continue
		}
		f.length |= int(b&0x7f) << f.shift
		f.shift += 7
		if f.length > maxReceive || b&0x80 != 0 && f.shift == 28 {
			return fmt.Errorf("%w: a packet of more than %d bytes", errProtocol, maxReceive)
		}
		if b&0x80 == 0 {
			*f = frame{left: f.length}
		}
	}
	return nil
}
