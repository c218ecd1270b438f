package config

import "github.com/goccy/go-yaml/ast"

// The file's shape, part two: links to the cloud and field devices.

// versionKey is the one key that every file may give again.
type versionKey struct{ whole }

func (v *versionKey) decode(r *reader, n ast.Node, k key) {
	*v = versionKey{}
	v.whole.decode(r, n, k)
}

type fileLink struct {
	block
	name          label
	servers       list[text]
	ca            filePath
	certificate   filePath
	key           filePath
	crl           filePath
	serverName    text
	alpn          list[text]
	renew         fileRenew
	clientID      text
	keepalive     span
	sessionExpiry span
	protocol      text
	envelope      text
	catchUp       fileCatchUp
	send          list[fileSend]
	receive       list[fileReceive]
}

func (l *fileLink) keys() []key {
	return []key{
		{name: "name", into: &l.name, required: true, doc: "Its name; in rules it is link:NAME."},
		{name: "servers", into: &l.servers, required: true,
			doc: "Brokers in order of preference, `mqtts://host:8883`. From one that is not the first, the link goes back when one before it can be reached again. There is no way to send readings in the clear."},
		{name: "ca", into: &l.ca, required: true, doc: "PEM file of the authorities that vouch for the brokers."},
		{name: "certificate", into: &l.certificate, required: true, doc: "PEM file of the certificate chain the gateway shows."},
		{name: "key", into: &l.key, required: true, doc: "PEM file of its private key."},
		{name: "crl", into: &l.crl, doc: "PEM or DER file with revocation lists of these authorities: servers with a revoked certificate are refused."},
		{name: "server_name", into: &l.serverName,
			doc: "Name that is asked for (SNI) and that the brokers' certificates must have. Default: the host in servers."},
		{name: "alpn", into: &l.alpn, single: true, doc: "Protocols offered in TLS, for clouds that tell MQTT from HTTPS by it: x-amzn-mqtt-ca or mqtt, for example."},
		{name: "renew", into: &l.renew, doc: "How its certificate is renewed before it ends. Default: by hand."},
		{name: "client_id", into: &l.clientID, def: "{gateway}", doc: "MQTT client id."},
		{name: "keepalive", into: &l.keepalive, def: "30s", min: "5s", max: "65535s", doc: "How soon a dead connection is noticed, in whole seconds."},
		{name: "session_expiry", into: &l.sessionExpiry, def: "1d", min: "0", max: "3650d",
			doc: "How long the cloud broker keeps the session without a connection, in whole seconds. With protocol 3.1.1: 0 for not at all; anything else leaves it to the broker."},
		{name: "protocol", into: &l.protocol, def: "5", oneOf: []string{"5", "3.1.1"},
			doc: "Version of MQTT. With 3.1.1 there are no properties, and no reason when the broker refuses a message."},
		{name: "envelope", into: &l.envelope, def: "none", oneOf: []string{"none", "json"},
			doc: "json: what is sent is wrapped in a JSON object with its identity, and such an object that comes in is opened: for clouds that take no user properties."},
		{name: "catch_up", into: &l.catchUp, doc: "How a backlog is sent."},
		{name: "send", into: &l.send, doc: "What leaves. Rules must let link:NAME subscribe to it, too."},
		{name: "receive", into: &l.receive, doc: "What comes in. Rules must let link:NAME publish it, too."},
	}
}

type fileRenew struct {
	block
	part    number
	est     fileEST
	command list[text]
}

func (r *fileRenew) keys() []key {
	return []key{
		{name: "at", into: &r.part, doc: "Part of its life after which it is renewed, 0.1 to 0.95. Default: 0.66."},
		{name: "est", into: &r.est, doc: "By a server that speaks EST (RFC 7030)."},
		{name: "command", into: &r.command, single: true,
			doc: "By a program, with its arguments: it finds a request in `$HEADGATE_REQUEST` and writes the certificate with its chain to `$HEADGATE_OUTPUT`, both PEM. Started without a shell, killed after 5 minutes."},
	}
}

type fileEST struct {
	block
	url         text
	ca          filePath
	credentials filePath
}

