package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A conn is one client's connection. Its goroutine reads; the outbox writes; if
// its session has a reader of the log, a third one delivers.
type conn struct {
	b        *Broker
	listener *Listener
	raw      net.Conn  // the socket
	nc       net.Conn  // what carries MQTT: the socket, TLS or a WebSocket on it
	tls      *tls.Conn // nil: plaintext
	framed   *framed   // nil: no WebSocket
	remote   netip.Addr
	accepted time.Time
	limits   *Limits // in force when it was accepted
	traffic  traffic
	dec      *mqtt.Decoder
	out      *outbox

	closing sync.Once
	quit    chan struct{}   // closed by close
	code    mqtt.ReasonCode // why; written before quit is closed
	by      string          // who ended it, empty: the server; likewise

	// Written while connecting, before another goroutine can see them.
	version   mqtt.Version
	id        access.Identity
	proof     string // how it showed who it is: "password", "certificate", both with a "+", or "anonymous"
	session   *session
	window    int  // QoS 1 and 2 that may be in flight to the client
	maxPacket int  // bytes; 0: no limit
	wordy     bool // it wants reason strings
	greeted   atomic.Bool

	// Of the connection's own goroutine.
	passed                  bool // the door
	will                    *will
	keepAlive               time.Duration // 0: none
	aliases                 []string      // by number - 1
	topic                   string        // of the last PUBLISH: the next one's is often the same
	publishing, subscribing pace
	delivery                delivery

	answers answers
}

var past = time.Unix(1, 0)

func newConn(b *Broker, l *Listener, raw, nc net.Conn) *conn {
	limits := b.limits.Load()
	secured, _ := nc.(*tls.Conn)
	var frames *framed
	if l.WebSocket {
		frames = newFramed(nc, limits.ConnectSize)
		nc = frames
	}
	c := &conn{
		b: b, listener: l, raw: raw, tls: secured, framed: frames, remote: addrOf(raw), accepted: time.Now(),
		limits: limits, quit: make(chan struct{}),
	}
	c.nc = &counted{nc, &c.traffic, &b.stats.traffic}
	c.dec, c.out = mqtt.NewDecoder(c.nc, limits.ConnectSize), newOutbox(c.nc, raw, limits, &b.outboxes)
	if frames != nil {
		frames.answering = c.out.setDeadline // a pong is written by who reads
	}
	c.answers.init(c)
	return c
}

// serve is the connection's life. It ends when the client goes, breaks a rule
// or lets a deadline pass, or when close is called. Logging in takes more stack
// than all that follows, and a goroutine keeps what it once had: the client that
// is in goes on in one of its own, which clients counts too.
func (c *conn) serve(ctx context.Context, clients *sync.WaitGroup) {
	c.b.mu.Lock()
	c.b.conns[c] = struct{}{}
	c.b.mu.Unlock()
	if !c.login(ctx) {
		c.over()
		return
	}
	clients.Go(func() {
		defer c.over()
		defer c.survive()
		c.readLoop(ctx)
	})
}

func (c *conn) login(ctx context.Context) (in bool) {
	defer c.survive()
	if ctx.Err() != nil { // accepted while Run was ending
		c.close(mqtt.ServerShuttingDown)
		return false
	}
	return c.connect(ctx)
}

func (c *conn) over() {
	defer c.hangUp()
	c.leave()
}

