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
	clientID      text
	keepalive     span
	sessionExpiry span
	catchUp       fileCatchUp
	send          list[fileSend]
	receive       list[fileReceive]
}

func (l *fileLink) keys() []key {
	return []key{
		{name: "name", into: &l.name, required: true, doc: "Its name; in rules it is link:NAME."},
		{name: "servers", into: &l.servers, required: true,
			doc: "Brokers in order of preference, `mqtts://host:8883`. There is no way to send readings in the clear."},
		{name: "ca", into: &l.ca, required: true, doc: "PEM file of the authorities that vouch for the brokers."},
		{name: "certificate", into: &l.certificate, required: true, doc: "PEM file of the certificate chain the gateway shows."},
		{name: "key", into: &l.key, required: true, doc: "PEM file of its private key."},
		{name: "crl", into: &l.crl, doc: "PEM or DER file with revocation lists of these authorities: servers with a revoked certificate are refused."},
		{name: "server_name", into: &l.serverName,
			doc: "Name that is asked for (SNI) and that the brokers' certificates must have. Default: the host in servers."},
		{name: "alpn", into: &l.alpn, single: true, doc: "Protocols offered in TLS, for clouds that tell MQTT from HTTPS by it: x-amzn-mqtt-ca or mqtt, for example."},
		{name: "client_id", into: &l.clientID, def: "{gateway}", doc: "MQTT client id."},
		{name: "keepalive", into: &l.keepalive, def: "30s", min: "5s", max: "65535s", doc: "How soon a dead connection is noticed, in whole seconds."},
		{name: "session_expiry", into: &l.sessionExpiry, def: "1d", min: "0", max: "3650d",
			doc: "How long the cloud broker keeps the session without a connection, in whole seconds."},
		{name: "catch_up", into: &l.catchUp, doc: "How a backlog is sent."},
		{name: "send", into: &l.send, doc: "What leaves. Rules must let link:NAME subscribe to it, too."},
		{name: "receive", into: &l.receive, doc: "What comes in. Rules must let link:NAME publish it, too."},
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
			doc: "in_order: oldest first. live_first: new messages overtake the backlog, which is marked as replayed."},
		{name: "rate", into: &c.rate, def: "0", min: "0", doc: "Bytes per second for the backlog; 0: unlimited."},
	}
}

type fileSend struct {
	block
	topics list[text]
	except list[text]
	qos    whole
	strip  text
	prefix text
}

func (s *fileSend) keys() []key {
	return []key{
		{name: "topics", into: &s.topics, required: true, doc: "Filters of local topics. May contain {gateway}."},
		{name: "except", into: &s.except, doc: "Filters of local topics that stay. May contain {gateway}."},
		{name: "qos", into: &s.qos, def: "1", min: "0", max: "2", doc: "QoS towards the cloud."},
		{name: "strip", into: &s.strip, doc: "Beginning of the local topic that is cut off. May contain {gateway}."},
		{name: "prefix", into: &s.prefix, doc: "Then put in front of the topic. May contain {gateway}."},
	}
}

type fileReceive struct {
	block
	topics list[text]
	qos    whole
	strip  text
	prefix text
}

func (s *fileReceive) keys() []key {
	return []key{
		{name: "topics", into: &s.topics, required: true, doc: "Filters to subscribe to in the cloud. May contain {gateway}."},
		{name: "qos", into: &s.qos, def: "1", min: "0", max: "2", doc: "QoS of the subscription."},
		{name: "strip", into: &s.strip, doc: "Beginning of the cloud's topic that is cut off. May contain {gateway}."},
		{name: "prefix", into: &s.prefix, doc: "Then put in front of the local topic. May contain {gateway}."},
	}
}

type fileBus struct {
	block
	url             text
	responseTimeout span
}

func (b *fileBus) keys() []key {
	return []key{
		{name: "url", into: &b.url, required: true, doc: "`tcp://host:port`; without a port 502."},
		{name: "response_timeout", into: &b.responseTimeout, def: "1s", min: "10ms", max: "60s", doc: "How long a device may take to answer."},
	}
}

type fileDevice struct {
	block
	id       label
	adapter  text
	bus      text
	unit     whole
	profile  text
	writes   text
	groups   dict[fileGroup]
	tags     dict[fileTag]
	settings free
}

func (d *fileDevice) keys() []key {
	return []key{
		{name: "id", into: &d.id, required: true, doc: "Its name, a level of its topics; in rules it is device:ID."},
		{name: "adapter", into: &d.adapter, required: true, doc: "modbus is built in; any other name is a plugin."},
		{name: "bus", into: &d.bus, doc: "Modbus: the bus it is on, one of buses. Required."},
		{name: "unit", into: &d.unit, min: "0", max: "247", doc: "Modbus: its unit. Required."},
		{name: "profile", into: &d.profile, doc: "Tags and groups shared by devices of one model."},
		{name: "writes", into: &d.writes, def: "deny", oneOf: []string{"deny", "allow"}, doc: "Whether commands may write to it."},
		{name: "groups", into: &d.groups, doc: "What is read together, by name. The name is a level of the topic."},
		{name: "tags", into: &d.tags, doc: "Modbus: its values, by name. Required."},
		{name: "settings", into: &d.settings, doc: "Plugins: settings handed over as JSON. No secrets: the file is not a safe place."},
	}
}

type fileGroup struct {
	block
	interval span
}

func (g *fileGroup) keys() []key {
	return []key{
		{name: "interval", into: &g.interval, required: true, min: "10ms", max: "30d", doc: "Time from one reading to the next, 1s for example."},
	}
}

type fileTag struct {
	block
	group   text
	address register
	kind    text
	scale   number
	offset  number
	unit    text
	order   text
	access  text
	invalid list[raw]
}

func (t *fileTag) keys() []key {
	return []key{
		{name: "group", into: &t.group, doc: "The group it is read with. Default: the only group."},
		{name: "address", into: &t.address, required: true, doc: "`holding:N` or `input:N`, N counted from 0 as in the protocol."},
		{name: "type", into: &t.kind, required: true, oneOf: tagTypes, doc: "How its registers are read."},
		{name: "scale", into: &t.scale, doc: "The value is raw * scale + offset. Not 0. Default: an integer stays an integer."},
		{name: "offset", into: &t.offset, def: "0", doc: "See scale."},
		{name: "unit", into: &t.unit, doc: "Unit of measure (UCUM), Cel for example; sent as metadata."},
		{name: "order", into: &t.order, def: "ABCD", oneOf: []string{"ABCD", "CDAB", "BADC", "DCBA", "AB", "BA"},
			doc: "Bytes on the wire: ABCD is big-endian, CDAB has its words swapped, BADC its bytes, DCBA both. 16-bit types: AB or BA."},
		{name: "access", into: &t.access, def: "r", oneOf: []string{"r", "rw"}, doc: "Whether it may be written."},
		{name: "invalid", into: &t.invalid, doc: "Raw values by which the device says that it has no value."},
	}
}
