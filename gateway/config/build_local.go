package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/headgate-io/headgate/gateway/access"
)

func (b *builder) broker() {
	f := &b.file.broker
	l := &f.limits
	b.config.Broker = Broker{
		Limits: Limits{
			Connections: int(l.connections.v), ConnectionsPerIP: int(l.connectionsPerIP.v), PacketSize: int(l.packetSize.v),
			ReceiveMaximum: int(l.receiveMaximum.v), TopicLevels: int(l.topicLevels.v), Subscriptions: int(l.subscriptions.v),
			SessionExpiry: l.sessionExpiry.v, KeepAlive: l.keepAlive.v, Retained: int(l.retained.v), PublishRate: int(l.publishRate.v),
			AllSubscriptions: int(l.allSubscriptions.v), Sessions: int(l.sessions.v), SessionsPerUser: int(l.sessionsPerUser.v),
			OutboxTotal: l.outboxTotal.v, SessionQueue: l.sessionQueue.v, IdentityQueue: l.identityQueue.v, RetainedBytes: l.retainedBytes.v,
		},
		Lockout: Lockout{Failures: int(f.lockout.failures.v), Window: f.lockout.window.v, Duration: f.lockout.duration.v},
	}
	addresses := make(unique)
	for _, l := range f.listeners.items {
		b.config.Broker.Listeners = append(b.config.Broker.Listeners, b.listener(l, addresses))
	}
}

func (b *builder) listener(l *fileListener, addresses unique) Listener {
	address, ok := b.address(&l.address)
	if ok {
		addresses.add(b, "listener", address, l.address.at)
	}
	loopback := ok && isLoopback(address)
	if l.plaintext.v {
		b.plaintext(l, ok && !loopback)
	} else {
		b.needTLS(l)
	}
	if l.anonymousAs.good() && l.anonymousAs.v != "" {
		b.anonymous(l, ok && !loopback)
	}
	origins := b.origins(l)
	return Listener{
		Address: address, Plaintext: l.plaintext.v, Certificate: l.certificate.v, Key: l.key.v, ClientCA: l.clientCA.v,
		ClientCRL: l.clientCRL.v, ClientDenylist: l.clientDeny.v, ClientCertificate: ClientCertificate(l.clientCert.v),
		AnonymousAs: l.anonymousAs.v, WebSocket: l.webSocket.v, Origins: origins,
	}
}

func (b *builder) origins(l *fileListener) (all []string) {
	if l.origins.set && l.webSocket.has && !l.webSocket.v {
		b.rep.add(l.origins.at, "remove it, or set websocket: true", "origins has no meaning without websocket")
	}
	for _, o := range l.origins.items {
		if o.good() && !isOrigin(o.v) {
			b.rep.add(o.at, "write https:// or http:// and the host, with the port if it is not the usual one: https://hmi.example.com:8443",
				"%q is not the origin of a web page", o.v)
		}
		all = append(all, o.v)
	}
	return all
}

// isOrigin reports whether s is as a browser writes it: a scheme and a host,
// nothing behind, no wildcard.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" &&
		u.Scheme+"://"+u.Host == s && !strings.ContainsAny(s, "*?\\")
}

// plaintext checks a listener without TLS; open says that it is surely not on
// a loopback address.
func (b *builder) plaintext(l *fileListener, open bool) {
	if open {
		b.rep.add(l.plaintext.at, `remove plaintext and give certificate and key, or write address: "127.0.0.1:1883"`,
			"plaintext on %q, which is not a loopback address: passwords and readings would be readable on the network", l.address.v)
	}
	for _, p := range []struct {
		name string
		path *filePath
	}{{"certificate", &l.certificate}, {"key", &l.key}, {"client_ca", &l.clientCA}, {"client_crl", &l.clientCRL}, {"client_denylist", &l.clientDeny}} {
		if p.path.set {
			b.rep.add(p.path.at, "remove it, or remove plaintext", "%s has no meaning on a plaintext listener", p.name)
		}
	}
	if l.clientCert.good() && l.clientCert.v != string(Off) {
		b.rep.add(l.clientCert.at, "remove it, or remove plaintext", "client_certificate has no meaning on a plaintext listener")
	}
	if !l.clientCert.set {
		l.clientCert.v, l.clientCert.has = string(Off), true
	}
}

func (b *builder) needTLS(l *fileListener) {
	if l.lacks("certificate", &l.certificate) {
		b.rep.add(l.at, "add certificate: pki/broker.crt, which headgate init makes", "listener without certificate")
	}
	if l.lacks("key", &l.key) {
		b.rep.add(l.at, "add key: pki/broker.key, which headgate init makes", "listener without key")
	}
	asks := l.clientCert.good() && l.clientCert.v != string(Off)
	if asks && l.lacks("client_ca", &l.clientCA) {
		b.rep.add(l.clientCert.at, "add client_ca: pki/ca.crt, or set client_certificate: off",
			"client_certificate: %s without client_ca: nobody could vouch for clients", l.clientCert.v)
	}
	if !l.clientCert.set {
		l.clientCert.v, l.clientCert.has = string(Off), true
		if l.clientCA.set {
			l.clientCert.v = string(Optional)
		}
	}
	if l.clientCert.v != string(Off) {
		return
	}
	for _, p := range []struct {
		name string
		path *filePath
	}{{"client_crl", &l.clientCRL}, {"client_denylist", &l.clientDeny}} {
		if p.path.set {
			b.rep.add(p.path.at, "add client_ca and client_certificate: required, or remove it",
				"%s on a listener that asks for no client certificates", p.name)
		}
	}
}

