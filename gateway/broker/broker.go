package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// Access is what the broker asks; *access.Gate is one. It is called from many
// goroutines, Allow several times a message.
type Access interface {
	Authenticate(ctx context.Context, c access.Credentials) (access.Identity, error)
	Allow(id access.Identity, action access.Action, topic string) bool
	AllowFilter(id access.Identity, filter string) bool
	Lookup(name string) access.Identity                        // the roles of an author who is not here
	Current(id access.Identity) (now access.Identity, ok bool) // with the roles of now; false: nobody any more
	Removed(user string) bool                                  // there is no user of that name any more; true only if that is sure
}

// A Listener is one address to serve.
type Listener struct {
	Address     string                      // host:port; port 0 lets the system choose
	TLS         func() (*tls.Config, error) // asked for every connection; nil: plaintext, loopback addresses only
	AnonymousAs string                      // who a client without credentials is; plaintext only; empty: refused
	WebSocket   bool                        // MQTT in the binary frames of a WebSocket at /mqtt
	Origins     []string                    // scheme://host of web pages that may connect, beside those of the same host
}

// Config is what a Broker is made of. Access and Queue are required.
type Config struct {
	Listeners []Listener
	Limits    Limits
	Access    Access
	Queue     *storequeue.Queue

	// Outbound appends to m.For a mark for each link that may and wants to carry m.
	// It is called for every message and must be quick. Nil: no links.
	Outbound func(m *storequeue.Message)

	// Acknowledged is told for each PUBLISH with QoS 1 or 2 how long it took to be
	// stored and answered, Delivered for each of them how long it took, from the
	// publisher's PUBLISH, to a subscriber with QoS 1 or 2; not for repetitions. Both
	// are called for every message and must be quick. Nil: nobody.
	Acknowledged, Delivered func(time.Duration)

	// Lost is called for each message that is skipped because too much waits for
	// a client. It must be quick. Nil: they are only counted.
	Lost func(clientID string, m *storequeue.Message)

	Version string       // for $SYS/broker/version
	Logger  *slog.Logger // default: discard
}

// A Broker serves MQTT clients out of a queue. Its methods are safe for
// concurrent use.
type Broker struct {
	listeners []Listener
	limits    atomic.Pointer[Limits] // SetLimits replaces them; a connection keeps those it began with
	access    Access
	version   string
	queue     *storequeue.Queue
	outbound  func(m *storequeue.Message)
	lost      func(clientID string, m *storequeue.Message)
	log       *slog.Logger

	acknowledged, delivered func(time.Duration)

	rarely throttle // for log lines that strangers can cause
	told   throttle // for the audit trail

	subs     subscriptions
	retained retained
	ledger   ledger
	before   uint64 // the log's end when the gateway started: up to there, anything may have been sent before
	door     door
	turns    turns
	outboxes budget
	stats    counters

	publications sync.Pool // of *publication

	ready  chan struct{} // closed when all listeners listen
	addrs  []net.Addr    // written before ready is closed
	sooner chan struct{} // room for one: a session ends before the next sweep

	mu        sync.Mutex // covers the fields below and what session says; held for moments
	sessions  map[string]*session
	owners    map[string]int // sessions by the owner's name
	conns     map[*conn]struct{}
	nextSweep time.Time
}

