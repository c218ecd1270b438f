package northbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// A connection is one MQTT connection that came to its CONNACK. It is thrown
// away once it fails.
type connection struct {
	client *paho.Client
	conn   *conn
	window *window
	fail   func(error) // ends it; the first reason counts

	present  bool // the server has our session
	maxSize  int  // of a packet to the server
	retain   bool // the server takes retained messages
	maxQoS   byte // that the server takes
	maxAlias uint16
	aliases  map[string]uint16 // by topic; used by the sender
	state    string            // where the cloud learns that the gateway is there; empty: nowhere
}

const (
	receiveMaximum = 20                    // commands on their way in
	ackInterval    = 10 * time.Millisecond // how often commands are acknowledged
	drainTime      = time.Second           // what is in flight may still be answered at shutdown
)

var (
	errStopped = errors.New("the gateway stops")
	errRenewed = errors.New("a new connection is to be made")
	errBetter  = errors.New("a server that comes first can be reached again")
)

// visit connects to a server and stays until the connection or ctx ends. It
// returns how long the link was up.
func (l *Link) visit(ctx context.Context, server string) (up time.Duration, err error) {
	life, fail := context.WithCancelCause(context.WithoutCancel(ctx)) // outlives ctx by the shutdown
	defer fail(nil)
	select {
	case <-l.fresh: // this will be a new connection anyway
	default:
	}
	c, err := l.connect(ctx, life, server, fail)
	if err != nil {
		return 0, explain(server, err)
	}
	start := time.Now()
	l.status.up(server, c.window, l.backlog())
	l.log.Info("link to the cloud is up", "server", server)
	defer context.AfterFunc(ctx, func() { // frees a write that the network does not take
		time.AfterFunc(drainTime+politeClose, func() { c.conn.raw.Close() })
	})()
	var answering sync.WaitGroup
	answering.Go(func() { l.release(life, c) })   // ends with life
	answering.Go(func() { l.discharge(life, c) }) // ends with life
	err = l.serve(ctx, life, server, c)
	c.conn.Close()
	fail(errStopped)
	answering.Wait()
	<-c.client.Done() // its goroutines end with the connection
	l.keep(c.window, err)
	return max(time.Since(start), 1), explain(server, err)
}

// serve uses a connection until it is lost, ctx ends, or the queue fails.
func (l *Link) serve(ctx, life context.Context, server string, c *connection) error {
	sending, stop := context.WithCancel(life)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	renewed := make(chan error, 1)
	go func() { // ends with sending
		renewed <- l.replaced(sending, server)
		stop()
	}()
	err := l.agree(life, server, c)
	if err == nil {
		err = l.greet(sending, c)
	}
	if err == nil {
		s := newSender(l, c)
		ended := make(chan error, 1)
		go func() { ended <- s.run(sending) }() // ends with sending
		err = l.watch(c, ended)
	}
	stop()
	switch anew := <-renewed; {
	case life.Err() == nil && anew != nil && ctx.Err() == nil && !errors.Is(err, errSource):
		code := byte(packets.DisconnectNormalDisconnection) // nobody is to hear of it: no will
		if state, _, _ := l.stateTopic(); state != c.state {
			code = packets.DisconnectDisconnectWithWillMessage // it is told elsewhere from now on
		}
		leave(life, c, code)
		err = anew
	case life.Err() == nil:
		leave(life, c, packets.DisconnectDisconnectWithWillMessage) // [MQTT-3.14.4]
	case !errors.Is(err, errSource):
		err = context.Cause(life)
	}
	return err
}

// watch waits for the sender to end, and ends a connection on which the server
// leaves messages without an answer.
func (l *Link) watch(c *connection, ended <-chan error) error {
	patience := max(l.cfg.KeepAlive, 20*time.Second)
	tick := time.NewTicker(patience)
	defer tick.Stop()
	var seen uint64
	waiting := false // at the last tick something was in flight
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		answered, inFlight := c.window.answered(), c.window.unanswered() > 0
		if inFlight && waiting && answered == seen {
			c.fail(fmt.Errorf("the server has acknowledged nothing for %v", patience))
		}
		seen, waiting = answered, inFlight
	}
}

// leave waits for answers that are on their way and says goodbye; with the will,
// the cloud sees us go.
func leave(life context.Context, c *connection, code byte) {
	t := time.NewTimer(drainTime)
	defer t.Stop()
	for late := false; !late && c.window.unanswered() > 0; {
		select {
		case <-c.window.wake:
		case <-t.C:
			late = true
		case <-life.Done():
			late = true
		}
	}
	c.fail(errStopped)
	c.conn.end()
	_ = c.client.Disconnect(&paho.Disconnect{ReasonCode: code})
}