// survive ends a panic where it began: a defect of ours costs one connection,
// never the gateway.
func (c *conn) survive() {
	if r := recover(); r != nil {
		c.b.stats.panics.Add(1)
		c.b.log.Error("connection closed after a defect: please report this", "remote", c.remote,
			"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		c.close(mqtt.UnspecifiedError)
	}
}

// leave gives the session back.
func (c *conn) leave() {
	c.delivery.end()
	if c.greeted.Load() {
		c.tellDisconnect()
	}
	if c.session != nil {
		c.b.detach(c)
	}
	c.b.door.leave(c.remote, c.passed)
}

// hangUp lets the last words leave and closes the socket.
func (c *conn) hangUp() {
	c.out.seal(nil)
	<-c.out.flushed // at the latest when the write deadline that seal set has passed
	c.nc.Close()
	c.b.mu.Lock()
	delete(c.b.conns, c)
	c.b.mu.Unlock()
}

// close tells the client why, if it speaks MQTT 5, and wakes the read loop,
// which does the rest. It does not wait. Only the first call counts, and knows
// it. Safe for concurrent use.
func (c *conn) close(code mqtt.ReasonCode) (first bool) { return c.closeBy("", code) }

// closeBy is close for an end that by began.
func (c *conn) closeBy(by string, code mqtt.ReasonCode) (first bool) {
	return c.closeSaying(by, &mqtt.Disconnect{Code: code})
}

func (c *conn) closeSaying(by string, last *mqtt.Disconnect) (first bool) {
	code := last.Code
	c.closing.Do(func() {
		first = true
		c.by, c.code = by, code
		if code == mqtt.SessionTakenOver {
			c.b.stats.takeovers.Add(1)
		}
		if c.greeted.Load() && c.version == mqtt.V5 && code != mqtt.Success { // a client that left needs no answer
			c.out.seal(last)
		} else {
			c.out.seal(nil)
		}
		close(c.quit)
		c.nc.SetReadDeadline(past)
	})
	return first
}

func (c *conn) closed() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// readBy sets when the next read gives up; close overrides it.
func (c *conn) readBy(t time.Time) {
	c.nc.SetReadDeadline(t)
	if c.closed() {
		c.nc.SetReadDeadline(past)
	}
}

// send puts a packet into the outbox. A client that lets too many answers
// gather, or that takes no packet so large, is closed.
func (c *conn) send(p mqtt.Packet) {
	switch p.(type) {
	case *mqtt.Connack, *mqtt.Suback, *mqtt.Unsuback:
		if b, err := mqtt.Append(nil, c.version, p); err == nil && !c.fits(len(b)) { // [MQTT-3.1.2-24]
			c.close(mqtt.PacketTooLarge)
			return
		}
	}
	if !c.out.packet(p) {
		c.b.stats.hits.add(c.out.decided())
		c.close(mqtt.QuotaExceeded)
	}
}

// errGone ends a read loop: the connection is closed already, or Run is ending.
var errGone = errors.New("connection is over")

func (c *conn) readLoop(ctx context.Context) {
	for !c.closed() {
		if c.dec.Buffered() == 0 {
			c.expectNext()
		}
		p, err := c.dec.Read()
		if err == nil {
			err = c.handle(ctx, p)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// expectNext gives the client one and a half times its keep alive for the next
// packet [MQTT-3.1.2-22].
func (c *conn) expectNext() {
	if c.keepAlive > 0 {
		c.readBy(time.Now().Add(c.keepAlive + c.keepAlive/2))
	}
}

// end closes the connection for err.
func (c *conn) end(err error) {
	var broken *mqtt.Error
	switch {
	case c.closed():
	case errors.As(err, &broken):
		c.b.stats.protocolErrors.Add(1)
		c.b.stats.hits.broken(broken.Code, limitPacketSize)
		c.b.rarely.log(c.b.log.Warn, "client broke the protocol", "client", c.clientID(), "identity", c.id.Name,
			"remote", c.remote, "error", broken)
		c.closeSaying("", &mqtt.Disconnect{Code: broken.Code, ReasonString: reason(broken.Told(), c.maxPacket)})
	case errors.Is(err, errGone): // Run is ending
		c.close(mqtt.ServerShuttingDown)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.close(mqtt.KeepAliveTimeout)
	default:
		c.closeBy(byNetwork, mqtt.UnspecifiedError)
	}
}

// reason is text as a reason string, or nothing if it might make a CONNACK or
// DISCONNECT larger than what the client takes; 0: any size [MQTT-3.2.2-19]
// [MQTT-3.14.2-3].
func reason(text string, maxPacket int) string {
	const around = 16 // bytes of such a packet, at most, that has nothing else to say
	if maxPacket > 0 && len(text)+around > maxPacket {
		return ""
	}
	return text
}

func (c *conn) clientID() string {
	if c.session == nil {
		return ""
	}
	return c.session.clientID
}

// handle acts on one packet. Its error closes the connection.
func (c *conn) handle(ctx context.Context, p mqtt.Packet) error {
	switch p := p.(type) {
	case *mqtt.Publish:
		c.traffic.received.Add(1)
		return c.publish(ctx, p)
	case *mqtt.Ack:
		return c.acknowledged(p)
	case *mqtt.Subscribe:
		return c.subscribe(ctx, p)
	case *mqtt.Unsubscribe:
		return c.unsubscribe(ctx, p)
	case *mqtt.Pingreq:
		c.send(&mqtt.Pingresp{})
		return nil
	case *mqtt.Disconnect:
		return c.disconnect(p)
	case *mqtt.Auth:
		return violation(mqtt.BadAuthenticationMethod, "MQTT-4.12.0-1", "AUTH where no method was agreed")
	}
	// A second CONNECT [MQTT-3.1.0-2], or what only a server sends.
	return violation(mqtt.ProtocolError, "MQTT-3.1.0-2", fmt.Sprintf("%v is not for a client to send now", p.Type()))
}

func violation(code mqtt.ReasonCode, clause, text string) error {
	return &mqtt.Error{Code: code, Clause: clause, Text: text}
}

// acknowledged sorts PUBACK, PUBREC and PUBCOMP, which answer us, from PUBREL.
func (c *conn) acknowledged(a *mqtt.Ack) error {
	if a.Kind == mqtt.PUBREL {
		return c.release(a)
	}
	c.progress(a)
	return nil
}

// disconnect is the client's goodbye. Without an error code the will is
// forgotten [MQTT-3.14.4-3].
func (c *conn) disconnect(p *mqtt.Disconnect) error {
	s := c.session
	if p.HasSessionExpiry {
		if s.expiry == 0 && p.SessionExpiry != 0 {
			return violation(mqtt.ProtocolError, "section 3.14.2.2.2", "a session that was to end with its connection cannot be prolonged")
		}
		s.expiry = c.b.expiry(p.SessionExpiry)
	}
	if p.Code == mqtt.Success {
		c.will = nil
	}
	c.closeBy(byClient, mqtt.Success)
	return errGone
}
