package mqtt

import "io"

const (
	idleBuffer = 256      // what an idle connection reads into
	minBuffer  = 2 << 10  // what one reads into that has something to say
	keptBuffer = 16 << 10 // what a busy connection may keep between packets
	quietReads = 16       // small reads in a row after which a kept buffer goes
	maxSize    = 5 + 268_435_455
)

// A Decoder reads packets from one connection. It is not safe for concurrent use.
type Decoder struct {
	r       io.Reader
	limit   int
	version Version
	opened  bool  // a CONNECT was read
	err     error // the protocol violation after which nothing more is read

	buf        []byte // buf[start:end] has arrived and is not yet decoded
	start, end int
	full       bool // the last network read filled the buffer
	quiet      int  // network reads in a row that used little of it

	idle [idleBuffer]byte

	in      body
	publish Publish
	ack     Ack
}

// NewDecoder reads from r packets of at most limit bytes, fixed header included;
// limit 0 is the protocol's own. Sizes are checked before anything is allocated,
// and the buffer grows with what has arrived, not with what was announced.
func NewDecoder(r io.Reader, limit int) *Decoder {
	d := &Decoder{r: r}
	d.SetLimit(limit)
	return d
}

// SetVersion fixes how packets are read. A server need not call it: the first
// CONNECT does. A client calls it before the first Read.
func (d *Decoder) SetVersion(v Version) { d.version = v }

// Version is the protocol level that the CONNECT asked for, also when Read
// refused it as unsupported; 0 before a CONNECT and for a foreign protocol.
func (d *Decoder) Version() Version { return d.version }

// SetLimit changes the packet size limit from the next packet on.
func (d *Decoder) SetLimit(n int) {
	if n <= 0 || n > maxSize {
		n = maxSize
	}
	d.limit = n
}

// Buffered is the number of bytes that have arrived, if the next Read returns
// without waiting for the network, and 0 if it has to wait. With a part of a
// packet in the buffer it is 0: the rest may take any time.
func (d *Decoder) Buffered() int {
	arrived := d.buf[d.start:d.end]
	if _, size, err := d.header(arrived); err == nil && (size == 0 || size > len(arrived)) {
		return 0
	}
	return len(arrived)
}

// Read returns the next packet. A *Publish or *Ack is valid until the next Read;
// every other packet belongs to the caller. io.EOF means the peer closed between
// packets, io.ErrUnexpectedEOF within one. A protocol violation is an *Error and
// final; after other errors, a read deadline for example, Read may be repeated.
func (d *Decoder) Read() (Packet, error) {
	if d.err != nil {
		return nil, d.err
	}
	d.release()
	for {
		arrived := d.buf[d.start:d.end]
		head, size, err := d.header(arrived)
		if err != nil {
			d.err = err
			return nil, err
		}
		if size > 0 && size <= len(arrived) {
			d.start += size
			return d.decode(arrived[0], head, arrived[head:size:size])
		}
		if err := d.receive(); err != nil {
			return nil, err
		}
	}
}

// header reads the fixed header in front of b: its size and the packet's.
// Both are 0 while bytes of it are missing. What can be refused from the header
// alone is refused here, before the rest is waited for.
func (d *Decoder) header(b []byte) (head, size int, err *Error) {
	if len(b) == 0 {
		return 0, 0, nil
	}
	if err := d.checkFirst(b[0]); err != nil {
		return 0, 0, err
	}
	remaining := 0
	for i := 1; i < len(b); i++ {
		remaining |= int(b[i]&0x7F) << (7 * (i - 1))
		switch {
		case b[i] >= 0x80 && i == 4:
			return 0, 0, &Error{MalformedPacket, "section 2.1.4", "remaining length of more than four bytes"}
		case b[i] >= 0x80:
			continue
		case i+1+remaining > d.limit:
			return 0, 0, &Error{PacketTooLarge, "MQTT-3.1.2-25", "packet is larger than the limit"}
		}
		return i + 1, i + 1 + remaining, nil
	}
	return 0, 0, nil
}

// headerFlags are the fixed flags of each packet type but PUBLISH [MQTT-2.1.3-1].
var headerFlags = [16]byte{PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}

func (d *Decoder) checkFirst(first byte) *Error {
	t := Type(first >> 4)
	switch {
	case t == 0, t == AUTH && d.version == V311:
		return &Error{MalformedPacket, "section 2.1.2", "reserved packet type"}
	case d.version == 0 && t != CONNECT:
		return &Error{ProtocolError, "MQTT-3.1.0-1", "first packet is not CONNECT"}
	case t == CONNECT && d.opened:
		return &Error{ProtocolError, "MQTT-3.1.0-2", "second CONNECT"}
	case t != PUBLISH && first&15 != headerFlags[t]:
		return &Error{MalformedPacket, "MQTT-2.1.3-1", "wrong flags in the fixed header"}
	}
	return nil
}

// release takes the buffer back that the last packet was in.
func (d *Decoder) release() {
	if d.start < d.end {
		return
	}
	d.start, d.end = 0, 0
	if size := len(d.buf); size > keptBuffer || size > minBuffer && d.quiet >= quietReads || d.quiet > 1 && size == minBuffer {
		d.buf, d.quiet, d.full = nil, 0, false
	}
}

// grow gives a larger buffer for what has arrived.
func (d *Decoder) grow() {
	if len(d.buf) == 0 {
		d.buf = d.idle[:]
	} else {
		d.buf = make([]byte, max(minBuffer, 2*len(d.buf)))
	}
}

// receive reads once from the network, behind what has arrived. The buffer
// grows when a packet has filled it, or the peer sends faster than it holds.
func (d *Decoder) receive() error {
	arrived := d.buf[d.start:d.end]
	if size := len(d.buf); len(arrived) == size || d.full && size < keptBuffer {
		d.grow()
	}
	d.start, d.end = 0, copy(d.buf, arrived)
	for range 100 {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		d.full = d.end == len(d.buf)
		if d.quiet++; d.full || n > max(idleBuffer, len(d.buf)/8) {
			d.quiet = 0
		}
		switch {
		case n > 0:
			return nil // an error that came along comes again
		case err == io.EOF && d.end > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}