// advance tells each lane how far the cloud has acknowledged.
func (l *Link) advance(w *window) {
	for i, lane := range l.lanes {
		lane.Ack(w.done(i))
	}
}

// keep remembers, after a connection, what was acknowledged behind a gap. A
// server that named a fault of the only message in flight has refused it.
func (l *Link) keep(w *window, cause error) {
	l.advance(w)
	rest := w.reset()
	var d *disconnectError
	switch {
	case errors.As(cause, &d) && blamesMessage(d.code):
		l.blame(rest, d.code)
	case hungUp(cause):
		l.suspect(rest)
	}
	for i := range rest {
		if s := &rest[i]; s.state == slotSent {
			l.redo[s.lane].ids[s.seq] = s.id
		}
	}
	l.learn(w, rest)
}

// connect dials and exchanges CONNECT and CONNACK. The connection ends with
// life, and fail ends life.
func (l *Link) connect(ctx, life context.Context, server string, fail func(error)) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	defer cancel()
	nc, err := l.dial(ctx, server)
	if err != nil {
		return nil, err
	}
	c := &connection{conn: newConn(nc, l.writeTimeout(), fail), fail: fail}
	c.conn.old, c.conn.lost = l.cfg.Old, life.Done()
	defer context.AfterFunc(ctx, func() { c.conn.raw.Close() })() // frees a write, which ctx does not
	s := &session{
		begin: func(ack *packets.Connack) (*window, error) {
			w := l.begin(c, ack)
			l.intake.begin()
			if !l.receivesOnce() {
				return w, nil
			}
			return w, l.persist(ctx, func() error { return l.intake.meet(server, c.present) })
		},
		answered: l.answered, ledger: l.ledger, intake: l.intake, fail: fail, lost: life.Done(),
		requests: map[uint16]chan<- packets.ControlPacket{},
	}
	started := make(chan struct{}) // closed once paho has started all its goroutines
	defer close(started)           // a failure before that races with its own Connect
	c.conn.hold = func() {
		if s.window != nil {
			<-started
		}
	}
	c.conn.idle = func() {
		if s.window != nil {
			l.advance(s.window)
			s.window.signal()
		}
	}
	c.conn.answer = s.plain
	c.client = paho.NewClient(paho.ClientConfig{
		Conn: c.conn, Session: s,
		PingHandler: pinger{c.conn, fail, started},
		AuthHandler: noAuth{},
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) { return true, l.receive(life, p, fail) },
		},
		PacketTimeout:              l.cfg.ConnectTimeout,
		EnableManualAcknowledgment: true,
		SendAcksInterval:           ackInterval,
	})
	hello := l.hello()
	if w := hello.WillMessage; w != nil {
		c.state = w.Topic
	}
	ack, err := c.client.Connect(ctx, hello)
	if ack != nil && ack.ReasonCode >= 0x80 {
		l.plainWill = l.plainWill || ack.ReasonCode == packets.ConnackRetainNotSupported
		return nil, &connackError{ack.ReasonCode, ack.Properties.ReasonString, l.cfg.ClientID}
	}
	return c, err
}

// receivesOnce reports whether messages may come at QoS 2, now or from before.
func (l *Link) receivesOnce() bool {
	return len(l.intake.kept) > 0 || slices.ContainsFunc(l.routes.Load().receive, func(r Route) bool { return r.QoS > 1 })
}

func (l *Link) writeTimeout() time.Duration { return l.cfg.KeepAlive * 3 / 2 }

