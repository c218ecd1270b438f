package gateway_test

import (
	wire "encoding/binary"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A load is MQTT 3.1.1 clients that cost next to nothing, so that what is
// measured is the broker: one goroutine, one epoll, packets encoded beforehand,
// large reads, PUBACKs in one write. Every payload begins with the time at which
// it was sent.
type load struct {
	t     testing.TB
	shape shape
	began time.Time
	poll  int
	lines []*line // subscribers first
	subs  []*line
	pubs  []*line
	in    []byte

	sent, received int
	late           []uint32 // what each message took to arrive, µs
}

// A shape is what a load does.
type shape struct {
	publishers, subscribers int
	qos                     byte
	durable                 bool // the subscriber's session
	messages                int
	window                  int // in flight: unacknowledged of one publisher (QoS 1), undelivered of all (QoS 0)
	rate                    int // messages a second of all publishers; 0: as many as the window lets through
}

// A line is one client's connection.
type line struct {
	fd   int
	rest []byte // the beginning of a packet
	out  []byte // what the socket has not taken yet

	// Of a publisher: encoded packets with packet ids from 1, sent in a circle.
	ring       []byte
	size, next int
	open       int // unacknowledged
	acked      int
}

func newLoad(t testing.TB, port int, s shape) *load {
	t.Helper()
	l := &load{t: t, shape: s, began: time.Now(), in: make([]byte, 256<<10), late: make([]uint32, 0, s.messages*s.subscribers)}
	var err error
	if l.poll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for i := range s.subscribers {
		id := fmt.Sprint("sub-", i)
		if s.durable { // what the last run left
			dialLine(t, port, &mqtt.Connect{ClientID: id, CleanStart: true}, nil).close()
		}
		l.join(dialLine(t, port, &mqtt.Connect{ClientID: id, CleanStart: !s.durable},
			&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "plant/#", QoS: s.qos}}}))
	}
	for i := range s.publishers {
		p := l.join(dialLine(t, port, &mqtt.Connect{ClientID: fmt.Sprint("pub-", i), CleanStart: true}, nil))
		for id := range s.window {
			packet := mqtt.Publish{Topic: fmt.Appendf(nil, "plant/line-%d", i), QoS: s.qos, PacketID: uint16(id + 1), Payload: make([]byte, benchPayload)}
			if p.ring, err = mqtt.Append(p.ring, mqtt.V311, &packet); err != nil {
				t.Fatal(err)
			}
		}
		p.size = len(p.ring) / s.window
	}
	l.subs, l.pubs = l.lines[:s.subscribers], l.lines[s.subscribers:]
	return l
}

