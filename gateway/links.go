package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/broker"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/enrol"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/northbound"
	"github.com/headgate-io/headgate/storequeue"
)

// A link is a northbound.Link with its place in the queue and its identity in
// the rules: the cloud is one more client of the local broker. What it may
// subscribe to is what may leave, what it may publish is what may enter.
type link struct {
	*northbound.Link
	name     string
	identity access.Identity
	lanes    lanes
	tls      *pki.Credentials
	renewer  *enrol.Renewer // nil: renewed by hand

	quarantine *storequeue.Reader
	came       *storequeue.Reader // of notes: what came at QoS 2; it has nothing to read in it
}

const cameReader = "came/"

func (g *Gateway) openLinks() error {
	if err := g.makeLinks(); err != nil {
		return err
	}
	for _, l := range g.links {
		if _, err := g.requeue(l); err != nil {
			return err
		}
	}
	return g.forgetLinks()
}

// makeLinks changes nothing on disk but that a new link gets its readers.
func (g *Gateway) makeLinks() error {
	for _, cfg := range g.cfg.Northbound {
		lanes, err := g.openLanes(cfg.Name)
		if err != nil {
			return fmt.Errorf("link %s: %w", cfg.Name, err)
		}
		quarantine, err := g.queue.Reader(quarantineReader + cfg.Name)
		if err != nil {
			return fmt.Errorf("link %s: %w", cfg.Name, err)
		}
		came, err := g.queue.Reader(cameReader + cfg.Name)
		if err != nil {
			return fmt.Errorf("link %s: %w", cfg.Name, err)
		}
		l := &link{
			name: cfg.Name, identity: access.Identity{Name: "link:" + cfg.Name}, lanes: lanes, quarantine: quarantine, came: came,
			tls: g.credentials(cfg), renewer: g.renewer(cfg),
		}
		if l.Link, err = northbound.NewLink(g.linkConfig(cfg, l), sources(lanes.ordered(g.cfg.Queue))...); err != nil {
			return fmt.Errorf("%w: %w", ErrSetup, err)
		}
		g.links = append(g.links, l)
	}
	return nil
}

// forgetLinks looks after links that are no longer configured. What still waits
// for one is kept: a name that was mistyped must not cost a backlog.
func (g *Gateway) forgetLinks() error {
	configured := map[string]bool{}
	for _, l := range g.links {
		configured[l.name] = true
	}
	for _, r := range g.queue.Stats().Readers {
		name, _, isLink := splitReader(r.Name, g.cfg.Queue)
		from, hasCome := strings.CutPrefix(r.Name, cameReader)
		if !isLink && !hasCome || configured[name] || configured[from] {
			continue
		}
		if isLink && r.Waiting > 0 {
			g.log.Warn("messages wait for a link that is not configured: they are kept; give the link its name back to deliver them",
				"link", name, "messages", r.Waiting)
			continue
		}
		reader, err := g.queue.Reader(r.Name)
		if err != nil {
			return err
		}
		if err := g.queue.Forget(reader); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gateway) linkConfig(cfg config.Link, l *link) northbound.Config {
	return northbound.Config{
		Name: cfg.Name, Gateway: g.cfg.Gateway.ID, Epoch: g.queue.Epoch(),
		Servers: cfg.Servers, ClientID: cfg.ClientID, KeepAlive: cfg.KeepAlive, SessionExpiry: cfg.SessionExpiry, MaxPause: g.opt.MaxPause,
		Live: l.live(cfg, g.cfg.Queue), Rate: cfg.CatchUpRate,
		Old: cfg.Old, Enveloped: cfg.Enveloped,
		Send: routes(cfg.Send), Receive: routes(cfg.Receive),
		Match:   mqtt.Match,
		Leaves:  func(topic string) bool { return g.gate.Allow(l.identity, access.Subscribe, topic) },
		Handle:  func(ctx context.Context, m storequeue.Message) error { return g.receive(ctx, l, m) },
		Dropped: func(m storequeue.Message, why northbound.Drop, _ byte) { g.dropped(l, m, why) },
		State:   g.queue,
		Notes:   l.came,
		TLS:     l.tls.Config,
		Logger:  g.log,
	}
}

// live are the second places of the lanes, for a link that sends what is new first.
func (l *link) live(cfg config.Link, queue config.Queue) (all []northbound.Live) {
	if cfg.LiveFirst {
		for _, r := range l.lanes.ordered(queue) {
			all = append(all, r.Live())
		}
	}
	return all
}

func routes(in []config.Route) []northbound.Route {
	var out []northbound.Route
	retain := map[config.Retain]northbound.Retain{config.Keep: northbound.RetainKeep, config.Clear: northbound.RetainClear}
	for _, r := range in {
		out = append(out, northbound.Route{
			Topics: r.Topics, Except: r.Except, QoS: r.QoS, Retain: retain[r.Retain], Strip: r.Strip, Prefix: r.Prefix,
		})
	}
	return out
}

// outbound marks a message for each link that has a route for it and may have
// it; what a link brought does not go back to where it came from. The rules are
// asked again before it is sent. A command to a device stays here.
func (g *Gateway) outbound(m *storequeue.Message) {
	if g.commands.mark(m) {
		return
	}
	for _, l := range g.links {
		if m.From == l.identity.Name {
			continue
		}
		if qos, ok := l.Wants(m.Topic); ok && g.gate.Allow(l.identity, access.Subscribe, m.Topic) {
			m.For = append(m.For, storequeue.Mark{Reader: l.lanes.of(m.Topic, g.cfg.Queue).ID(), QoS: qos})
		}
	}
}

// receive publishes what a cloud sent under the link's own identity. What no
// rule allows is refused for good: asking the cloud to send it again would not
// change that.
func (g *Gateway) receive(ctx context.Context, l *link, m storequeue.Message) error {
	if m.QoS == 2 { // whether it is stored must be known when it comes again
		ctx = context.WithoutCancel(ctx)
	}
	err := g.broker.Publish(ctx, l.identity, m)
	if errors.Is(err, broker.ErrRetain) { // logged by the broker; waiting for room would hold up all that comes behind
		m.Retain = false
		err = g.broker.Publish(ctx, l.identity, m)
	}
	switch {
	case errors.Is(err, broker.ErrDenied): // counted and logged by the broker
		return nil
	case errors.Is(err, broker.ErrTopic):
		g.log.Warn("a message from the cloud cannot be taken", "link", l.name, "error", err)
		return nil
	}
	return err
}
