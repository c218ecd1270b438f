package config

// The file's shape, part one: what concerns the gateway itself, its local
// clients and its queue. The order of keys is that of the reference page.

type file struct {
	block
	version    versionKey
	gateway    fileGateway
	broker     fileBroker
	access     fileAccess
	queue      fileQueue
	northbound list[fileLink]
	buses      dict[fileBus]
	devices    list[fileDevice]
	telemetry  fileTelemetry
	admin      fileAdmin
}

func (f *file) keys() []key {
	return []key{
		{name: "version", into: &f.version, required: true, min: "1", max: "1",
			doc: "Version of the format, 1. Files in conf.d may leave it out."},
		{name: "gateway", into: &f.gateway, doc: "The gateway itself."},
		{name: "broker", into: &f.broker, doc: "The local MQTT broker."},
		{name: "access", into: &f.access, doc: "Who may publish and subscribe to what. What no rule allows is refused."},
		{name: "queue", into: &f.queue, doc: "The queue on disk, in front of every link."},
		{name: "northbound", into: &f.northbound, doc: "Links to cloud brokers."},
		{name: "buses", into: &f.buses, doc: "Connections that field devices share, by name."},
		{name: "devices", into: &f.devices, doc: "Field devices."},
		{name: "telemetry", into: &f.telemetry, doc: "How what field devices say is published."},
		{name: "admin", into: &f.admin, doc: "Health and metrics."},
	}
}

type fileGateway struct {
	block
	id       label
	data     filePath
	plugins  filePath
	profiles filePath
}

const shippedProfiles = "/usr/share/headgate/profiles"

func (g *fileGateway) keys() []key {
	return []key{
		{name: "id", into: &g.id, doc: "Name of this gateway: stands for {gateway}, and is part of every topic it publishes. " +
			"Default: the host's name, other characters replaced by hyphens."},
		{name: "data", into: &g.data, def: "/var/lib/headgate", doc: "Folder of the queue, sessions, keys and users."},
		{name: "plugins", into: &g.plugins, def: "/usr/lib/headgate/plugins", doc: "Folder of plugin executables."},
		{name: "profiles", into: &g.profiles, def: shippedProfiles, doc: "Folder of the profiles that come with the program. A profile in profiles.d beside this file is taken first."},
	}
}

type fileBroker struct {
	block
	listeners list[fileListener]
	limits    fileLimits
	lockout   fileLockout
}

func (b *fileBroker) keys() []key {
	return []key{
		{name: "listeners", into: &b.listeners, doc: "Where local clients connect. Default: nowhere."},
		{name: "limits", into: &b.limits, doc: "Bounds on what clients may use."},
		{name: "lockout", into: &b.lockout, doc: "What happens after wrong passwords."},
	}
}

type fileListener struct {
	block
	address     text
	plaintext   boolean
	certificate filePath
	key         filePath
	clientCA    filePath
	clientCRL   filePath
	clientDeny  filePath
	clientCert  text
	anonymousAs text
	webSocket   boolean
	origins     list[text]
}

func (l *fileListener) keys() []key {
	return []key{
		{name: "address", into: &l.address, required: true,
			doc: "IP address and port to listen on, `0.0.0.0:8883` for example; an empty address or `[::]` means all."},
		{name: "plaintext", into: &l.plaintext, def: "false",
			doc: "No TLS. On loopback addresses only, and announced at every start."},
		{name: "certificate", into: &l.certificate, doc: "PEM file of the server's certificate chain. Required with TLS."},
		{name: "key", into: &l.key, doc: "PEM file of its private key. Required with TLS."},
		{name: "client_ca", into: &l.clientCA, doc: "PEM file of the authorities that vouch for clients."},
		{name: "client_crl", into: &l.clientCRL, doc: "PEM or DER file of the authorities' lists of revoked certificates, looked at when it changes; " +
			"`headgate cert revoke` adds to that of the local CA. A client whose authority has no list here is refused."},
		{name: "client_denylist", into: &l.clientDeny, doc: "File of clients' certificates to refuse, one a line: its serial number, " +
			"or the SHA-256 of its public key, in hexadecimal. `#` begins a comment."},
		{name: "client_certificate", into: &l.clientCert, oneOf: []string{"off", "optional", "required"},
			doc: "Whether clients are asked for a certificate. Default: optional with client_ca, otherwise off."},
		{name: "anonymous_as", into: &l.anonymousAs,
			doc: "Identity of clients that bring no credentials. On plaintext loopback listeners only; empty: they are refused."},
		{name: "websocket", into: &l.webSocket, def: "false",
			doc: "MQTT over WebSocket at the path `/mqtt`, and nothing else on this listener."},
		{name: "origins", into: &l.origins,
			doc: "Web pages that may connect over WebSocket, `https://hmi.example.com` for example. Default: only pages of the same host and port."},
	}
}