func (e *fileEST) keys() []key {
	return []key{
		{name: "url", into: &e.url, doc: "Required. `https://host:port`, with `/.well-known/est/LABEL` behind it if the server has several."},
		{name: "ca", into: &e.ca, doc: "Required. PEM file of the authorities that vouch for this server."},
		{name: "credentials", into: &e.credentials, doc: "File of mode 0600 with `USER:PASSWORD` for the first certificate. Default: the first one comes by hand."},
	}
}

type fileCatchUp struct {
	block
	order text
	rate  size
}

func (c *fileCatchUp) keys() []key {
	return []key{
		{name: "order", into: &c.order, def: "in_order", oneOf: []string{"in_order", "live_first"},
			doc: "in_order: oldest first. live_first: new messages go first, and what waited when the link came up is sent beside them, marked with hg-replay: 1; see operations.md."},
		{name: "rate", into: &c.rate, def: "0", min: "0",
			doc: "Bytes of MQTT per second for what waited when the link came up; 0: unlimited. With in_order new messages wait behind it: more than the plant produces, or it never ends."},
	}
}

type fileSend struct {
	block
	topics list[text]
	except list[text]
	qos    whole
	retain text
	strip  text
	prefix text
}

func (s *fileSend) keys() []key {
	return []key{
		{name: "topics", into: &s.topics, required: true, doc: "Filters of local topics. May contain {gateway}."},
		{name: "except", into: &s.except, doc: "Filters of local topics that stay. May contain {gateway}."},
		{name: "qos", into: &s.qos, def: "1", min: "0", max: "2", doc: "QoS towards the cloud. 2: exactly once, as long as the cloud keeps the session."},
		{name: "retain", into: &s.retain, def: "keep", oneOf: []string{"keep", "clear"}, doc: "Whether what is retained here is retained in the cloud, too."},
		{name: "strip", into: &s.strip, doc: "Beginning of the local topic that is cut off. May contain {gateway}."},
		{name: "prefix", into: &s.prefix, doc: "Then put in front of the topic. May contain {gateway}."},
	}
}

type fileReceive struct {
	block
	topics list[text]
	qos    whole
	retain text
	strip  text
	prefix text
}

func (s *fileReceive) keys() []key {
	return []key{
		{name: "topics", into: &s.topics, required: true, doc: "Filters to subscribe to in the cloud. May contain {gateway}."},
		{name: "qos", into: &s.qos, def: "1", min: "0", max: "2", doc: "QoS of the subscription. 2: exactly once, as long as the cloud keeps the session."},
		{name: "retain", into: &s.retain, def: "ignore", oneOf: []string{"ignore", "clear", "keep"},
			doc: "What becomes of messages that the cloud has retained. ignore: those from before the subscription are not taken, as a command of yesterday is none. clear: taken once for a session, and not retained here. keep: retained here as there."},
		{name: "strip", into: &s.strip, doc: "Beginning of the cloud's topic that is cut off. May contain {gateway}."},
		{name: "prefix", into: &s.prefix, doc: "Then put in front of the local topic. May contain {gateway}."},
	}
}

type fileBus struct {
	block
	url               text
	backup            text
	connections       whole
	connectTimeout    span
	responseTimeout   span
	lateWindow        span
	gap               span
	pauseAfterConnect span
	maxDeadTime       percent
	ca                filePath
	certificate       filePath
	key               filePath
	baud              whole
	dataBits          whole
	parity            text
	stopBits          whole
	echo              boolean
	rs485             text
	rs485Before       span
	rs485After        span
}

