// Package gateway puts the house together: it builds every room from the disk
// outward and runs them until it is told to stop.
//
//	field devices                 local clients
//	     │                              │ 1 PUBLISH
//	     ▼                              ▼
//	southbound ──── publish ───▶ gateway/broker
//	  ▲                                 │ 2 may it? who wants it?
//	  │                                 ▼
//	  │                            storequeue       3 commit; 4 PUBACK
//	  │                                 │ 5 next
//	  └───── commands ◀──────────  northbound ──── 6 PUBLISH ───▶ cloud; 7 PUBACK, ack
//
// New opens what is on disk and refuses what is wrong with it; Run starts
// everything that runs, in one group, and nothing outlives it. Because what was
// acknowledged is on disk and what was not will be sent again, shutdown needs
// no order: the context ends, everybody returns, the queue closes last.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/broker"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
	"github.com/headgate-io/headgate/storequeue"
	"golang.org/x/sync/errgroup"
)

// ErrSetup is wrapped by errors that only a person can mend: a restart does
// not help.
var ErrSetup = errors.New("cannot start")

// Options are what the configuration file does not say.
type Options struct {
	Version string
	Built   time.Time    // certificates are never judged by an earlier time; zero: not known
	Logger  *slog.Logger // default: discard

	File     string           // of the configuration, for Reload; empty: it cannot be reloaded
	Hangup   <-chan os.Signal // each value reloads; nil: never
	MaxPause time.Duration    // of links between attempts; default northbound's

	PasswordHelper []string // a command whose main function is access.AnswerHashes; nil: passwords are checked in this process
}

// A Gateway is the whole house. Its methods are safe for concurrent use.
type Gateway struct {
	cfg     *config.Config
	opt     Options
	log     *slog.Logger
	started time.Time

	queue    *storequeue.Queue
	users    *access.Users
	gate     *access.Gate
	broker   *broker.Broker
	tls      []func() (*tls.Config, error) // of the listeners
	links    []*link
	buses    map[string]*modbus.Bus
	devices  []*southbound.Device
	commands *commands // nil: there is no device
	runtime  string    // folder for sockets

	clock *pki.Clock
	certs certificates

	published atomic.Uint64 // by devices
	lost      losses
	told      *storequeue.Reader // see toldReader
	saidAll   time.Time          // used by announceLosses
	latency   admin.Latency

	requeueing sync.Mutex // one at a time

	reloading sync.Mutex     // one at a time; covers inForce
	inForce   *config.Config // cfg, with what reloads have changed
}

// New opens the gateway that cfg describes. What it opened is closed by Run,
// or by Close if Run is never called.
func New(cfg *config.Config, opt Options) (*Gateway, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, opt: opt, log: opt.Logger, started: time.Now(), saidAll: time.Now(), inForce: cfg}
	for _, w := range Warnings(cfg) {
		g.log.Warn(w)
	}
	for _, step := range []func() error{g.openDisk, g.tellAudit, g.openAccess, g.openLinks, g.openBroker, g.openDevices} {
		if err := step(); err != nil {
			return nil, errors.Join(err, g.Close())
		}
	}
	return g, nil
}

// openDisk opens the data folder: whose it is, and its queue.
func (g *Gateway) openDisk() error {
	data := g.cfg.Gateway.Data
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("%w: make the data folder: %w; give it to the user that the gateway runs as", ErrSetup, err)
	}
	if fi, err := os.Stat(data); err == nil && fi.Mode().Perm()&0o022 != 0 {
		g.log.Warn("others may write into the data folder: run chmod 0700 on it", "folder", data, "mode", fi.Mode().Perm())
	}
	if g.runtime = runtimeDir(g.cfg); len(g.runtime) > maxSocketDir {
		return fmt.Errorf("%w: the folder %s is too long for a socket: move gateway.data to a shorter path", ErrSetup, g.runtime)
	}
	id, err := ownIdentity(g.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	g.openClock()
	key, err := queueKey(g.cfg, id == nil, false)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	g.queue, err = storequeue.Open(queueDir(g.cfg), storequeue.Config{
		Encrypt: g.cfg.Queue.Encryption, Key: key,
		MaxSize: g.cfg.Queue.MaxSize, MinFree: g.cfg.Queue.MinFree, Linger: g.cfg.Queue.CommitLinger, MustExist: id != nil, Logger: g.log, Damaged: g.lost.addDamaged, Match: mqtt.Match,
		Committed: func(_ int, took time.Duration) { g.latency.Commit.Observe(took) },
	})
	if errors.Is(err, storequeue.ErrKey) {
		err = fmt.Errorf("%w; the key was looked for in %s: put back the right one", err, queueKeyPlace(g.cfg).path)
	}
	if errors.Is(err, storequeue.ErrMissing) || errors.Is(err, storequeue.ErrDamaged) {
		err = fmt.Errorf("%w; to start anew, without what it held, move the whole data folder %s away", err, data)
	}
	if err != nil {
		return setup(err)
	}
	if g.told, err = g.queue.Reader(toldReader); err == nil {
		err = g.strikeTold()
	}
	if err != nil {
		return setup(err)
	}
	if id == nil {
		return writeIdentity(data, identity{ID: g.cfg.Gateway.ID, Created: time.Now().UTC()})
	}
	return nil
}

