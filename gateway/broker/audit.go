package broker

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// The audit trail is log records whose attribute "event" is one of these. Names
// and attributes are promises: see docs/operations.md.
const (
	eventConnect     = "connect"
	eventRefused     = "connect_refused" // for another reason than who it is
	eventLoginFailed = "login_failed"
	eventLockout     = "lockout"
	eventDisconnect  = "disconnect"
	eventTakeover    = "takeover"
	eventDenied      = "denied"
	eventExpired     = "session_expired"
	eventLeftOut     = "left_out" // how many of another event were not told
)

// tell adds an event to the audit trail. Of each event a hundred are told at
// once and ten a second; the others are counted.
func (b *Broker) tell(level slog.Level, event, msg string, args ...any) {
	if b.told.admits(event) {
		b.log.Log(context.Background(), level, msg, append([]any{"event", event}, args...)...)
	}
}

// short bounds what strangers can put into one line of the log.
func short(s string) string {
	const most = 256 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func (c *conn) tellConnect(present bool) {
	c.b.tell(slog.LevelInfo, eventConnect, "client connected", "client", c.session.clientID, "identity", c.id.Name, "proof", c.proof,
		"remote", c.remote, "listener", c.listener.Address, "mqtt", versionName(c.version), "session_present", present)
}

func versionName(v mqtt.Version) string {
	if v == mqtt.V5 {
		return "5"
	}
	return "3.1.1"
}

// proofOf names what somebody brought to show who it is.
func proofOf(c *access.Credentials) string {
	switch {
	case c.Certificate == nil:
		return "password"
	case c.HasUsername || c.HasPassword:
		return "certificate+password"
	}
	return "certificate"
}

// tellDisconnect is called when the connection is over.
func (c *conn) tellDisconnect() {
	by := c.by
	if by == "" {
		by = byServer
	}
	c.b.tell(slog.LevelInfo, eventDisconnect, "client disconnected", "client", c.session.clientID, "identity", c.id.Name,
		"remote", c.remote, "by", by, "code", c.code.String(), "seconds", time.Since(c.accepted).Round(time.Millisecond).Seconds())
}

// Who ended a connection.
const (
	byServer  = "server"
	byClient  = "client"
	byNetwork = "network"
)

// tellTakeover is about a session that c takes from old.
func (c *conn) tellTakeover(old *conn, clientID string) {
	c.b.tell(slog.LevelWarn, eventTakeover, "session taken over", "client", clientID, "identity", c.id.Name, "remote", c.remote, "from", old.remote)
}

// loginFailed counts and tells why somebody is not let in. The error says what
// the client is never told.
func (c *conn) loginFailed(clientID string, err error) {
	reason := loginReason(err)
	c.b.stats.authFailures.Add(1)
	c.b.stats.logins[reason].Add(1)
	args := []any{"remote", c.remote, "client", short(clientID), "reason", reason.String(), "error", err}
	var login *access.LoginError
	if errors.As(err, &login) && login.User != "" {
		args = append(args, "user", login.User)
	}
	c.b.tell(slog.LevelWarn, eventLoginFailed, "client refused", args...)
	var lock *access.LockoutError
	if errors.As(err, &lock) {
		c.b.tell(slog.LevelWarn, eventLockout, "locked out after too many wrong passwords", "remote", c.remote, "user", lock.User, "address", lock.Address, "seconds", lock.For.Seconds())
	}
}

func loginReason(err error) loginResult {
	switch {
	case errors.Is(err, access.ErrNoCredentials):
		return loginNoCredentials
	case errors.Is(err, access.ErrBadCredentials):
		return loginBadCredentials
	case errors.Is(err, access.ErrCertificate):
		return loginCertificate
	case errors.Is(err, access.ErrLocked):
		return loginLocked
	case errors.Is(err, access.ErrBusy):
		return loginBusy
	}
	return loginOther
}

// A throttle lets through what strangers can make us say: some lines of each
// kind, at most burst at once and rate a second. It counts the others exactly.
type throttle struct {
	burst, rate float64

	mu    sync.Mutex // covers kinds
	kinds map[string]*kind
}

type kind struct {
	room  float64   // lines that may be said
	at    time.Time // when room was that
	left  uint64
	since time.Time // when the first of left was
}

// admits reports whether one more of that kind may be said now. Kinds are
// constants: there is an entry for each.
func (t *throttle) admits(name string) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.kinds[name]
	if k == nil {
		k = &kind{room: t.burst, at: now}
		if t.kinds == nil {
			t.kinds = map[string]*kind{}
		}
		t.kinds[name] = k
	}
	k.room = min(t.burst, k.room+t.rate*now.Sub(k.at).Seconds())
	k.at = now
	if k.room >= 1 {
		k.room--
		return true
	}
	if k.left == 0 {
		k.since = now
	}
	k.left++
	return false
}

// log calls write with msg and args unless too much of the kind msg was said.
func (t *throttle) log(write func(string, ...any), msg string, args ...any) {
	if t.admits(msg) {
		write(msg, args...)
	}
}

// sayLeftOut tells of each kind how many were left out since the last call.
func (t *throttle) sayLeftOut(log *slog.Logger) {
	type left struct {
		name  string
		count uint64
		since time.Time
	}
	var all []left
	t.mu.Lock()
	for name, k := range t.kinds {
		if k.left > 0 {
			all = append(all, left{name, k.left, k.since})
			k.left = 0
		}
	}
	t.mu.Unlock()
	for _, l := range all {
		log.Warn("left out of the log", "event", eventLeftOut, "of", l.name, "count", l.count, "since", l.since)
	}
}

// leftOutPause is how often is said what was left out.
const leftOutPause = 10 * time.Second

// leftOutLoop runs until ctx ends.
func (b *Broker) leftOutLoop(ctx context.Context) {
	tick := time.NewTicker(leftOutPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.sayLeftOut()
		case <-ctx.Done():
			return
		}
	}
}

func (b *Broker) sayLeftOut() {
	b.told.sayLeftOut(b.log)
	b.rarely.sayLeftOut(b.log)
}
