package gateway

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/broker"
	"github.com/headgate-io/headgate/gateway/config"
)

// Reload reads the configuration again and takes over what a running gateway
// can: see config.Config.Adopt. It is whole or not at all: on any error, also
// one in a part that would need a restart, the configuration stays as it was; users
// are what their file says at any time. dry only looks. by is who asked, for the log.
func (g *Gateway) Reload(by string, dry bool) (admin.Reload, error) {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	next, rules, err := g.prepareReload()
	if err != nil {
		g.log.Error("configuration refused: the old one stays in force", "event", "reload", "by", by, "error", brief(err))
		return admin.Reload{}, err
	}
	adopted := g.inForce.Adopt(next)
	report := admin.Reload{
		File: g.opt.File, Applied: changes(g.inForce, adopted), Restart: changes(adopted, next), DryRun: dry, Warnings: Warnings(next),
	}
	if dry {
		return report, nil
	}
	g.gate.SetConfig(gateConfig(adopted))
	g.gate.SetRules(rules)
	g.broker.SetLimits(brokerLimits(adopted))
	g.queue.SetSize(adopted.Queue.MaxSize, adopted.Queue.MinFree)
	for i, l := range g.links {
		l.lanes.limit(adopted.Queue)
		if old, now := g.inForce.Northbound[i], adopted.Northbound[i]; !sameRoutes(old.Send, now.Send) || !sameRoutes(old.Receive, now.Receive) {
			l.SetRoutes(routes(now.Send), routes(now.Receive))
		}
	}
	g.inForce = adopted
	g.broker.Recheck() // roles may have changed
	g.log.Info("configuration reloaded", "event", "reload", "by", by,
		"applied", paths(report.Applied), "needs_restart", paths(report.Restart))
	return report, nil
}

func sameRoutes(a, b []config.Route) bool {
	return slices.EqualFunc(a, b, func(x, y config.Route) bool { return reflect.DeepEqual(x, y) })
}

// brief is the first of what is wrong, in one line, for the log.
func brief(err error) string {
	text, _, more := strings.Cut(err.Error(), "\n")
	var problems *config.Problems
	if errors.As(err, &problems) {
		p := problems.List[0]
		text = fmt.Sprintf("%s:%d:%d: %s; %s", p.File, p.Line, p.Column, p.Message, p.Fix)
		more = len(problems.List) > 1
	}
	if more {
		text += "; and more: run headgate check"
	}
	return text
}

// prepareReload changes nothing but the users, which their file decides alone.
func (g *Gateway) prepareReload() (*config.Config, *access.Rules, error) {
	if g.opt.File == "" {
		return nil, nil, errors.New("this gateway has no configuration file: restart it to change it")
	}
	next, err := config.Load(g.opt.File)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(Check(next)...); err != nil {
		return nil, nil, err
	}
	if next.Gateway.ID != g.cfg.Gateway.ID { // it is in the rules already
		return nil, nil, fmt.Errorf("gateway.id is %q and was %q: a gateway keeps its id; set it back, or restart with a data folder of its own",
			next.Gateway.ID, g.cfg.Gateway.ID)
	}
	rules, err := g.compile(next)
	if err != nil {
		return nil, nil, err
	}
	if err := g.users.Reload(); err != nil {
		return nil, nil, err
	}
	return next, rules, nil
}

// compile makes rules of cfg's and, behind them, ours: a device may publish its
// own readings, the gateway its own state. The devices are those that run.
func (g *Gateway) compile(cfg *config.Config) (*access.Rules, error) {
	return access.Compile(slices.Concat(cfg.Access.Rules, builtIn(g.cfg)))
}

func gateConfig(cfg *config.Config) access.Config {
	return access.Config{
		Certificates:    cfg.Access.Certificates,
		CertificateName: cfg.Access.CertificateName,
		Lockout:         access.Lockout(cfg.Broker.Lockout),
	}
}

func brokerLimits(cfg *config.Config) broker.Limits {
	l := cfg.Broker.Limits
	return broker.Limits{
		Connections: l.Connections, ConnectionsPerIP: l.ConnectionsPerIP, PacketSize: l.PacketSize,
		ReceiveMaximum: l.ReceiveMaximum, TopicLevels: l.TopicLevels, Subscriptions: l.Subscriptions,
		SessionExpiry: l.SessionExpiry, KeepAlive: l.KeepAlive, Retained: l.Retained, PublishRate: l.PublishRate,
		AllSubscriptions: l.AllSubscriptions, Sessions: l.Sessions, SessionsPerUser: l.SessionsPerUser, OutboxTotal: l.OutboxTotal,
		SessionQueue: l.SessionQueue, IdentityQueue: l.IdentityQueue, RetainedBytes: l.RetainedBytes,
	}
}

func changes(old, now *config.Config) []admin.Change {
	all := []admin.Change{}
	for _, c := range old.Changes(now) {
		all = append(all, admin.Change(c))
	}
	return all
}

// paths are what changed, each once, the first twenty.
func paths(changes []admin.Change) []string {
	all := []string{}
	for _, c := range changes {
		switch {
		case slices.Contains(all, c.Path):
		case len(all) == 20:
			return append(all, "…")
		default:
			all = append(all, c.Path)
		}
	}
	return all
}

// reloadOnHangup reloads at each SIGHUP until ctx ends. What is wrong is in the
// log; the gateway goes on.
func (g *Gateway) reloadOnHangup(ctx context.Context) error {
	for {
		select {
		case <-g.opt.Hangup:
			g.tellSystemd("RELOADING=1")
			_, _ = g.Reload("SIGHUP", false) // an error is in the log
			g.tellSystemd("READY=1")
		case <-ctx.Done():
			return nil
		}
	}
}
