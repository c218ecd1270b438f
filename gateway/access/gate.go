package access

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// Config is what a Gate needs besides users and rules. The zero value gives no
// certificate a role and has the default lockout.
type Config struct {
	Certificates    []CertificateRole
	CertificateName string // where a certificate's identity is: "san" (default) or "cn"
	Lockout         Lockout
}

// Credentials are what a CONNECT brought.
type Credentials struct {
	Username    string
	HasUsername bool
	Password    Secret // a []byte can be assigned; not kept
	HasPassword bool
	Certificate *x509.Certificate // verified by TLS; nil without
	Remote      netip.Addr
}

// Gate is the one door: users, certificates and the rules in force. Safe for
// concurrent use.
type Gate struct {
	users  *Users
	logger *slog.Logger
	locks  *lockouts
	config atomic.Pointer[Config]
	rules  atomic.Pointer[Rules]
}

// NewGate makes a gate. Without users (nil) no password is right, without
// rules (nil) everything is refused.
func NewGate(cfg Config, users *Users, rules *Rules, logger *slog.Logger) *Gate {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	g := &Gate{users: users, logger: logger, locks: newLockouts()}
	g.SetConfig(cfg)
	g.SetRules(rules)
	return g
}

// SetConfig puts cfg in force for everybody who connects from now on; see
// Current for those who are connected.
func (g *Gate) SetConfig(cfg Config) {
	cfg.Lockout = cfg.Lockout.withDefaults()
	g.config.Store(&cfg)
}

// SetRules puts new rules in force for everything asked from now on.
func (g *Gate) SetRules(r *Rules) { g.rules.Store(r) }

// Allow asks the rules in force now about one topic name.
func (g *Gate) Allow(id Identity, action Action, topic string) bool {
	return g.rules.Load().Allow(id, action, topic)
}

// AllowFilter asks the rules in force now about a subscription.
func (g *Gate) AllowFilter(id Identity, filter string) bool {
	return g.rules.Load().AllowFilter(id, filter)
}

// Authenticate says who it is. A certificate's identity and a username, when
// both are given, must both be right, and the username decides the name and
// the roles. Without either, or with a password alone, nobody gets in. The
// error says why, for the log; the caller tells the peer nothing of it.
func (g *Gate) Authenticate(ctx context.Context, c Credentials) (Identity, error) {
	cfg := g.config.Load()
	var id Identity
	if c.Certificate != nil {
		name, err := certificateName(c.Certificate, cfg.CertificateName)
		if err != nil {
			return Identity{}, fmt.Errorf("%w: serial number %x: %w", ErrCertificate, c.Certificate.SerialNumber, err)
		}
		id = Identity{Name: name, Roles: certificateRoles(cfg.Certificates, name), proof: byCertificate}
	}
	if c.HasUsername || c.HasPassword {
		return g.password(ctx, c, newPair(c.Remote, id.Name, c.Username), cfg.Lockout)
	}
	if id.Name == "" {
		return Identity{}, ErrNoCredentials
	}
	return id, nil
}

func (g *Gate) password(ctx context.Context, c Credentials, who pair, limit Lockout) (Identity, error) {
	a := &attempt{gate: g, who: who, limit: limit}
	if err := a.admit(); err != nil {
		return Identity{}, a.explain(err)
	}
	if g.users == nil || !c.HasUsername || !c.HasPassword {
		a.failed()
		return Identity{}, a.explain(ErrBadCredentials)
	}
	user, err := g.users.verify(ctx, c.Username, c.Password, a)
	if err != nil {
		return Identity{}, a.explain(err)
	}
	g.locks.succeeded(who)
	return Identity{Name: user.Name, Roles: user.Roles, proof: byPassword}, nil
}

// An attempt is one password login under the lockout.
type attempt struct {
	gate      *Gate
	who       pair
	limit     Lockout
	lockedFor time.Duration // by this failure
	whole     bool          // it locked the address
}

func (a *attempt) admit() error {
	if a.gate.locks.locked(a.who) {
		return ErrLocked
	}
	return nil
}

func (a *attempt) suspected() bool { return a.gate.locks.suspected(a.who, a.limit.Window) }

func (a *attempt) failed() {
	user, address := a.gate.locks.failed(a.who, a.limit)
	a.lockedFor, a.whole = max(user, address), address > 0
}

// explain adds for the log who it was and whether it was one failure too many.
func (a *attempt) explain(err error) error {
	err = &LoginError{User: a.who.user, err: err}
	if a.lockedFor == 0 {
		return err
	}
	name := a.who.user
	if name == "" {
		name = "(not a user name)"
	}
	return &LockoutError{User: name, For: a.lockedFor, Address: a.whole, err: err}
}

// Current is who id is now: its roles as the users file and the configuration
// give them at this moment. It is false when the user was removed or disabled,
// and the session should end. Ask it after a reload; rules need no such
// question, Allow always asks the ones in force.
func (g *Gate) Current(id Identity) (Identity, bool) {
	switch id.proof {
	case byCertificate:
		id.Roles = certificateRoles(g.config.Load().Certificates, id.Name)
	case byPassword:
		r, _, active := g.users.hashOf(id.Name)
		if !active {
			return Identity{}, false
		}
		id.Roles = r.Roles
	}
	return id, true
}

// Removed reports whether there is no user of that name any more; one who is
// disabled is still there. A users file that is missing removes nobody.
func (g *Gate) Removed(name string) bool {
	return g.users != nil && g.users.removed(name)
}

// Lookup is who would have this name now: a user with the user's roles, none
// while disabled, else somebody with a certificate. Names of links and devices
// have no roles. It proves nothing: it is for explaining rules and for asking
// about messages whose author is gone.
func (g *Gate) Lookup(name string) Identity {
	if g.users != nil {
		if r, ok := g.users.lookup(name); ok {
			if r.Disabled {
				r.Roles = nil
			}
			return Identity{Name: name, Roles: r.Roles, proof: byPassword}
		}
	}
	if !plainName(name) {
		return Identity{Name: name}
	}
	return Identity{Name: name, Roles: certificateRoles(g.config.Load().Certificates, name), proof: byCertificate}
}
