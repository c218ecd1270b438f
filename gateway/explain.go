package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/broker"
	"github.com/headgate-io/headgate/gateway/config"
)

// An Explanation says whether somebody may, and which rule decides.
type Explanation struct {
	Allowed bool     `json:"allowed"`
	Who     string   `json:"who"`
	Known   string   `json:"known_as"` // "user", "disabled user", "certificate", "link", "device"
	Roles   []string `json:"roles"`
	Action  string   `json:"action"`
	Topic   string   `json:"topic"`
	Rule    string   `json:"rule"` // file:line:column, "built in", or empty: none decides
	Why     string   `json:"why"`
}

// ExplainAccess asks the rules and the users as they are on disk, as a gateway
// that starts now would. A name that is a user's is taken for the user, unless
// asCertificate. topic is a filter if somebody wants to subscribe.
func ExplainAccess(cfg *config.Config, who string, asCertificate bool, action access.Action, topic string) (Explanation, error) {
	e := Explanation{Who: who, Action: action.String(), Topic: topic, Roles: []string{}}
	rules, err := access.Compile(slices.Concat(cfg.Access.Rules, builtIn(cfg)))
	if err != nil {
		return e, err
	}
	id, err := e.identify(cfg, asCertificate)
	if err != nil {
		return e, err
	}
	d := rules.Explain(id, action, topic)
	if why := beyondLimits(cfg, topic); why != "" {
		d = access.Decision{Rule: -1, Why: why}
	}
	e.Allowed, e.Why = d.Allowed, d.Why
	switch {
	case d.Rule >= len(cfg.Access.Rules):
		e.Rule = "built in"
	case d.Rule >= 0:
		e.Rule = cfg.RulePlace(d.Rule)
	}
	if e.Known == "disabled user" {
		e.Allowed, e.Rule, e.Why = false, "", "the user is disabled and cannot log in: headgate user enable "+who
	}
	return e, nil
}

// identify finds out who a name is, and what roles it has.
func (e *Explanation) identify(cfg *config.Config, asCertificate bool) (access.Identity, error) {
	kind, name, special := strings.Cut(e.Who, ":")
	switch {
	case special && kind == "link" && slices.ContainsFunc(cfg.Northbound, func(l config.Link) bool { return l.Name == name }),
		special && kind == "device" && slices.ContainsFunc(cfg.Devices, func(d config.Device) bool { return d.ID == name }):
		e.Known = kind
		return access.Identity{Name: e.Who}, nil
	case special:
		return access.Identity{}, fmt.Errorf("the configuration has no %s: name a user, a client's certificate, link:NAME or device:NAME", e.Who)
	}
	if err := access.CheckName(e.Who); err != nil {
		return access.Identity{}, fmt.Errorf("nobody can log in as that: %w", err)
	}
	users, err := access.OpenUsers(UsersFile(cfg), nil)
	if err != nil {
		return access.Identity{}, err
	}
	e.Known = "certificate"
	if asCertificate {
		users = nil
	} else if i := slices.IndexFunc(users.List(), func(u access.User) bool { return u.Name == e.Who }); i >= 0 {
		e.Known = "user"
		if users.List()[i].Disabled {
			e.Known = "disabled user"
		}
	}
	id := access.NewGate(gateConfig(cfg), users, nil, nil).Lookup(e.Who)
	e.Roles = append(e.Roles, id.Roles...)
	return id, nil
}

// beyondLimits says why the broker asks no rule about a topic or filter.
func beyondLimits(cfg *config.Config, topic string) string {
	_, bare, shared := strings.Cut(strings.TrimPrefix(topic, "$share/"), "/")
	if !shared || !strings.HasPrefix(topic, "$share/") {
		bare = topic
	}
	switch levels := cfg.Broker.Limits.TopicLevels; {
	case len(topic) > broker.MaxTopic:
		return fmt.Sprintf("refused before any rule: more than %d bytes", broker.MaxTopic)
	case strings.Count(bare, "/") >= levels:
		return fmt.Sprintf("refused before any rule: more than %d levels, see broker.limits.topic_levels", levels)
	}
	return ""
}
