package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"
	"unicode"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// connect takes a socket from accept to CONNACK and reports whether the client
// is in. Everything up to a whole CONNECT has to happen within limits.Connect
// of accept, however the bytes trickle.
func (c *conn) connect(ctx context.Context) bool {
	deadline := c.accepted.Add(c.limits.Connect)
	if err := c.handshake(); err != nil {
		c.refuseHandshake(err)
		return false
	}
	c.readBy(deadline)
	if err := c.upgrade(deadline); err != nil {
		c.refuseUpgrade(err)
		return false
	}
	p, err := c.dec.Read()
	if err != nil {
		c.refuseUnread(err)
		return false
	}
	req, ok := p.(*mqtt.Connect)
	if !ok { // [MQTT-3.1.0-1]
		c.b.stats.protocolErrors.Add(1)
		return false
	}
	c.version, c.out.version = req.Version, req.Version
	assigned := ""
	if req.ClientID == "" && (req.Version == mqtt.V5 || req.CleanStart) {
		assigned = "auto-" + rand.Text() // [MQTT-3.1.3-6]
		req.ClientID = assigned
	}
	login, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	present, code, why := c.decide(login, req)
	if code != mqtt.Success {
		if why != "" {
			c.b.tell(slog.LevelWarn, eventRefused, "client refused", "remote", c.remote, "client", short(req.ClientID),
				"identity", c.id.Name, "code", code.String(), "reason", why)
		}
		ack := &mqtt.Connack{Version: c.version, Code: code}
		switch code {
		case mqtt.BadAuthenticationMethod, mqtt.QuotaExceeded, mqtt.TopicNameInvalid: // others would tell strangers something
			ack.ReasonString = reason(why, int(req.MaximumPacket))
		}
		c.send(ack)
		return false
	}
	c.welcome(ctx, req, present, assigned)
	return true
}

// handshake does TLS. How many do it at a time is bounded by limits.PreLogin.
// Deadlines end it, and close, but no context: that would cost a silent socket
// a second goroutine.
func (c *conn) handshake() error {
	if c.tls == nil {
		return nil
	}
	deadline := c.accepted.Add(c.limits.Handshake)
	c.readBy(deadline)
	c.tls.SetWriteDeadline(deadline) // the outbox sets its own
	turn := c.tls.NetConn().(*shaking)
	defer turn.over()
	if err := turn.await(); err != nil {
		return err
	}
	return c.tls.Handshake()
}

// upgrade makes a WebSocket of the connection if the listener is for those.
func (c *conn) upgrade(deadline time.Time) error {
	if c.framed == nil {
		return nil
	}
	c.nc.SetWriteDeadline(deadline)
	return c.framed.upgrade(c.listener, c.limits.ConnectSize)
}

// trusted reports whether the handshake would be accepted now. Safe for
// concurrent use.
func (c *conn) trusted() bool {
	if c.tls == nil {
		return true
	}
	conf, err := c.listener.TLS()
	return err == nil && (conf.VerifyConnection == nil || conf.VerifyConnection(c.tls.ConnectionState()) == nil)
}

// refuseHandshake tells a login that failed by its certificate from a peer
// that went away or does not speak TLS.
func (c *conn) refuseHandshake(err error) {
	var network net.Error
	var notTLS tls.RecordHeaderError
	if errors.Is(err, context.DeadlineExceeded) {
		c.b.stats.hits.add(limitHandshake)
	}
	if errors.As(err, &network) || errors.As(err, &notTLS) || errors.Is(err, io.EOF) {
		c.b.rarely.log(c.b.log.Info, "TLS handshake broken off", "remote", c.remote, "error", err)
		return
	}
	c.b.stats.authFailures.Add(1)
	c.b.stats.logins[loginCertificate].Add(1)
	c.b.tell(slog.LevelWarn, eventLoginFailed, "TLS handshake refused", "remote", c.remote, "reason", loginCertificate.String(), "error", err)
}

// refuseUpgrade tells a request that is wrong from a peer that went away.
func (c *conn) refuseUpgrade(err error) {
	var network net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.b.stats.hits.add(limitConnect)
	case errors.As(err, &network), errors.Is(err, io.EOF):
	default:
		c.b.stats.protocolErrors.Add(1)
		c.b.rarely.log(c.b.log.Warn, "WebSocket refused", "remote", c.remote, "error", err)
	}
}

// refuseUnread answers what was not a CONNECT that can be read.
func (c *conn) refuseUnread(err error) {
	var broken *mqtt.Error
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.b.stats.hits.add(limitConnect)
	}
	if !errors.As(err, &broken) {
		return
	}
	c.b.stats.hits.broken(broken.Code, limitConnectSize)
	c.b.stats.protocolErrors.Add(1)
	c.b.rarely.log(c.b.log.Warn, "unreadable CONNECT", "remote", c.remote, "error", broken)
	if broken.Code == mqtt.ClientIdentifierNotValid && c.dec.Version() == mqtt.V311 { // [MQTT-3.1.3-8] of 3.1.1
		c.version, c.out.version = mqtt.V311, mqtt.V311
		c.send(&mqtt.Connack{Version: mqtt.V311, Code: broken.Code})
	}
	if broken.Code == mqtt.UnsupportedProtocolVersion { // [MQTT-3.1.2-2], in the words that all versions know
		c.out.version = mqtt.V311
		c.send(&mqtt.Connack{Version: mqtt.V311, Code: broken.Code})
	}
}