func (b *fileBus) keys() []key {
	return []key{
		{name: "url", into: &b.url, required: true,
			doc: "`tcp://host`, port 502; `tls://host`, port 802; `udp://host`, port 502; `rtu:///dev/serial/by-id/NAME` or `ascii:///…` for a serial port; `rtu+tcp://host:port` or `ascii+tcp://…` for a serial line behind a converter."},
		{name: "backup", into: &b.backup, doc: "URL of the same kind, tried when the first cannot be reached or does not answer."},
		{name: "connections", into: &b.connections, min: "1", max: "16", doc: "Requests under way at once, each on a connection of its own. Default: 1, all that most devices can take."},
		{name: "connect_timeout", into: &b.connectTimeout, min: "10ms", max: "60s", doc: "How long a connection may take, for each address. Default: 3s."},
		{name: "response_timeout", into: &b.responseTimeout, min: "10ms", max: "60s",
			doc: "How long a device may take to answer, without the time on a serial line. Default: 1s, and 500ms for serial ports."},
		{name: "late_window", into: &b.lateWindow, min: "1ms", max: "60s",
			doc: "Serial lines: how long after the timeout an answer may still come. So long the unit is not asked again, since a late answer looks like the next one. Default: response_timeout."},
		{name: "gap", into: &b.gap, max: "60s", doc: "Least pause between an answer and the next request. Default: 0."},
		{name: "pause_after_connect", into: &b.pauseAfterConnect, max: "60s", doc: "Pause for devices that drop what comes too early. Default: 0."},
		{name: "max_dead_time", into: &b.maxDeadTime, min: "1%", max: "100%",
			doc: "Share of the bus's time for units that do not answer, while others do. Default: 10%."},
		{name: "ca", into: &b.ca, doc: "With tls://: PEM file of the authorities that vouch for the device."},
		{name: "certificate", into: &b.certificate, doc: "With tls://: PEM file of the certificate chain the gateway shows."},
		{name: "key", into: &b.key, doc: "With tls://: PEM file of its private key."},
		{name: "baud", into: &b.baud, min: "300", max: "921600", doc: "Serial lines: speed. Default: 19200."},
		{name: "data_bits", into: &b.dataBits, min: "5", max: "8", doc: "Serial lines. Default: 8."},
		{name: "parity", into: &b.parity, oneOf: []string{"N", "E", "O"}, doc: "Serial lines: none, even or odd. Default: E, as the standard asks for."},
		{name: "stop_bits", into: &b.stopBits, min: "1", max: "2", doc: "Serial lines. Default: 1, and 2 without parity."},
		{name: "echo", into: &b.echo, doc: "Serial lines: the port hears what it sends, as two-wire adapters may; it is then cut off, and missed if it is not there. Default: false."},
		{name: "rs485", into: &b.rs485, oneOf: []string{"off", "high", "low"},
			doc: "Serial ports whose sender the kernel switches: RTS while sending. off: the adapter switches by itself, as most USB ones do. Default: off."},
		{name: "rs485_before", into: &b.rs485Before, max: "100ms", doc: "From RTS to the first bit, in whole milliseconds. Default: 0."},
		{name: "rs485_after", into: &b.rs485After, max: "100ms", doc: "From the last bit to RTS, in whole milliseconds. Default: 0."},
	}
}

type fileDevice struct {
	block
	id           label
	adapter      text
	bus          text
	unit         whole
	order        text
	addressBase  whole
	maxRegisters whole
	maxGap       whole
	forceFC15    boolean
	forceFC16    boolean
	holes        list[fileHole]
	retries      whole
	int64As      text
	profile      label
	writes       text
	report       fileReport
	lazyErrors   whole
	publish      text
	payload      text
	labels       dict[label]
	groups       dict[fileGroup]
	tags         dict[fileTag]
	settings     free
}