// openAccess reads users and rules.
func (g *Gateway) openAccess() error {
	rules, err := g.compile(g.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	if g.users, err = access.OpenUsers(UsersFile(g.cfg), g.log); err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	if len(g.opt.PasswordHelper) > 0 {
		g.users.HashWith(g.opt.PasswordHelper...)
	}
	g.gate = access.NewGate(gateConfig(g.cfg), g.users, rules, g.log)
	return nil
}

func builtIn(cfg *config.Config) []access.Rule {
	publish := []access.Action{access.Publish}
	home := "hg/" + cfg.Gateway.ID + "/"
	rules := []access.Rule{{Allow: true, Actions: publish, Who: self.Name, Topics: []string{home + "state", home + "lost", home + alarmTopic, auditTopic(cfg)}}}
	for _, d := range cfg.Devices {
		rules = append(rules, access.Rule{Allow: true, Actions: publish, Who: "device:" + d.ID, Topics: append(tagTopics(d), home+d.ID+"/#")})
	}
	return rules
}

// tagTopics are the topics of a device that lie elsewhere.
func tagTopics(d config.Device) []string {
	if !d.Telemetry.Retain {
		return nil
	}
	return []string{strings.NewReplacer("{group}", "+", "{tag}", "+").Replace(d.Telemetry.TagTopic)}
}

// self is who the gateway is when it speaks for itself.
var self = access.Identity{Name: "gateway"}

func (g *Gateway) openBroker() error {
	var listeners []broker.Listener
	for _, l := range g.cfg.Broker.Listeners {
		b := broker.Listener{Address: l.Address, AnonymousAs: l.AnonymousAs, WebSocket: l.WebSocket, Origins: l.Origins}
		if !l.Plaintext {
			files := serverFiles(l)
			files.Now = g.clock.Now
			files.Report = func(err error) {
				g.log.Error("look at the TLS files of a listener", "address", l.Address, "error", err)
			}
			if err := g.firstKeys(l); err != nil {
				return fmt.Errorf("%w: %w", ErrSetup, err)
			}
			b.TLS = pki.Server(files)
			g.tls = append(g.tls, b.TLS)
			if _, err := b.TLS(); err != nil {
				return fmt.Errorf("%w: listener %s: %w", ErrSetup, l.Address, err)
			}
		}
		listeners = append(listeners, b)
	}
	var err error
	g.broker, err = broker.New(broker.Config{
		Listeners: listeners,
		Limits:    brokerLimits(g.cfg),
		Access:    g.gate, Queue: g.queue, Outbound: g.outbound, Lost: g.lost.skip, Version: g.opt.Version, Logger: g.log,
		Acknowledged: g.latency.Acknowledged.Observe, Delivered: g.latency.Delivered.Observe,
	})
	if err != nil {
		return setup(err)
	}
	return nil
}

// setup marks an error as one for a person, unless it is one that may pass: a
// full disk, and a tool that has the queue open.
func setup(err error) error {
	if errors.Is(err, storequeue.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, storequeue.ErrInUse) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSetup, err)
}

func serverFiles(l config.Listener) pki.ServerFiles {
	policy := map[config.ClientCertificate]pki.Policy{config.Off: pki.Off, config.Optional: pki.Optional, config.Required: pki.Required}
	return pki.ServerFiles{
		Certificate: l.Certificate, Key: l.Key, Policy: policy[l.ClientCertificate],
		ClientCA: l.ClientCA, ClientCRL: l.ClientCRL, ClientDenylist: l.ClientDenylist,
	}
}

