package broker

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// traffic is what passed a connection since it began: PUBLISH packets, and
// bytes of MQTT, without TLS and WebSocket frames.
type traffic struct {
	received, sent, dropped atomic.Uint64
	bytesIn, bytesOut       atomic.Uint64
}

// counted counts the bytes of a connection, with one addition a read or write
// of the socket.
type counted struct {
	net.Conn
	of, all *traffic // the connection's; everybody's
}

func (n *counted) Read(b []byte) (int, error) {
	read, err := n.Conn.Read(b)
	n.of.bytesIn.Add(uint64(read))
	n.all.bytesIn.Add(uint64(read))
	return read, err
}

func (n *counted) Write(b []byte) (int, error) {
	written, err := n.Conn.Write(b)
	n.of.bytesOut.Add(uint64(written))
	n.all.bytesOut.Add(uint64(written))
	return written, err
}

// sent counts a PUBLISH that went into the client's outbox.
func (c *conn) sent() {
	c.b.stats.delivered.Add(1)
	c.traffic.sent.Add(1)
}

// A Client is one session and, while it is connected, its connection.
type Client struct {
	ID, Identity  string
	Connected     bool
	Subscriptions int
	InFlight      int    // QoS 1 and 2 sent and not acknowledged
	Waiting       uint64 // QoS 1 and 2 not acknowledged, those in flight among them

	// While it is connected, and since.
	Since             time.Time
	Remote            netip.Addr
	Listener          string // its address, as configured
	MQTT              string // "3.1.1" or "5"
	Received, Sent    uint64 // PUBLISH packets
	BytesIn, BytesOut uint64
	Dropped           uint64 // QoS 0 for which there was no room, and what is larger than the client takes
}

// Clients lists all sessions, by client id.
func (b *Broker) Clients() []Client {
	waiting := map[string]uint64{}
	for _, r := range b.queue.Stats().Readers {
		waiting[r.Name] = r.Waiting
	}
	b.mu.Lock()
	sessions := make([]*session, 0, len(b.sessions))
	for _, s := range b.sessions {
		sessions = append(sessions, s)
	}
	b.mu.Unlock()
	all := make([]Client, len(sessions))
	for i, s := range sessions {
		all[i] = s.client()
		all[i].Waiting = waiting[s.readerName()]
	}
	slices.SortFunc(all, func(x, y Client) int { return cmp.Compare(x.ID, y.ID) })
	return all
}

func (s *session) client() Client {
	cl := Client{ID: s.clientID, Identity: s.owner}
	s.mu.Lock()
	cl.Subscriptions, cl.InFlight = len(s.subs), s.flight.open
	s.mu.Unlock()
	c := s.conn.Load()
	if c == nil {
		return cl
	}
	t := &c.traffic
	cl.Connected, cl.Since, cl.Remote, cl.Listener, cl.MQTT = true, c.accepted, c.remote, c.listener.Address, versionName(c.version)
	cl.Received, cl.Sent, cl.Dropped = t.received.Load(), t.sent.Load(), t.dropped.Load()
	cl.BytesIn, cl.BytesOut = t.bytesIn.Load(), t.bytesOut.Load()
	return cl
}

// A loginResult is how a login ended, for the metrics.
type loginResult int

const (
	loginOK loginResult = iota
	loginNoCredentials
	loginBadCredentials
	loginLocked
	loginBusy
	loginCertificate
	loginOther
	loginResults
)

func (r loginResult) String() string {
	return [...]string{"ok", "no_credentials", "bad_credentials", "locked", "busy", "certificate", "other"}[r]
}