func (d *fileDevice) keys() []key {
	all := []key{
		{name: "id", into: &d.id, required: true, doc: "Its name, a level of its topics; in rules it is device:ID."},
		{name: "adapter", into: &d.adapter, required: true, doc: "modbus is built in; any other name is a plugin."},
		{name: "bus", into: &d.bus, doc: "Modbus: the bus it is on, one of buses. Required."},
		{name: "unit", into: &d.unit, min: "0", max: "247", doc: "Modbus: its unit. Required."},
		{name: "order", into: &d.order, doc: "Modbus: the order of the bytes of tags that give none. Default: ABCD."},
		{name: "address_base", into: &d.addressBase, min: "0", max: "1",
			doc: "Modbus: from what addresses like holding:10 are counted; 40011 always counts from 1. Default: 0, and to be written if both forms are used."},
		{name: "max_registers", into: &d.maxRegisters, min: "1", max: "125", doc: "Modbus: the most it gives at once; 16 bits count as a register. Default: 125."},
		{name: "max_gap", into: &d.maxGap, min: "0", max: "125", doc: "Modbus: how many registers that nobody wants are read along between two that are wanted. Default: 16 on serial lines, 50 with tcp, tls and udp."},
		{name: "force_fc15", into: &d.forceFC15, doc: "Modbus: it knows no function 5: coils are written with 15. Default: false."},
		{name: "force_fc16", into: &d.forceFC16, doc: "Modbus: it knows no function 6: single registers are written with 16. Default: false."},
		{name: "holes", into: &d.holes, doc: "Modbus: addresses that it does not have, so that no request reads across them. Those that are not given here are found by what it refuses, and listed by `headgate status` for you to copy."},
		{name: "retries", into: &d.retries, min: "0", max: "5", doc: "Modbus: how often a request is repeated that got no answer, or a garbled one, when the unit answered before. Default: 1."},
		{name: "int64_as", into: &d.int64As, oneOf: []string{"number", "string"},
			doc: "Modbus: how integers beyond 2^53 are sent; string for receivers that would round them. Default: number."},
		{name: "profile", into: &d.profile, doc: "Modbus: a file NAME.yaml that has groups and tags for devices of one model. What is written here goes before it, key by key. See [modbus.md](modbus.md#profiles)."},
		{name: "writes", into: &d.writes, def: "deny", oneOf: []string{"deny", "allow"}, doc: "Whether commands may write to it: to its tags with access: rw, or, of a plugin, to those that the plugin lets be written."},
		{name: "lazy_errors", into: &d.lazyErrors, min: "0", max: "100",
			doc: "So many polls may fail in a row before a value that was good is bad. Until then the last one stays, as uncertain.stale. Default: 0."},
		{name: "publish", into: &d.publish, oneOf: []string{"per_group", "per_tag", "uns"}, doc: "See telemetry. Default: telemetry's."},
		{name: "payload", into: &d.payload, oneOf: []string{"json", "cbor"}, doc: "See telemetry. Default: telemetry's."},
		{name: "labels", into: &d.labels, doc: "Where it stands, for topics of the plant: `{area: packing, line: l3}`. They come before telemetry's."},
		{name: "groups", into: &d.groups, doc: "What is read together, by name. The name is a level of the topic."},
		{name: "tags", into: &d.tags, doc: "Modbus: its values, by name. Required."},
		{name: "settings", into: &d.settings, doc: "Plugins: settings handed over as JSON. No secrets: the file is not a safe place."},
	}
	return append(all, d.report.keys()...)
}

type fileHole struct {
	block
	table text
	from  whole
	to    whole
}

func (h *fileHole) keys() []key {
	return []key{
		{name: "table", into: &h.table, required: true, oneOf: []string{"holding", "input", "coil", "discrete"}, doc: "Its table."},
		{name: "from", into: &h.from, required: true, min: "0", max: "65536", doc: "The first address, counted like holding:10 of the same device."},
		{name: "to", into: &h.to, required: true, min: "0", max: "65536", doc: "The last."},
	}
}

type fileGroup struct {
	block
	interval span
	align    text
	phase    span
	stale    span
}

func (g *fileGroup) keys() []key {
	return []key{
		{name: "interval", into: &g.interval, required: true, min: "10ms", max: "30d", doc: "Time from one reading to the next, 1s for example."},
		{name: "align", into: &g.align, oneOf: []string{"start", "wall"},
			doc: "Modbus: from when the intervals count. start: from when the gateway started, whatever is done to its clock. wall: from midnight UTC, at the full quarter of an hour with 15m. Default: start."},
		{name: "stale_after", into: &g.stale, max: "365d",
			doc: "After so long without being read, or with a time of its own that is so old, a value is uncertain.stale. 0: never. Default: three intervals, and at least 3s."},
		{name: "phase", into: &g.phase, max: "30d", doc: "Modbus: how long after that. Default: 0 with align: wall, otherwise the gateway spreads the groups of a bus so that not all are due at once."},
	}
}
