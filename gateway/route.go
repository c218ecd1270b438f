package gateway

import (
	"fmt"
	"math"
	"slices"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/northbound"
)

// A RouteExplanation says which way a message takes over the links.
type RouteExplanation struct {
	Topic     string      `json:"topic"` // on the side that it comes from
	FromCloud bool        `json:"from_cloud"`
	Passes    bool        `json:"passes"` // by one link at least
	Links     []RouteStep `json:"links"`  // all, in the order of the configuration
}

// A RouteStep is what one link does with it.
type RouteStep struct {
	Link   string `json:"link"`
	Passes bool   `json:"passes"`
	Route  string `json:"route"`  // file:line:column of the one that takes it; empty: none does
	Name   string `json:"name"`   // on the other side
	QoS    byte   `json:"qos"`    // at most
	Retain string `json:"retain"` // keep, clear or ignore, as the route says
	Lane   string `json:"lane"`   // empty: from the cloud, or the gateway's own, which goes first
	Rule   string `json:"rule"`   // file:line:column; empty: none decides
	Why    string `json:"why"`

	Onward []RouteStep `json:"onward,omitempty"` // from the cloud: the other links that it goes on to
}

// ExplainRoute follows a message of that topic through the routes and rules of
// cfg, as a gateway that starts now would.
func ExplainRoute(cfg *config.Config, topic string, fromCloud bool) (RouteExplanation, error) {
	e := RouteExplanation{Topic: topic, FromCloud: fromCloud, Links: []RouteStep{}}
	if err := mqtt.CheckTopic(topic); err != nil {
		return e, fmt.Errorf("%q is not the topic of a message: %w; name one, without wildcards", topic, err)
	}
	rules, err := access.Compile(slices.Concat(cfg.Access.Rules, builtIn(cfg)))
	if err != nil {
		return e, err
	}
	r := router{cfg, rules}
	if e.Links = r.out(topic, -1); fromCloud {
		e.Links = r.in(topic)
	}
	e.Passes = slices.ContainsFunc(e.Links, func(s RouteStep) bool { return s.Passes })
	return e, nil
}

// A router asks what outbound and the links ask, in the same order.
type router struct {
	cfg   *config.Config
	rules *access.Rules
}

// out is the way to the cloud, for a message that the link numbered from
// brought; -1: none did.
func (r *router) out(topic string, from int) []RouteStep {
	steps := []RouteStep{}
	for i, l := range r.cfg.Northbound {
		if i == from {
			continue
		}
		s := RouteStep{Link: l.Name, Why: "no send route takes it; add one to northbound[" + l.Name + "].send"}
		n, name := northbound.Find(routes(l.Send), mqtt.Match, topic)
		if n >= 0 {
			s.Route, s.Name, s.QoS, s.Retain = r.cfg.SendPlace(i, n), name, l.Send[n].QoS, string(l.Send[n].Retain)
			if topic != lostTopic(r.cfg) {
				s.Lane = r.cfg.Queue.Lanes[laneOf(topic, r.cfg.Queue)].Name
			}
			r.ask(&s, access.Subscribe, topic)
			s.checkName()
			if r.isCommand(topic) {
				s.Passes, s.Rule, s.Why = false, "", "it is a command to a device of this gateway, and goes nowhere else"
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// isCommand reports what commands.mark keeps for a device.
func (r *router) isCommand(topic string) bool {
	return slices.ContainsFunc(r.cfg.Devices, func(d config.Device) bool { return topic == deviceHome(r.cfg, d.ID)+commandSuffix })
}

// in is the way from the cloud, and on to other links.
func (r *router) in(topic string) []RouteStep {
	steps := []RouteStep{}
	for i, l := range r.cfg.Northbound {
		s := RouteStep{Link: l.Name, Why: "no receive route takes it; add one to northbound[" + l.Name + "].receive"}
		n, name := northbound.Find(routes(l.Receive), mqtt.Match, topic)
		if n >= 0 {
			s.Route, s.Name, s.QoS, s.Retain = r.cfg.ReceivePlace(i, n), name, l.Receive[n].QoS, string(l.Receive[n].Retain)
			r.ask(&s, access.Publish, name)
			s.checkName()
		}
		if s.Passes {
			for _, on := range r.out(name, i) {
				if on.Passes {
					s.Onward = append(s.Onward, on)
				}
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// ask lets the rules decide about the local name.
func (r *router) ask(s *RouteStep, action access.Action, topic string) {
	d := r.rules.Explain(access.Identity{Name: "link:" + s.Link}, action, topic)
	if why := beyondLimits(r.cfg, topic); why != "" {
		d = access.Decision{Rule: -1, Why: why}
	}
	s.Passes, s.Why = d.Allowed, d.Why
	if d.Rule >= 0 && d.Rule < len(r.cfg.Access.Rules) {
		s.Rule = r.cfg.RulePlace(d.Rule)
	}
}

// checkName looks for a name on the other side that is none.
func (s *RouteStep) checkName() {
	if s.Name == "" || len(s.Name) > math.MaxUint16 {
		s.Passes, s.Rule, s.Why = false, "", "its name on the other side would be empty or too long: change strip and prefix of the route"
	}
}