// dialLine logs in, and subscribes if sub is not nil.
func dialLine(t testing.TB, port int, hello *mqtt.Connect, sub *mqtt.Subscribe) *line {
	t.Helper()
	nc, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close() // the line has a descriptor of its own
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	dec := mqtt.NewDecoder(nc, 0)
	dec.SetVersion(mqtt.V311)
	hello.Version = mqtt.V311
	ask := func(p mqtt.Packet) {
		frame, err := mqtt.Append(nil, mqtt.V311, p)
		if err == nil {
			_, err = nc.Write(frame)
		}
		if err == nil {
			_, err = dec.Read()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ask(hello)
	if sub != nil {
		ask(sub)
	}
	f, err := nc.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &line{fd: fd}
}

// close says goodbye: the session of a clean start ends with it.
func (c *line) close() {
	syscall.Write(c.fd, []byte{byte(mqtt.DISCONNECT) << 4, 0})
	syscall.Close(c.fd)
}

// join lets the load hear of c.
func (l *load) join(c *line) *line {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(len(l.lines))}
	l.lines = append(l.lines, c)
	if err := syscall.EpollCtl(l.poll, syscall.EPOLL_CTL_ADD, c.fd, &event); err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *load) close() {
	for _, c := range l.lines {
		c.close()
	}
	syscall.Close(l.poll)
}

// run publishes everything and returns once all of it has arrived and is
// acknowledged.
func (l *load) run() time.Duration {
	all := l.shape.messages * l.shape.subscribers
	events := make([]syscall.EpollEvent, len(l.lines))
	start := time.Now()
	heard := start
	for l.sent < l.shape.messages || l.received < all || l.unacknowledged() > 0 {
		waiting := l.publish(time.Since(start))
		n, err := syscall.EpollWait(l.poll, events, waiting)
		if err != nil && err != syscall.EINTR {
			l.t.Fatal(err)
		}
		for _, e := range events[:max(n, 0)] {
			l.hear(int(e.Fd))
		}
		if n > 0 {
			heard = time.Now()
		} else if time.Since(heard) > 20*time.Second {
			l.t.Fatalf("nothing arrives any more: %d of %d sent, %d of %d received", l.sent, l.shape.messages, l.received, all)
		}
	}
	return time.Since(start)
}

func (l *load) unacknowledged() (n int) {
	for _, p := range l.pubs {
		n += p.open
	}
	return n
}

// publish sends what may be sent now and says how long to wait for events, in
// milliseconds.
func (l *load) publish(elapsed time.Duration) (waiting int) {
	waiting = 1000
	left := l.shape.messages - l.sent
	if l.shape.rate > 0 {
		left = min(left, int(elapsed.Seconds()*float64(l.shape.rate))-l.sent)
		waiting = 1
	}
	for i := range l.pubs {
		p := l.pubs[(l.sent+i)%len(l.pubs)]
		n := l.shape.window - p.open
		if l.shape.qos == 0 {
			n = l.shape.window - (l.sent - l.received/len(l.subs))
			n = min(n, (l.shape.window+len(l.pubs)-1)/len(l.pubs)) // each has its share
		}
		if l.shape.rate > 0 {
			n = min(n, (left+len(l.pubs)-1-i)/len(l.pubs))
		}
		if n = min(n, left); n <= 0 || !p.flush(l.t) {
			continue
		}
		left -= n
		l.sent += n
		if l.shape.qos > 0 {
			p.open += n
		}
		l.send(p, n)
	}
	for _, c := range l.lines {
		if !c.flush(l.t) {
			waiting = 1
		}
	}
	return waiting
}

// send writes the next n packets of the ring.
func (l *load) send(p *line, n int) {
	stamp := uint64(time.Since(l.began))
	for n > 0 {
		some := min(n, l.shape.window-p.next)
		part := p.ring[p.next*p.size : (p.next+some)*p.size]
		for at := p.size - benchPayload; at < len(part); at += p.size {
			wire.BigEndian.PutUint64(part[at:], stamp)
		}
		p.write(l.t, part)
		p.next = (p.next + some) % l.shape.window
		n -= some
	}
}

// write sends b, and keeps what the socket does not take.
func (c *line) write(t testing.TB, b []byte) {
	n := 0
	if len(c.out) == 0 {
		var err error
		if n, err = syscall.Write(c.fd, b); err != nil && err != syscall.EAGAIN {
			t.Fatalf("write: %v", err)
		}
		n = max(n, 0)
	}
	c.out = append(c.out, b[n:]...)
}

// flush reports whether the socket has taken everything.
func (c *line) flush(t testing.TB) bool {
	if len(c.out) > 0 {
		rest := c.out
		c.out = nil
		c.write(t, rest)
	}
	return len(c.out) == 0
}

// hear reads once from one of the lines.
func (l *load) hear(number int) {
	c := l.lines[number]
	have := copy(l.in, c.rest)
	n, err := syscall.Read(c.fd, l.in[have:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return
	}
	if err != nil || n == 0 {
		l.t.Fatalf("the broker hung up on line %d: %v", number, err)
	}
	arrived := l.in[:have+n]
	if number < len(l.subs) {
		arrived = l.take(c, arrived)
	} else {
		arrived = c.acknowledged(l.t, arrived)
	}
	c.rest = append(c.rest[:0], arrived...)
}

// take counts and acknowledges messages; it returns what is not a whole one.
func (l *load) take(c *line, b []byte) []byte {
	now := uint64(time.Since(l.began))
	var acks [64 << 10]byte
	reply := acks[:0]
	for len(b) > 4 {
		head, size := 2, 2+int(b[1]&0x7F)
		if b[1] >= 0x80 {
			head, size = 3, 3+int(b[1]&0x7F)+int(b[2])<<7
		}
		if mqtt.Type(b[0]>>4) != mqtt.PUBLISH {
			l.t.Fatalf("packet type %d instead of PUBLISH", b[0]>>4)
		}
		if len(b) < size {
			break
		}
		if topic := int(b[head])<<8 + int(b[head+1]); b[0]&6 != 0 {
			id := b[head+2+topic:]
			reply = append(reply, byte(mqtt.PUBACK)<<4, 2, id[0], id[1])
		}
		l.late = append(l.late, uint32((now-wire.BigEndian.Uint64(b[size-benchPayload:]))/1000))
		l.received++
		b = b[size:]
	}
	if len(reply) > 0 {
		c.write(l.t, reply)
	}
	return b
}

// acknowledged counts PUBACKs, which must come in the order of the messages.
func (c *line) acknowledged(t testing.TB, b []byte) []byte {
	for ; len(b) >= 4; b = b[4:] {
		if id := c.acked%(len(c.ring)/c.size) + 1; b[0] != byte(mqtt.PUBACK)<<4 || int(b[2])<<8+int(b[3]) != id {
			t.Fatalf("% x instead of the PUBACK for %d", b[:4], id)
		}
		c.acked++
		c.open--
	}
	return b
}

// percentile is the time within which a share of the messages arrived.
func (l *load) percentile(share float64) time.Duration {
	slices.Sort(l.late)
	return time.Duration(l.late[min(int(share*float64(len(l.late))), len(l.late)-1)]) * time.Microsecond
}