type fileLimits struct {
	block
	connections      whole
	connectionsPerIP whole
	packetSize       size
	receiveMaximum   whole
	publishRate      whole
	topicLevels      whole
	subscriptions    whole
	allSubscriptions whole
	sessions         whole
	sessionsPerUser  whole
	sessionExpiry    span
	keepAlive        span
	sessionQueue     size
	identityQueue    size
	retained         whole
	retainedBytes    size
	outboxTotal      size
}

func (l *fileLimits) keys() []key {
	return []key{
		{name: "connections", into: &l.connections, def: "10000", min: "1", max: "1000000", doc: "Open connections."},
		{name: "connections_per_ip", into: &l.connectionsPerIP, def: "1000", min: "1", max: "1000000",
			doc: "Open connections from one address."},
		{name: "packet_size", into: &l.packetSize, def: "1MiB", min: "1KiB", max: "256MiB", doc: "Bytes of one MQTT packet."},
		{name: "receive_maximum", into: &l.receiveMaximum, def: "100", min: "1", max: "65535",
			doc: "Messages with QoS 1 or 2 in flight from one client."},
		{name: "publish_rate", into: &l.publishRate, def: "0", min: "0", max: "1000000",
			doc: "Messages per second from one client, which may save up those of one second; beyond it the client is read more slowly. 0: unlimited."},
		{name: "topic_levels", into: &l.topicLevels, def: "16", min: "1", max: "128", doc: "Levels of a topic or filter."},
		{name: "subscriptions", into: &l.subscriptions, def: "1000", min: "1", max: "1000000", doc: "Subscriptions of one client."},
		{name: "subscriptions_total", into: &l.allSubscriptions, def: "200000", min: "1", max: "10000000", doc: "Subscriptions of all clients."},
		{name: "sessions", into: &l.sessions, def: "20000", min: "1", max: "10000000", doc: "Sessions, connected or waiting for their client."},
		{name: "sessions_per_identity", into: &l.sessionsPerUser, def: "1000", min: "1", max: "10000000",
			doc: "Sessions of one identity, whatever client ids it makes up."},
		{name: "session_expiry", into: &l.sessionExpiry, def: "7d", min: "1s", max: "3650d",
			doc: "How long a session outlives its connection, at most."},
		{name: "keep_alive", into: &l.keepAlive, def: "0", min: "0", max: "65535s",
			doc: "Longest keep alive of a client; 0: any, and none. Beyond it, MQTT 5 clients are told to use this one and others are refused."},
		{name: "session_queue", into: &l.sessionQueue, def: "64MiB", min: "64KiB",
			doc: "Bytes of log waiting for one client. Beyond it its oldest messages are skipped, which is counted, logged and announced; a client that is connected and too slow is closed first."},
		{name: "identity_queue", into: &l.identityQueue, def: "256MiB", min: "64KiB",
			doc: "Bytes of log waiting for all clients of one identity together; a message counts for each client that it waits for. Beyond it those for which most waits lose their oldest messages, as with session_queue."},
		{name: "retained", into: &l.retained, def: "100000", min: "1", max: "10000000", doc: "Retained messages. One identity may have a quarter of them."},
		{name: "retained_bytes", into: &l.retainedBytes, def: "64MiB", min: "64KiB", max: "64GiB",
			doc: "Memory for retained messages: topics, payloads and properties, and 384 bytes for each. One identity may use a quarter of it."},
		{name: "outbox_total", into: &l.outboxTotal, def: "64MiB", min: "1MiB", max: "64GiB",
			doc: "Memory for what waits for clients' sockets. As it fills, slow clients are the first to lose QoS 0 messages, which is counted; the rest waits on disk."},
	}
}

type fileLockout struct {
	block
	failures whole
	window   span
	duration span
}

func (l *fileLockout) keys() []key {
	return []key{
		{name: "failures", into: &l.failures, def: "5", min: "1", max: "1000", doc: "Wrong passwords that lock out."},
		{name: "window", into: &l.window, def: "60s", min: "1s", max: "1d", doc: "The time in which they count."},
		{name: "duration", into: &l.duration, def: "5m", min: "1s", max: "30d", doc: "How long the lockout lasts."},
	}
}

type fileAccess struct {
	block
	certificateName text
	certificates    list[fileCertificate]
	rules           list[fileRule]
}