// dialTLS opens a TCP connection and TLS on it.
func (l *Link) dialTLS(ctx context.Context, server string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	cfg, err := l.cfg.TLS(host)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	cfg = cfg.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	d := net.Dialer{Control: userTimeout(l.writeTimeout())}
	raw, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(&counted{raw, &l.status}, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return tc, nil
}

// hello is the CONNECT packet. The session persists, for the commands; what we
// send starts from the queue each time.
func (l *Link) hello() *paho.Connect {
	expiry := uint32(min(l.cfg.SessionExpiry/time.Second, math.MaxUint32-1))
	inbound, size := uint16(receiveMaximum), uint32(maxReceive)
	p := &paho.Connect{
		ClientID:   l.cfg.ClientID,
		KeepAlive:  uint16(min((l.cfg.KeepAlive+time.Second-1)/time.Second, math.MaxUint16)),
		CleanStart: l.cfg.Old && expiry == 0, // 3.1.1 keeps a session for ever, or not at all
		Properties: &paho.ConnectProperties{
			SessionExpiryInterval: &expiry,
			ReceiveMaximum:        &inbound,
			MaximumPacketSize:     &size,
			RequestProblemInfo:    true,
		},
	}
	if topic, qos, ok := l.stateTopic(); ok {
		p.WillMessage = &paho.WillMessage{Topic: topic, QoS: qos, Retain: !l.plainWill, Payload: []byte(`{"state":"offline"}`)}
	}
	return p
}

// stateTopic is where the cloud learns whether the gateway is there, if rules
// and routes let it.
func (l *Link) stateTopic() (topic string, qos byte, ok bool) {
	topic = "hg/" + l.cfg.Gateway + "/state"
	r := l.find(l.routes.Load().send, topic)
	if r == nil || !l.cfg.Leaves(topic) {
		return "", 0, false
	}
	return r.rename(topic), r.qos(), true
}

// greet subscribes and announces that the gateway is online.
func (l *Link) greet(ctx context.Context, c *connection) error {
	if err := l.subscribe(ctx, c); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	topic, qos, ok := l.stateTopic()
	if !ok {
		return nil
	}
	r, err := c.client.Publish(ctx, &paho.Publish{
		Topic: topic, QoS: qos, Retain: c.retain,
		Payload: fmt.Appendf(nil, `{"state":"online","since":%d}`, time.Now().UnixMilli()),
	})
	if r != nil && r.ReasonCode >= 0x80 {
		l.log.Warn("the cloud refused the gateway's state: allow it there, or except it from the send routes",
			"topic", topic, "code", codeText(r.ReasonCode))
		return nil
	}
	if err != nil {
		return fmt.Errorf("publish the gateway's state: %w", err)
	}
	return nil
}

func (l *Link) subscribe(ctx context.Context, c *connection) error {
	if err := l.unsubscribe(ctx, c); err != nil {
		return err
	}
	var subs []paho.SubscribeOptions
	receive := l.routes.Load().receive
	for i := range receive {
		r := &receive[i]
		handling := byte(2) // a command kept from yesterday is not a command
		if r.Retain != RetainUsual {
			handling = 1 // once for a session
		}
		for _, f := range r.Topics {
			shared := strings.HasPrefix(f, "$share/")
			subs = append(subs, paho.SubscribeOptions{
				Topic: f, QoS: r.sendQoS(),
				NoLocal:           !shared, // [MQTT-3.8.3-4]
				RetainAsPublished: r.Retain == RetainKeep,
				RetainHandling:    handling,
			})
		}
	}
	if len(subs) == 0 {
		return nil
	}
	ack, err := c.client.Subscribe(ctx, &paho.Subscribe{Subscriptions: subs})
	if ack == nil {
		return err
	}
	for i, code := range ack.Reasons {
		if code >= 0x80 && i < len(subs) {
			l.status.note(fmt.Sprintf("the server refused the subscription to %s (%s): allow it there", subs[i].Topic, codeText(code)))
			l.log.Error("the cloud refused a subscription: no commands from there", "filter", subs[i].Topic, "code", codeText(code))
		}
	}
	return nil
}

// unsubscribe ends the subscriptions that SetRoutes took away: the session at
// the cloud still has them.
func (l *Link) unsubscribe(ctx context.Context, c *connection) error {
	l.staleMu.Lock()
	gone := slices.Sorted(maps.Keys(l.stale))
	clear(l.stale)
	l.staleMu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	ack, err := c.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: gone})
	if ack != nil {
		return nil
	}
	l.staleMu.Lock()
	defer l.staleMu.Unlock()
	for _, f := range gone {
		l.stale[f] = true
	}
	return err
}

// answered counts the last answer to a message.
func (l *Link) answered(code byte) {
	if code < 0x80 {
		l.status.acked.Add(1)
		return
	}
	l.status.refuse(code)
}

// noAuth answers enhanced authentication, which was not asked for. Without it
// paho calls a nil handler when a server names a method.
type noAuth struct{}

func (noAuth) Authenticate(*paho.Auth) *paho.Auth { return &paho.Auth{ReasonCode: 0x8C} }
func (noAuth) Authenticated()                     {}