// firstKeys makes the local CA and the broker's certificate at the first start
// of a gateway whose configuration keeps them in its data folder. Keys that an
// image carries would be everybody's keys.
func (g *Gateway) firstKeys(l config.Listener) error {
	if !needsFirstKeys(g.cfg, l) {
		return nil
	}
	dir := filepath.Dir(l.Certificate)
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if err := pki.Init(dir, []string{host}); err != nil {
		return err
	}
	g.log.Info("made the local CA and the broker's certificate", "folder", dir)
	return nil
}

// Close closes what New opened, for a gateway that does not Run.
func (g *Gateway) Close() error {
	for _, b := range g.buses {
		b.Close()
	}
	if g.users != nil {
		g.users.Close()
	}
	if g.queue == nil {
		return nil
	}
	return g.queue.Close()
}

// Run runs the gateway until ctx ends or something fails that a restart may
// mend. It can be called once.
func (g *Gateway) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.broker.Run(ctx) })
	for _, l := range g.links {
		group.Go(func() error { return g.runLink(ctx, l) })
		if l.renewer != nil {
			group.Go(func() error { l.renewer.Run(ctx); return nil })
		}
	}
	for _, d := range g.devices {
		group.Go(func() error { return d.Run(ctx) })
	}
	if g.commands != nil {
		group.Go(func() error { return g.commands.run(ctx) })
	}
	socket := admin.Server{
		Socket: filepath.Join(g.runtime, socketName), Address: g.cfg.Admin.Address, Status: g.Status, Clients: g.clients, Queue: &backlog{g: g, source: "gateway"}, Latency: &g.latency, Trace: g.trace, Reload: g.Reload, Ready: g.ready, Logger: g.log,
	}
	group.Go(func() error { return socket.Run(ctx) })
	group.Go(func() error { return g.announce(ctx) })
	group.Go(func() error { return g.watchDisk(ctx) })
	group.Go(func() error { return g.watchAccess(ctx) })
	group.Go(func() error { return g.watchCertificates(ctx) })
	group.Go(func() error { return g.announceLosses(ctx) })
	group.Go(func() error { return g.reloadOnHangup(ctx) })
	err := errors.Join(group.Wait(), g.Close())
	g.log.Info("stopped")
	return err
}

// runLink runs a link for as long as the gateway runs. One that cannot read its
// backlog stops; the house goes on.
func (g *Gateway) runLink(ctx context.Context, l *link) error {
	if err := l.Run(ctx); err != nil && g.queue.Err() == nil {
		g.log.Error("the link has stopped: what waits for it is kept; look at the disk and restart", "link", l.name, "error", err)
	}
	return nil
}

// watchDisk ends the gateway when the queue can no longer promise anything.
func (g *Gateway) watchDisk(ctx context.Context) error {
	select {
	case <-g.queue.Failed():
		return fmt.Errorf("the disk failed, nothing is acknowledged any more; the gateway ends so that it starts from what is on disk: %w", g.queue.Err())
	case <-ctx.Done():
		return nil
	}
}

// announce tells systemd when the gateway serves, that it is alive, and that
// it goes.
func (g *Gateway) announce(ctx context.Context) error {
	select {
	case <-g.broker.Ready():
	case <-ctx.Done():
		return nil
	}
	g.log.Info("ready", "gateway", g.cfg.Gateway.ID, "version", g.opt.Version, "devices", len(g.devices), "links", len(g.links))
	g.tellSystemd("READY=1")
	watchdog(ctx, g.feed)
	g.tellSystemd("STOPPING=1")
	return nil
}

// feed keeps systemd's watchdog quiet while the disk does its work. A full disk
// is no reason to restart; one that failed, or that has not finished a commit
// within patience, is: systemd draws its conclusions.
func (g *Gateway) feed(patience time.Duration) error {
	if g.queue.Err() != nil {
		return nil
	}
	if busy := g.queue.Busy(); busy > patience {
		g.log.Error("the disk hangs: nothing is acknowledged, and systemd is not told that the gateway is well", "for", busy.Round(time.Second))
		return nil
	}
	return notify("WATCHDOG=1")
}

func (g *Gateway) tellSystemd(state string) {
	if err := notify(state); err != nil {
		g.log.Warn("systemd", "error", err)
	}
}

// ready is nil while listeners are up and the queue takes messages. It never
// asks about the cloud: the house runs alone.
func (g *Gateway) ready() error {
	select {
	case <-g.broker.Ready():
	default:
		return errors.New("listeners are not up yet")
	}
	return g.queue.HasRoom()
}
