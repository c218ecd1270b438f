package northbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// A Source is what Link needs of a lane of the queue; *storequeue.Reader is one.
// Poll is for one goroutine at a time.
type Source interface {
	// Poll returns up to max messages with Seq > after, in order; none: there are
	// none now. It must take an after that lies further back than before.
	Poll(after uint64, max int) ([]storequeue.Message, error)
	// More reports whether Poll would find something.
	More(after uint64) bool
	// Wake tells, once, that Poll may find something that it did not.
	Wake() <-chan struct{}
	// Ack forgets every message up to and including seq; it never moves back.
	Ack(seq uint64)
	Acked() uint64
	// Settled reports whether everything from first to last is done, and will be
	// after a crash.
	Settled(first, last uint64) bool
	// Waiting is how many messages are not acknowledged.
	Waiting() uint64
	// Name is the same after each start.
	Name() string
}

// A Live is a second place of a lane, for what comes while the link is up;
// *storequeue.Live is one. Poll is for the goroutine that polls the lane.
type Live interface {
	Source
	// Split gives it what comes from now on and leaves to the lane what waits, but
	// for up to few messages that can come in order, for what it gave out and was
	// not acknowledged, and for what is named. It returns true if nothing is left to
	// the lane.
	Split(few uint64, named []storequeue.Range) (whole bool)
	// Given is the newest that Poll returned, or was to return again.
	Given() uint64
}

// Config is what a Link needs to know. Zero values mean the defaults named here.
type Config struct {
	Name    string // the link's identity in rules is "link:" + Name
	Gateway string // gateway id: without '/', '+' and '#'
	Epoch   uint64 // of the queue; hg-id is "<gateway>/<epoch>/<sequence>"

	Servers        []string // host:port, in order; the first is preferred
	ClientID       string
	KeepAlive      time.Duration // default 30 s; whole seconds, rounded up
	SessionExpiry  time.Duration // how long commands wait at the cloud; zero: not at all
	ConnectTimeout time.Duration // per server, until its CONNACK; default 20 s
	MaxPause       time.Duration // between attempts to connect; default 1 min
	InFlight       int           // bound of unanswered messages beside the server's; default 1000
	Old            bool          // the servers speak MQTT 3.1.1
	Enveloped      bool          // what leaves is in an Envelope; one that comes in is opened

	// Live, if set, are the second places of the lanes, in the order of those: new
	// messages go first, and what waited is sent beside them and says so (hg-replay).
	Live []Live
	Rate int64 // bytes a second of what waited when the link came up; 0: no bound

	Send, Receive []Route // to begin with: see SetRoutes

	// Match is asked for each message and must be safe for concurrent use.
	Match func(filter, topic string) bool
	// Leaves says whether the access rules let a topic go to this link. It is
	// asked right before sending.
	Leaves func(topic string) bool
	// Handle takes what the cloud sent, with its local topic. nil means stored,
	// or refused for good: it is acknowledged. After an error the message comes
	// again. Calls do not overlap; ctx ends with the connection. The callee
	// owns m.
	Handle func(ctx context.Context, m storequeue.Message) error
	// Dropped, if set, gets each message that will not be delivered, before the
	// cursor passes it. code is the server's reason code for Refused.
	Dropped func(m storequeue.Message, why Drop, code byte)
	// State keeps what exactly once needs; without it, QoS 2 is that only as long as
	// the process lives.
	State State
	// Notes, if set together with State, keep what exactly once needs for what comes
	// in: Handle must store m with the mark and the Note it has, whatever becomes of ctx.
	Notes Notes
	// TLS is asked at every connect, so that renewed certificates are used.
	TLS func(serverName string) (*tls.Config, error)

	Logger *slog.Logger // default: discard
}

const (
	defaultKeepAlive      = 30 * time.Second
	defaultConnectTimeout = 20 * time.Second
	defaultInFlight       = 1000
	maxInFlight           = 16000
)

// A Link sends messages to the first cloud broker that answers.
// Run is called once; the other methods are safe for concurrent use.
type Link struct {
	cfg    Config
	lanes  []Source // the live ones, then those that NewLink was given
	given  []uint64 // by those that are live, when the connection came up
	splits bool     // they were split in this process
	log    *slog.Logger
	status status
	redo   []redo  // by lane; used by the sender, and between connections
	again  backoff // used by receive

	ownPrefix string // of every hg-id of this gateway
	idPrefix  string // of those we give

	fresh  chan struct{} // Reconnect to serve
	routes atomic.Pointer[routing]

	staleMu sync.Mutex      // covers stale
	stale   map[string]bool // filters that are subscribed to no more, as long as the cloud does not know

	ledger    *ledger
	intake    *intake
	capped    bool    // a server takes less than a route asks for, and that was said
	better    int     // the server that a probe has reached; set by replaced
	probe     backoff // between probes; used by replaced, and between connections
	plainWill bool    // a server refused the retained will; used by connect

	dial func(ctx context.Context, server string) (net.Conn, error)
}

