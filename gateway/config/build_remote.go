package config

import (
	"encoding/json"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

func (b *builder) northbound() {
	names := make(unique)
	clients := make(unique)
	for _, l := range b.file.northbound.items {
		if l.name.good() {
			names.add(b, "link", l.name.v, l.name.at)
		}
		link := Link{
			Name: l.name.v, Servers: b.servers(l), CA: l.ca.v, Certificate: l.certificate.v, Key: l.key.v,
			CRL: l.crl.v, ServerName: b.serverName(l), ALPN: b.alpn(l), Renew: b.renew(l),
			ClientID: b.expand(&l.clientID), KeepAlive: l.keepalive.v, SessionExpiry: l.sessionExpiry.v,
			LiveFirst: l.catchUp.order.v == "live_first", CatchUpRate: l.catchUp.rate.v,
			Old: l.protocol.v == "3.1.1", Enveloped: l.envelope.v == "json",
		}
		for _, server := range link.Servers { // it would throw the one out for the other, for ever
			clients.add(b, "client_id", link.ClientID+" at "+server, l.at)
		}
		b.wholeSeconds(&l.keepalive, "keepalive")
		b.wholeSeconds(&l.sessionExpiry, "session_expiry")
		if l.clientID.good() && l.clientID.v == "" {
			b.rep.add(l.clientID.at, `remove it, or write "{gateway}"`, "client_id is empty")
		}
		if !l.send.set && !l.receive.set {
			b.rep.add(l.at, `add send: [{topics: ["hg/#"]}]`, "link %q neither sends nor receives", l.name.v)
		}
		for _, s := range l.send.items {
			link.Send = append(link.Send, b.route(s))
		}
		for _, s := range l.receive.items {
			if link.Old && s.retain.good() && s.retain.v != "ignore" {
				b.rep.add(s.retain.at, "remove it, or set protocol: \"5\"", "retain: %s needs MQTT 5: 3.1.1 does not say whether a new message is retained, and sends the old ones at each connection", s.retain.v)
			}
			link.Receive = append(link.Receive, b.route(&fileSend{topics: s.topics, qos: s.qos, retain: s.retain, strip: s.strip, prefix: s.prefix}))
		}
		b.config.Northbound = append(b.config.Northbound, link)
	}
	b.circles()
}

func (b *builder) wholeSeconds(s *span, name string) {
	if s.good() && s.v%time.Second != 0 {
		b.rep.add(s.at, "write whole seconds", "%s is %s: MQTT counts it in seconds", name, showSpan(s.v))
	}
}

func (b *builder) servers(l *fileLink) []string {
	var all []string
	seen := make(unique)
	for _, t := range l.servers.items {
		if !t.good() {
			continue
		}
		scheme, _, _ := strings.Cut(t.v, "://")
		address, ok := b.url(t, "mqtts", "8883")
		switch {
		case ok:
			if seen.add(b, "server", address, t.at) {
				all = append(all, address)
			}
		case scheme == "mqtt" || scheme == "tcp" || scheme == "ws":
			b.rep.add(t.at, "use mqtts://, and the broker's TLS port, usually 8883", "%q: there is no way to send readings in the clear", t.v)
		default:
			b.rep.add(t.at, "write mqtts://host:8883, without path or user", "%q is not a server", t.v)
		}
	}
	return all
}

func (b *builder) serverName(l *fileLink) string {
	name := &l.serverName
	if _, err := netip.ParseAddr(name.v); name.good() && err != nil && !hostPattern.MatchString(name.v) {
		b.rep.add(name.at, "write a host name as in the broker's certificate, without port, or remove it", "%q is not a server's name", name.v)
	}
	return name.v
}

func (b *builder) alpn(l *fileLink) []string {
	var all []string
	for _, t := range l.alpn.items {
		if t.good() && (t.v == "" || len(t.v) > 255) {
			b.rep.add(t.at, "write the name that the cloud documents, mqtt for example", "a protocol's name has 1 to 255 bytes")
		}
		all = append(all, t.v)
	}
	return all
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?$`)

// url takes scheme://host[:port] apart; ok is false for anything else.
func (b *builder) url(t *text, scheme, defaultPort string) (address string, ok bool) {
	u, err := url.Parse(t.v)
	if err != nil || u.Scheme != scheme || u.String() != u.Scheme+"://"+u.Host {
		return "", false
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = defaultPort
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostPattern.MatchString(host) {
		return "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func (b *builder) route(s *fileSend) Route {
	r := Route{
		Topics: b.filters(&s.topics), Except: b.filters(&s.except), QoS: byte(s.qos.v),
		Retain: Retain(s.retain.v), Strip: b.expand(&s.strip), Prefix: b.expand(&s.prefix),
	}
	for _, t := range []*text{&s.strip, &s.prefix} {
		if strings.ContainsAny(t.v, "+#") {
			b.rep.add(t.at, `write plain text, "sites/{gateway}/" for example`, "%q contains a wildcard: it becomes part of a topic", t.v)
		}
	}
	if coveredBy(r.Topics, r.Except) {
		b.rep.add(s.except.at, "make except narrower, or remove the route", "the route can never match: except takes all its topics")
	}
	return r
}

func (b *builder) devices() {
	ids := make(unique)
	for _, d := range b.file.devices.items {
		if d.id.good() {
			ids.add(b, "device", d.id.v, d.id.at)
		}
		dev := Device{ID: d.id.v, Adapter: d.adapter.v, Groups: b.groups(d), Writes: d.writes.v == "allow",
			Report: b.report(&d.report, new(fileReport)), LazyErrors: int(d.lazyErrors.v), Telemetry: b.telemetry(d)}
		switch {
		case !d.adapter.good():
		case d.adapter.v == "modbus":
			b.modbus(d, &dev)
		default:
			b.plugin(d, &dev)
		}
		b.config.Devices = append(b.config.Devices, dev)
	}
}

func (b *builder) groups(d *fileDevice) map[string]Group {
	groups := make(map[string]Group, len(d.groups.entries))
	for _, g := range d.groups.entries {
		if slices.Contains([]string{"state", "meta", "cmd"}, g.name) {
			b.rep.add(g.at, "choose another name", "group %q would share its topic with the device's own %s", g.name, g.name)
		}
		groups[g.name] = Group{Interval: g.item.interval.v, Wall: g.item.align.v == "wall", Phase: g.item.phase.v, StaleAfter: g.item.stale.v}
		if !g.item.stale.set {
			group := groups[g.name]
			group.StaleAfter = max(3*group.Interval, 3*time.Second)
			groups[g.name] = group
		}
		if g.item.phase.good() && g.item.interval.good() && g.item.phase.v >= g.item.interval.v {
			b.rep.add(g.item.phase.at, "write less than the interval", "phase %s of an interval of %s", showSpan(g.item.phase.v), showSpan(g.item.interval.v))
		}
	}
	return groups
}

var pluginPattern = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

func (b *builder) plugin(d *fileDevice, dev *Device) {
	if !pluginPattern.MatchString(d.adapter.v) {
		b.rep.add(d.adapter.at, "write modbus, or the name of a plugin: lower-case letters, digits and hyphens",
			"adapter %q cannot be a plugin", d.adapter.v)
	}
	for _, k := range []struct {
		name string
		set  bool
		at   place
	}{{"bus", d.bus.set, d.bus.at}, {"unit", d.unit.set, d.unit.at}, {"tags", d.tags.set, d.tags.at}} {
		if k.set {
			suffix, _ := didYouMean(d.adapter.v, []string{"modbus"})
			b.rep.add(k.at, "move it into settings if the plugin wants it, or write adapter: modbus",
				"%s has no meaning for the plugin %q%s", k.name, d.adapter.v, suffix)
		}
	}
	dev.Settings = d.settings.json
	if !d.settings.set {
		dev.Settings = json.RawMessage("{}")
	}
}

func (b *builder) modbus(d *fileDevice, dev *Device) {
	if d.settings.set {
		b.rep.add(d.settings.at, "write bus, unit, groups and tags instead", "settings are for plugins: modbus has none")
	}
	if d.bus.good() {
		var names []string
		for _, e := range b.file.buses.entries {
			names = append(names, e.name)
		}
		b.known(&d.bus, "bus", d.bus.v, names)
	}
	for _, k := range []struct {
		name, fix string
		field     field
	}{
		{"bus", "add bus: NAME, and NAME under buses", &d.bus},
		{"unit", "add unit: 1, or what the device is set to", &d.unit},
		{"groups", "add groups: {fast: {interval: 1s}}", &d.groups},
		{"tags", `add tags: {temp: {address: "holding:10", type: int16}}`, &d.tags},
	} {
		if d.lacks(k.name, k.field) && !(d.profile.set && (k.name == "groups" || k.name == "tags")) {
			b.rep.add(d.at, k.fix, "modbus device %q without %s", d.id.v, k.name)
		}
	}
	dev.ForceFC15, dev.ForceFC16 = d.forceFC15.v, d.forceFC16.v
	dev.Bus, dev.Unit, dev.MaxRegisters, dev.MaxGap = d.bus.v, uint8(d.unit.v), int(d.maxRegisters.v), int(d.maxGap.v)
	if d.maxGap.good() && dev.MaxGap == 0 {
		dev.MaxGap = -1
	}
	if dev.Retries = int(d.retries.v); d.retries.good() && dev.Retries == 0 {
		dev.Retries = -1
	}
	b.holes(d, dev)
	before := len(b.rep.found)
	b.tags(d, dev)
	if len(b.rep.found) > before || !d.tags.set || !d.groups.set {
		return
	}
	if err := modbus.CheckDevice(dev.Modbus()); err != nil {
		problem, fix, _ := strings.Cut(strings.TrimPrefix(err.Error(), "modbus: "), "; ")
		b.rep.add(d.tags.at, fix, "%s", problem)
	}
}

func (b *builder) holes(d *fileDevice, dev *Device) {
	dev.AddressBase = int(d.addressBase.v)
	for _, h := range d.holes.items {
		hole := modbus.Hole{Table: modbus.Table(h.table.v), From: int(h.from.v) - dev.AddressBase, To: int(h.to.v) - dev.AddressBase}
		switch {
		case !h.from.good() || !h.to.good():
		case hole.From < 0 || hole.To > math.MaxUint16:
			b.rep.add(h.at, "stay within the table's 65536 addresses; see address_base", "a hole from %d to %d", h.from.v, h.to.v)
		case hole.To < hole.From:
			b.rep.add(h.at, "write the lower address first", "a hole from %d to %d", h.from.v, h.to.v)
		}
		dev.Holes = append(dev.Holes, hole)
	}
}
