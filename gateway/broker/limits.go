package broker

import "time"

// Limits bound what one client, and all of them together, may cost. A field
// that is zero means its default.
type Limits struct {
	Connections      int           // clients logged in; default 10,000
	ConnectionsPerIP int           // of one address; default 1,000
	PacketSize       int           // bytes of one packet, after login; default 1 MiB
	ReceiveMaximum   int           // QoS 1 and 2 in flight, each way, up to 65,535; default 100
	PublishRate      int           // messages a second of one client; beyond it the client is read more slowly; default unlimited
	TopicLevels      int           // of topics and filters; default 16
	Subscriptions    int           // of one client; default 1,000
	AllSubscriptions int           // of all clients; default 200,000
	SessionExpiry    time.Duration // the longest a session outlives its connection; default 7 days
	SessionQueue     int64         // bytes of log waiting for one session, beyond which its oldest messages are skipped; default 64 MiB
	IdentityQueue    int64         // the same for all sessions of one identity together; default 256 MiB
	KeepAlive        time.Duration // the longest that a client may choose, rounded up to seconds, at most 65,535; default: any, and none
	Sessions         int           // connected or waiting for their client; default 20,000
	SessionsPerUser  int           // of one identity; default 1,000
	Retained         int           // messages, a quarter of them at most of one identity; default 100,000
	RetainedBytes    int64         // of topics, payloads and properties together, and 384 for each; likewise; default 64 MiB

	PreLogin      int           // sockets that have not logged in; default 256
	PreLoginPerIP int           // of one address; default 16
	ConnectSize   int           // bytes of a CONNECT; default 8 KiB
	Handshake     time.Duration // for TLS; default 5 s
	Connect       time.Duration // from accept to a whole CONNECT; default 10 s
	Write         time.Duration // for 64 KiB to leave; default 10 s
	Outbox        int           // bytes that wait for one client's socket; default 256 KiB
	OutboxTotal   int64         // for all sockets together: as it fills, each may have less; default 64 MiB
	Aliases       int           // topic aliases a client may set, and is sent if it can take them; default 16
}

func (l Limits) withDefaults() Limits {
	fill(&l.Connections, 10_000)
	fill(&l.ConnectionsPerIP, 1_000)
	fill(&l.PacketSize, 1<<20)
	fill(&l.ReceiveMaximum, 100)
	l.ReceiveMaximum = min(l.ReceiveMaximum, 65_535)
	fill(&l.TopicLevels, 16)
	fill(&l.Subscriptions, 1_000)
	fill(&l.AllSubscriptions, 200_000)
	fill(&l.SessionExpiry, 7*24*time.Hour)
	l.KeepAlive = min((l.KeepAlive + time.Second - 1).Truncate(time.Second), 65_535*time.Second)
	fill(&l.Sessions, 20_000)
	fill(&l.SessionsPerUser, 1_000)
	fill(&l.Retained, 100_000)
	fill(&l.RetainedBytes, 64<<20)
	fill(&l.PreLogin, 256)
	fill(&l.PreLoginPerIP, 16)
	fill(&l.ConnectSize, 8<<10)
	fill(&l.Handshake, 5*time.Second)
	fill(&l.Connect, 10*time.Second)
	fill(&l.Write, 10*time.Second)
	fill(&l.Outbox, 256<<10)
	fill(&l.OutboxTotal, 64<<20)
	fill(&l.SessionQueue, 64<<20)
	fill(&l.IdentityQueue, 256<<20)
	fill(&l.Aliases, 16)
	return l
}

func fill[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// MaxTopic is how many bytes a topic or a filter may have.
const MaxTopic = 4096

const (
	maxClientID = 128             // bytes
	maxFilters  = 1000            // of one SUBSCRIBE, unless a client may have more subscriptions
	maxReceived = 4096            // QoS 2 messages of one session between PUBLISH and PUBREL, or limits.ReceiveMaximum if that is more
	maxReplay   = 1000            // messages waiting for a session, from which it gets no more retained ones
	lingerTime  = time.Second     // a closing connection's last words
	stopTime    = 2 * time.Second // from the end of Run's context to the last socket closed
)