func (b *builder) anonymous(l *fileListener, open bool) {
	a := &l.anonymousAs
	if err := access.CheckName(a.v); err != nil {
		b.rep.add(a.at, "write a name that rules can use, visitor for example", "anonymous_as: %v", err)
	}
	switch {
	case !l.plaintext.v:
		b.rep.add(a.at, "remove it, or give clients passwords or certificates", "anonymous_as on a TLS listener")
	case open:
		b.rep.add(a.at, "remove it, or listen on 127.0.0.1", "anonymous_as on %q, which is not a loopback address", l.address.v)
	}
}

// address checks an address to listen on and gives its normal form.
func (b *builder) address(t *text) (string, bool) {
	if !t.has {
		return "", false
	}
	host, port, err := net.SplitHostPort(t.v)
	if err != nil {
		b.rep.add(t.at, `write "127.0.0.1:1883" for example, IPv6 in brackets: "[::1]:1883"`, "%q is not an address with a port", t.v)
		return "", false
	}
	if !b.port(t, port) {
		return "", false
	}
	switch ip, err := netip.ParseAddr(host); {
	case host == "localhost":
		host = "127.0.0.1"
	case err == nil:
		host = ip.String()
	case host != "":
		b.rep.add(t.at, "write the IP address itself, 127.0.0.1 or 0.0.0.0 for example", "%q is not an IP address: listening must not need DNS", host)
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func (b *builder) port(t *text, port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
		b.rep.add(t.at, "write a port from 1 to 65535", "%q is not a port, in %q", port, t.v)
		return false
	}
	return true
}

func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address) // address made it
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (b *builder) access() {
	f := &b.file.access
	b.config.Access.CertificateName = f.certificateName.v
	for _, c := range f.certificates.items {
		role := access.CertificateRole{Match: c.match.v}
		if c.match.good() && access.CheckName(strings.ReplaceAll(c.match.v, "*", "a")) != nil {
			b.rep.add(c.match.at, `write a name, with "*" for any characters: "press-*"`, "match %q fits no identity", c.match.v)
		}
		for _, r := range c.roles.items {
			role.Roles = append(role.Roles, r.v)
		}
		b.config.Access.Certificates = append(b.config.Access.Certificates, role)
	}
	for _, r := range f.rules.items {
		b.config.Access.Rules = append(b.config.Access.Rules, b.rule(r))
	}
}

func (b *builder) rule(r *fileRule) access.Rule {
	rule := access.Rule{Allow: r.allow.set, Who: r.who.v}
	actions := &r.deny
	if rule.Allow {
		actions = &r.allow
	}
	switch {
	case r.allow.set && r.deny.set:
		b.rep.add(r.at, "make two rules of it; the first that matches decides", "a rule with both allow and deny")
	case r.lacks("allow", &r.allow) && r.lacks("deny", &r.deny):
		b.rep.add(r.at, "add allow: publish, allow: subscribe, or the same with deny", "a rule without allow or deny")
	}
	for _, a := range actions.items {
		action := access.Publish
		if a.v == access.Subscribe.String() {
			action = access.Subscribe
		}
		rule.Actions = append(rule.Actions, action)
	}
	if r.who.good() {
		b.who(&r.who)
	}
	for _, t := range r.topics.items {
		if !t.good() {
			continue
		}
		topic := b.expand(t, "{id}")
		rule.Topics = append(rule.Topics, topic)
		if placeholders.MatchString(strings.ReplaceAll(topic, "{id}", "")) {
			continue // reported
		}
		if err := compiles("*", topic); err != nil {
			b.rep.add(t.at, `write a filter: levels between "/", "+" for any one level, "#" only as the last`, "topic filter %q: %v", topic, err)
		}
	}
	return rule
}

// compiles asks the room of rules itself about one who and one topic.
func compiles(who, topic string) error {
	_, err := access.Compile([]access.Rule{{Actions: []access.Action{access.Publish}, Who: who, Topics: []string{topic}}})
	if inner := errors.Unwrap(err); inner != nil { // without the place, which is known better here
		err = inner
	}
	return inShort(err)
}

func (b *builder) who(t *text) {
	if compiles(t.v, "#") != nil {
		b.rep.add(t.at, "write an identity, @role, link:NAME, link:*, device:NAME, device:* or *", "%q in who is nobody", t.v)
		return
	}
	kind, name, _ := strings.Cut(t.v, ":")
	var known []string
	switch kind {
	case "link":
		for _, l := range b.file.northbound.items {
			known = append(known, l.name.v)
		}
	case "device":
		for _, d := range b.file.devices.items {
			known = append(known, d.id.v)
		}
	default:
		return
	}
	if name != "*" {
		b.known(t, kind, name, known)
	}
}

// known reports a reference to something that is not there.
func (b *builder) known(t *text, what, name string, names []string) {
	for _, n := range names {
		if n == name {
			return
		}
	}
	suffix, _ := didYouMean(name, names)
	fix := fmt.Sprintf("add that %s, or correct the name; there is %s", what, strings.Join(names, ", "))
	if len(names) == 0 {
		fix = fmt.Sprintf("add that %s, or remove this; there is none yet", what)
	}
	b.rep.add(t.at, fix, "unknown %s %q%s", what, name, suffix)
}