func (a *fileAccess) keys() []key {
	return []key{
		{name: "certificate_name", into: &a.certificateName, def: "san", oneOf: []string{"san", "cn"},
			doc: "Where a certificate carries the identity: in its alternative names, or in its common name."},
		{name: "certificates", into: &a.certificates, doc: "Roles of clients that prove themselves with a certificate."},
		{name: "rules", into: &a.rules, doc: "Rules in order: the first that matches decides."},
	}
}

type fileCertificate struct {
	block
	match text
	roles list[label]
}

func (c *fileCertificate) keys() []key {
	return []key{
		{name: "match", into: &c.match, required: true, doc: "Identity in the certificate; `*` stands for any characters."},
		{name: "roles", into: &c.roles, required: true, doc: "The roles it has."},
	}
}

type fileRule struct {
	block
	allow  list[text]
	deny   list[text]
	who    text
	topics list[text]
}

func (r *fileRule) keys() []key {
	actions := []string{"publish", "subscribe"}
	return []key{
		{name: "allow", into: &r.allow, single: true, oneOf: actions,
			doc: "What is allowed. A rule has either allow or deny. A will counts as publish, a shared subscription as subscribe."},
		{name: "deny", into: &r.deny, single: true, oneOf: actions, doc: "What is refused."},
		{name: "who", into: &r.who, required: true, doc: "An identity, `@role`, `link:NAME`, `link:*`, `device:NAME`, `device:*`, or `*` for everybody."},
		{name: "topics", into: &r.topics, required: true,
			doc: "Topic filters. {id} stands for the client's identity, {gateway} for this gateway's id."},
	}
}

type fileQueue struct {
	block
	maxSize      size
	minFree      size
	commitLinger span
	encryption   boolean
	keyFile      filePath
	lanes        list[fileLane]
}

func (q *fileQueue) keys() []key {
	return []key{
		{name: "max_size", into: &q.maxSize, def: "2GiB", min: "128MiB", doc: "Disk the queue may use."},
		{name: "min_free", into: &q.minFree, def: "256MiB", min: "0", doc: "Disk to leave free for others. When it is reached the queue is full."},
		{name: "commit_linger", into: &q.commitLinger, def: "0s", max: "1s", doc: "How long a message with QoS 1 or 2 waits for others before it is written and acknowledged, " +
			"so that a flash disk is written less. 0s: not at all; what arrives while one commit is written is the next."},
		{name: "encryption", into: &q.encryption, def: "false", doc: "Encrypt what is stored, with AES-256-GCM. It can be switched on and off: what is stored already stays as it is until it is delivered."},
		{name: "key_file", into: &q.keyFile,
			doc: "The key that encryption starts from: one line, 32 bytes in base64 or hexadecimal, readable for the gateway alone. Made if it is not there. " +
				"A systemd credential named headgate-queue-key comes before it. Default: queue.key in `gateway.data`."},
		{name: "lanes", into: &q.lanes, doc: "Classes of messages; the first with a filter that matches takes a message, the last must take the rest. " +
			"Default: one lane for everything."},
	}
}

type fileLane struct {
	block
	name     label
	topics   list[text]
	priority whole
	maxSize  size
	maxAge   span
	whenFull text
}

func (l *fileLane) keys() []key {
	return []key{
		{name: "name", into: &l.name, required: true, doc: "Its name."},
		{name: "topics", into: &l.topics, required: true, doc: "Topic filters."},
		{name: "priority", into: &l.priority, def: "0", min: "0", max: "9", doc: "Lanes of higher priority are sent first, lanes of the same in the order in which they stand here; of eight batches one is left to the others, so that nobody waits for ever. When the queue as a whole is full, lanes of lower priority give way first."},
		{name: "max_size", into: &l.maxSize, min: "1MiB", doc: "Disk this lane may use, of each link. Default: max_size of the queue."},
		{name: "max_age", into: &l.maxAge, min: "1s", doc: "Older messages are dropped and counted, except those that were sent and not yet acknowledged. Default: kept."},
		{name: "when_full", into: &l.whenFull, def: "refuse", oneOf: []string{"refuse", "drop_oldest"},
			doc: "refuse: publishers are told that the queue is full, and nothing is lost that was acknowledged. drop_oldest: the oldest go, counted and announced, also when the queue as a whole is full."},
	}
}

type fileAdmin struct {
	block
	address text
}

func (a *fileAdmin) keys() []key {
	return []key{
		{name: "address", into: &a.address, def: "127.0.0.1:9883",
			doc: "Loopback IP address and port of health and metrics. Empty: on the unix socket only."},
	}
}