// New restores sessions, subscriptions and retained messages from the queue's
// state. It starts nothing; Run does.
func New(cfg Config) (*Broker, error) {
	if cfg.Access == nil || cfg.Queue == nil {
		return nil, errors.New("a broker needs Access and a Queue")
	}
	for _, l := range cfg.Listeners {
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("listener %s: %w", l.Address, err)
		}
	}
	b := &Broker{
		listeners: cfg.Listeners, access: cfg.Access,
		queue: cfg.Queue, outbound: cfg.Outbound, lost: cfg.Lost, version: cfg.Version, log: cfg.Logger,
		acknowledged: cfg.Acknowledged, delivered: cfg.Delivered,
		rarely:   throttle{burst: 5, rate: 5},
		told:     throttle{burst: 100, rate: 10},
		ready:    make(chan struct{}),
		sooner:   make(chan struct{}, 1),
		sessions: map[string]*session{},
		owners:   map[string]int{},
		conns:    map[*conn]struct{}{},
		turns:    newTurns(),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.SetLimits(cfg.Limits)
	b.before = b.queue.Stats().Last
	b.door.init(&b.limits)
	b.outboxes.limits, b.outboxes.hits = &b.limits, &b.stats.hits
	if err := b.restoreRetained(); err != nil {
		return nil, fmt.Errorf("restore retained messages: %w", err)
	}
	err := b.restoreSessions()
	if errors.Is(err, storequeue.ErrFull) { // what is left over stays until there is room
		b.log.Error("sessions that ended cannot be cleared away", "error", err)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("restore sessions: %w", err)
	}
	b.shorten(time.Now(), b.limits.Load().SessionExpiry)
	b.endRemoved()
	if err := b.restoreLedger(); err != nil {
		return nil, fmt.Errorf("restore the state of QoS 2: %w", err)
	}
	return b, nil
}

func (l *Listener) check() error {
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return fmt.Errorf("%w: write host:port", err)
	}
	if l.TLS != nil {
		if l.AnonymousAs != "" {
			return errors.New("anonymous_as is for plaintext loopback listeners: remove it here")
		}
		return nil
	}
	if addr, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !addr.Unmap().IsLoopback()) {
		return errors.New("without TLS only loopback can be served: give it a certificate, or listen on 127.0.0.1")
	}
	return nil
}

// Run listens and serves until ctx ends; then every client is told that the
// server goes, and all connections are closed within two seconds. It returns
// early, with the reason, if a listener cannot be opened or the queue fails.
// Wills are not published when Run ends: the clients did not go. Run is called
// once.
func (b *Broker) Run(ctx context.Context) error {
	lns, err := b.listen(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks, clients sync.WaitGroup
	for i, ln := range lns {
		tasks.Go(func() { b.accept(ctx, &b.listeners[i], ln, &clients) }) // stopped by closing ln
	}
	tasks.Go(func() { b.sweepLoop(ctx) })
	tasks.Go(func() { b.sysLoop(ctx, sysInterval) })
	tasks.Go(func() { b.foldLoop(ctx) })
	tasks.Go(func() { b.ledgerLoop(ctx) })
	tasks.Go(func() { b.excessLoop(ctx) })
	tasks.Go(func() { b.leftOutLoop(ctx) })
	close(b.ready)

	select {
	case <-ctx.Done():
	case <-b.queue.Failed():
		err = b.queue.Err()
	}
	cancel()
	for _, ln := range lns {
		ln.Close()
	}
	tasks.Wait() // no new clients from here
	b.dismiss(&clients)
	b.sayLeftOut()
	return err
}

// dismiss says goodbye to all clients, and hangs up on those that do not listen.
func (b *Broker) dismiss(clients *sync.WaitGroup) {
	for _, c := range b.connections() {
		c.close(mqtt.ServerShuttingDown)
	}
	hangUp := time.AfterFunc(stopTime-lingerTime/2, func() {
		for _, c := range b.connections() {
			c.raw.Close()
		}
	})
	clients.Wait()
	hangUp.Stop()
}

func (b *Broker) connections() []*conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		all = append(all, c)
	}
	return all
}

// SetLimits puts limits in force: those that a CONNACK names, and what one
// client may use, for connections that come from now on, all others at once.
// Sessions that are away end no later than a session that leaves now. Otherwise
// nobody is closed, and nothing is removed, for being over a new limit.
func (b *Broker) SetLimits(l Limits) {
	l = l.withDefaults()
	b.limits.Store(&l)
	b.shorten(time.Now(), l.SessionExpiry)
}

// Ready is closed when all listeners listen.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Addrs are the listeners' addresses, in the order of the configuration; nil
// before Ready is closed.
func (b *Broker) Addrs() []net.Addr {
	select {
	case <-b.ready:
		return b.addrs
	default:
		return nil
	}
}