// NewLink checks cfg and returns a link that Run will bring up. It takes its
// messages from lanes, of which the first comes first: see sender.next. All are
// parts of one log, so that no sequence is in two.
func NewLink(cfg Config, lanes ...Source) (*Link, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("link %s: %w", cfg.Name, err)
	}
	if cfg.KeepAlive <= 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.InFlight <= 0 {
		cfg.InFlight = defaultInFlight
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if n := len(cfg.Live); n != 0 && n != len(lanes) {
		return nil, fmt.Errorf("link %s: %d lanes, of which %d have a second place", cfg.Name, len(lanes), n)
	}
	var all []Source
	for _, live := range cfg.Live {
		all = append(all, live)
	}
	lanes = append(all, lanes...)
	cfg.InFlight = min(cfg.InFlight, maxInFlight)
	l := &Link{cfg: cfg, lanes: lanes, log: cfg.Logger.With("link", cfg.Name), redo: make([]redo, len(lanes)), given: make([]uint64, len(cfg.Live)), fresh: make(chan struct{}, 1), stale: map[string]bool{}}
	l.routes.Store(&routing{cfg.Send, cfg.Receive})
	for i := range l.redo {
		l.redo[i] = newRedo()
	}
	l.ownPrefix = cfg.Gateway + "/"
	l.idPrefix = fmt.Sprintf("%s/%d/", cfg.Gateway, cfg.Epoch)
	l.status.since = time.Now()
	l.dial = l.dialTLS
	l.probe.most = maxProbe
	var err error
	if l.ledger, err = newLedger(cfg.State, cfg.Name); err != nil {
		return nil, fmt.Errorf("link %s: %w", cfg.Name, err)
	}
	if l.intake, err = newIntake(cfg.State, cfg.Notes, cfg.Name); err != nil {
		return nil, fmt.Errorf("link %s: %w", cfg.Name, err)
	}
	return l, nil
}

func (cfg *Config) check() error {
	switch {
	case len(cfg.Servers) == 0:
		return errors.New("no server is configured: name at least one as host:port")
	case cfg.ClientID == "":
		return errors.New("client_id is empty: the cloud keeps commands under that name")
	case cfg.Match == nil || cfg.Leaves == nil || cfg.TLS == nil:
		return errors.New("set Match, Leaves and TLS")
	case cfg.Handle == nil && len(cfg.Receive) > 0:
		return errors.New("there are receive routes but no Handle")
	}
	for _, s := range cfg.Servers {
		if host, _, err := net.SplitHostPort(s); err != nil || host == "" {
			return fmt.Errorf("server %q is not host:port", s)
		}
	}
	return nil
}

// Run keeps the link up until ctx ends, and then returns nil within two
// seconds. Any trouble with the network or the server is its own to retry. An
// error means that the source cannot be read.
func (l *Link) Run(ctx context.Context) error {
	var (
		retry  = backoff{most: l.cfg.MaxPause}
		server int
		tried  []string // what went wrong since the last pause
	)
	for ctx.Err() == nil {
		up, err := l.visit(ctx, l.cfg.Servers[server])
		if errors.Is(err, errSource) {
			return fmt.Errorf("link %s: %w", l.cfg.Name, err)
		}
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, errRenewed) || errors.Is(err, errBetter) {
			l.status.down("")
			if errors.Is(err, errBetter) {
				server = l.better
			}
			continue
		}
		tried = append(tried, err.Error())
		server = (server + 1) % len(l.cfg.Servers)
		if up >= steadyAfter {
			retry.reset()
			if server == 1%len(l.cfg.Servers) { // the first has held
				l.probe.reset()
			}
			server = 0
		}
		if up > 0 || len(tried) >= len(l.cfg.Servers) {
			l.lost(strings.Join(tried, "; "))
			tried = tried[:0]
			retry.wait(ctx)
		}
	}
	l.status.down("")
	return nil
}

// Reconnect makes a new connection in place of the present one, so that renewed
// certificates are used: what is in flight is answered first, nothing is lost,
// and no will is published. Without a connection it does nothing.
func (l *Link) Reconnect() {
	select {
	case l.fresh <- struct{}{}:
	default: // asked for already
	}
}

// lost notes why the link is down, in the log only when the reason is new.
func (l *Link) lost(reason string) {
	if l.status.down(reason) {
		l.log.Warn("no link to the cloud; trying again", "error", reason)
	}
}

// errSource marks trouble that no new connection mends.
var errSource = errors.New("read the queue")
