package broker

import (
	"sync/atomic"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A limit is one of Limits, or of the constants beside them, that somebody ran
// into.
type limit int

const (
	limitNone limit = iota
	limitConnections
	limitConnectionsPerIP
	limitPreLogin
	limitPreLoginPerIP
	limitHandshake
	limitConnect
	limitWrite
	limitConnectSize
	limitPacketSize
	limitClientID
	limitReceiveMaximum
	limitPublishRate
	limitTopicLevels
	limitTopicAliases
	limitUserProperties
	limitSessions
	limitSessionsPerIdentity
	limitSubscriptions
	limitSubscriptionsTotal
	limitSubscribeRate
	limitSessionQueue
	limitIdentityQueue
	limitRetained
	limitRetainedPerIdentity
	limitOutbox
	limitOutboxTotal
	limitCount
)

// limitNames are the keys of Stats.LimitHits.
var limitNames = [limitCount]string{
	limitConnections: "connections", limitConnectionsPerIP: "connections_per_ip",
	limitPreLogin: "pre_login", limitPreLoginPerIP: "pre_login_per_ip",
	limitHandshake: "handshake_time", limitConnect: "connect_time", limitWrite: "write_time",
	limitConnectSize: "connect_size", limitPacketSize: "packet_size", limitClientID: "client_id",
	limitReceiveMaximum: "receive_maximum", limitPublishRate: "publish_rate",
	limitTopicLevels: "topic_levels", limitTopicAliases: "topic_aliases", limitUserProperties: "user_properties",
	limitSessions: "sessions", limitSessionsPerIdentity: "sessions_per_identity",
	limitSubscriptions: "subscriptions", limitSubscriptionsTotal: "subscriptions_total", limitSubscribeRate: "subscribe_rate", limitRetained: "retained",
	limitRetainedPerIdentity: "retained_per_identity",
	limitSessionQueue:        "session_queue", limitIdentityQueue: "identity_queue",
	limitOutbox: "outbox", limitOutboxTotal: "outbox_total",
}

// hits count how often each limit was what decided.
type hits [limitCount]atomic.Uint64

func (h *hits) add(l limit) { h[l].Add(1) }

func (h *hits) snapshot() map[string]uint64 {
	all := make(map[string]uint64, limitCount)
	for l := limitNone + 1; l < limitCount; l++ {
		all[limitNames[l]] = h[l].Load()
	}
	return all
}

// broken counts a protocol violation that is one of a limit; size is the one
// for packets.
func (h *hits) broken(code mqtt.ReasonCode, size limit) {
	switch code {
	case mqtt.PacketTooLarge:
		h.add(size)
	case mqtt.ReceiveMaximumExceeded:
		h.add(limitReceiveMaximum)
	case mqtt.TopicAliasInvalid:
		h.add(limitTopicAliases)
	case mqtt.QuotaExceeded:
		h.add(limitUserProperties)
	}
}
