package northbound

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A breaker is a TCP proxy between a link and a cloud. It knows where packets
// begin, or TLS records, and breaks the line at one of them, once each time it
// is armed: just before the packet passes, or just after.
type breaker struct {
	t     *testing.T
	to    string // the cloud
	at    place
	how   fault
	after bool

	mu     sync.Mutex // covers the fields below
	ln     net.Listener
	conns  map[net.Conn]struct{}
	closed bool
	armed  int           // packets of the place to let pass, and the one to break at; 0: none
	broken chan struct{} // closed when it broke
	done   sync.WaitGroup
}

// A place is a kind of packet on its way down from the cloud or up to it.
type place struct {
	name string
	down bool
	nth  int // of its kind, once armed
	is   func(packet []byte) bool
	tls  bool // records, not packets
	live bool // without a new connection
}

type fault string

const (
	cutOff    fault = "cut"        // FIN to both sides
	resets    fault = "reset"      // RST to both sides
	blackHole fault = "black hole" // nothing passes any more, and nobody is told
)

func newBreaker(t *testing.T, to string, at place, how fault, after bool) *breaker {
	b := &breaker{t: t, to: to, at: at, how: how, after: after, conns: map[net.Conn]struct{}{}}
	b.open("127.0.0.1:0")
	t.Cleanup(b.close)
	return b
}

// close ends everything, until open.
func (b *breaker) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.ln.Close()
	b.closeAll()
	b.done.Wait()
}

func (b *breaker) open(address string) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		b.t.Error(err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ln, b.closed = ln, false
	b.done.Go(func() { // ends with ln
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			b.done.Go(func() { b.carry(near) }) // ends with both sides, or closeAll
		}
	})
}

func (b *breaker) address() string { return b.ln.Addr().String() }

// arm returns what is closed when it breaks.
func (b *breaker) arm() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed, b.broken = b.at.nth, make(chan struct{})
	return b.broken
}

func (b *breaker) keep(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[c] = struct{}{}
	if b.closed {
		c.Close()
	}
}

func (b *breaker) closeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
	}
}

// A line is one connection through a breaker.
type line struct {
	*breaker
	near, far *net.TCPConn

	mu   sync.Mutex // covers dead; held over what passes
	dead bool
}

func (b *breaker) carry(near net.Conn) {
	b.keep(near)
	far, err := net.Dial("tcp", b.to)
	if err != nil {
		near.Close()
		return
	}
	b.keep(far)
	l := &line{breaker: b, near: near.(*net.TCPConn), far: far.(*net.TCPConn)}
	var both sync.WaitGroup
	both.Go(func() { l.pump(l.near, l.far, false) })
	both.Go(func() { l.pump(l.far, l.near, true) })
	both.Wait()
	near.Close()
	far.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, near)
	delete(b.conns, far)
}

func (l *line) pump(from, to *net.TCPConn, down bool) {
	r := bufio.NewReader(from)
	for {
		p, err := readPacket(r, l.at.tls)
		if err != nil || !l.pass(p, to, down) {
			break
		}
	}
	io.Copy(io.Discard, r) // a hole swallows, and a cut line too
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dead || l.how != blackHole {
		to.CloseWrite()
	}
}

// pass reports whether the line lives on.
func (l *line) pass(p []byte, to io.Writer, down bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return false
	}
	hit := down == l.at.down && l.at.is(p) && l.hits()
	if !hit || l.after {
		if _, err := to.Write(p); err != nil {
			return false
		}
	}
	if !hit {
		return true
	}
	l.dead = true
	switch l.how {
	case cutOff:
		l.near.CloseWrite()
		l.far.CloseWrite()
	case resets:
		l.near.SetLinger(0)
		l.far.SetLinger(0)
		l.near.Close()
		l.far.Close()
	}
	return false
}

func (b *breaker) hits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.armed == 0 {
		return false
	}
	if b.armed--; b.armed > 0 {
		return false
	}
	close(b.broken)
	return true
}

// readPacket reads an MQTT packet or a TLS record.
func readPacket(r *bufio.Reader, tls bool) ([]byte, error) {
	n, size := 1, 0
	_, err := r.Peek(1)
	for shift := 0; err == nil && !tls; shift += 7 {
		if n++; n > 5 {
			return nil, io.ErrUnexpectedEOF
		}
		head, err := r.Peek(n)
		if err != nil {
			return nil, err
		}
		b := head[n-1]
		size |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if err == nil && tls {
		n = 5
		var head []byte
		if head, err = r.Peek(n); err == nil {
			size = int(binary.BigEndian.Uint16(head[3:]))
		}
	}
	if err != nil {
		return nil, err
	}
	p := make([]byte, n+size)
	_, err = io.ReadFull(r, p)
	return p, err
}

// soon waits for what must come, in real time.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}