// decide answers a CONNECT. After Success the session is the connection's. why
// is for the log; empty: it is told already.
func (c *conn) decide(ctx context.Context, req *mqtt.Connect) (present bool, code mqtt.ReasonCode, why string) {
	if req.AuthMethod != "" {
		return false, mqtt.BadAuthenticationMethod, "no authentication method is offered" // [MQTT-4.12.0-1]
	}
	if !validClientID(req.ClientID) {
		c.b.stats.hits.add(limitClientID)
		return false, mqtt.ClientIdentifierNotValid, "a client id has 1 to 128 printable characters" // [MQTT-3.1.3-8]
	}
	if !c.agreeKeepAlive(req) {
		return false, mqtt.ClientIdentifierNotValid, "its keep alive is longer than broker.limits.keep_alive, and 3.1.1 has no way to say so"
	}
	id, err := c.authenticate(ctx, req)
	if err != nil {
		c.loginFailed(req.ClientID, err)
		if errors.Is(err, access.ErrBusy) { // who is told that it is not authorized may never come back
			return false, mqtt.ServerBusy, ""
		}
		return false, mqtt.NotAuthorized, ""
	}
	if !c.trusted() { // revoked since the handshake
		return false, mqtt.NotAuthorized, "its certificate was revoked"
	}
	c.id = id
	if full := c.b.door.pass(c.remote); full != limitNone {
		c.b.stats.hits.add(full)
		return false, mqtt.QuotaExceeded, "too many connections; see broker.limits"
	}
	c.passed = true
	if req.Will != nil {
		if code := c.b.refusal(id, req.Will.Topic); code != mqtt.Success {
			return false, code, "it may not publish its will"
		}
		c.will = newWill(id, req.Will)
	}
	present, err = c.b.attach(ctx, c, req)
	switch {
	case errors.Is(err, errNotOwner):
		return false, mqtt.ClientIdentifierNotValid, err.Error()
	case errors.Is(err, errTooManySess):
		c.will = nil
		return false, mqtt.QuotaExceeded, err.Error()
	case err != nil:
		c.will = nil
		return false, mqtt.ServerBusy, err.Error()
	}
	return present, mqtt.Success, ""
}

func validClientID(id string) bool {
	if id == "" || len(id) > maxClientID {
		return false
	}
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// agreeKeepAlive puts the limit in the place of a keep alive that is longer, or
// none. It reports false for 3.1.1, which cannot be told.
func (c *conn) agreeKeepAlive(req *mqtt.Connect) bool {
	c.keepAlive = time.Duration(req.KeepAlive) * time.Second
	longest := c.limits.KeepAlive
	if longest == 0 || c.keepAlive > 0 && c.keepAlive <= longest {
		return true
	}
	c.keepAlive = longest
	return c.version == mqtt.V5
}

func (c *conn) authenticate(ctx context.Context, req *mqtt.Connect) (access.Identity, error) {
	creds := access.Credentials{
		Username: req.Username, HasUsername: req.UsernameFlag,
		Password: []byte(req.Password), HasPassword: req.PasswordFlag,
		Remote: c.remote,
	}
	if c.tls != nil {
		if state := c.tls.ConnectionState(); len(state.VerifiedChains) > 0 {
			creds.Certificate = state.PeerCertificates[0]
		}
	}
	if as := c.listener.AnonymousAs; as != "" && c.remote.IsLoopback() &&
		!creds.HasUsername && !creds.HasPassword && creds.Certificate == nil {
		c.proof = "anonymous"
		return access.Identity{Name: as}, nil
	}
	c.proof = proofOf(&creds)
	id, err := c.b.access.Authenticate(ctx, creds)
	if err == nil && id.Name == "" {
		err = errors.New("it has no identity")
	}
	return id, err
}

// welcome sends CONNACK, and only then lets messages through.
func (c *conn) welcome(ctx context.Context, req *mqtt.Connect, present bool, assigned string) {
	l := c.limits
	c.window = min(int(req.ReceiveMaximum), l.ReceiveMaximum)
	c.maxPacket, c.wordy = int(req.MaximumPacket), req.RequestProblem
	c.out.aliases = newAliases(min(int(req.TopicAliasMax), l.Aliases), c.maxPacket)
	ack := &mqtt.Connack{
		Version: c.version, SessionPresent: present,
		ReceiveMaximum: uint16(l.ReceiveMaximum), MaximumQoS: 2, MaximumPacket: uint32(l.PacketSize),
		TopicAliasMax: uint16(l.Aliases), AssignedClientID: assigned,
		RetainAvailable: true, WildcardAvailable: true, SubscriptionIDs: true, SharedAvailable: true,
	}
	if granted := c.session.expiry; req.SessionExpiry > 0 && granted < time.Duration(req.SessionExpiry)*time.Second {
		ack.SessionExpiry, ack.HasSessionExpiry = uint32(granted/time.Second), true
	}
	if asked := time.Duration(req.KeepAlive) * time.Second; asked != c.keepAlive { // [MQTT-3.1.2-21]
		ack.ServerKeepAlive, ack.HasServerKeepAlive = uint16(c.keepAlive/time.Second), true
	}
	c.send(ack)
	c.greeted.Store(true)
	c.b.recheck(c) // Recheck passes over who is not greeted
	c.dec.SetLimit(l.PacketSize)
	if c.framed != nil {
		c.framed.trust(l.PacketSize)
	}
	c.readBy(time.Time{})
	c.b.stats.logins[loginOK].Add(1)
	c.tellConnect(present)
	c.session.conn.Store(c)
	if c.session.reader != nil {
		c.delivery.start(ctx, c)
	}
}
