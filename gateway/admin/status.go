package admin

import "time"

// Status is the one screen. Its JSON names are stable.
type Status struct {
	Gateway  GatewayStatus     `json:"gateway"`
	Queue    QueueStatus       `json:"queue"`
	Links    []LinkStatus      `json:"links"`
	Devices  []DeviceStatus    `json:"devices"`
	Buses    []BusStatus       `json:"buses"`
	Commands map[string]uint64 `json:"commands"` // to devices, by how they ended
	Clients  ClientStatus      `json:"clients"`

	Certificates []CertificateStatus `json:"certificates"`
}

// CertificateStatus is one certificate that the gateway cannot do without.
type CertificateStatus struct {
	Use      string    `json:"use"`  // link, link_ca, listener, client_ca or local_ca
	Name     string    `json:"name"` // of the link, or the listener's address
	File     string    `json:"file"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	Alarm    string    `json:"alarm,omitempty"`   // ends within 30, 14, 7 or 1 days, or has ended
	Cure     string    `json:"cure,omitempty"`    // with an alarm
	Renewal  string    `json:"renewal,omitempty"` // when the next is, or why the last failed; of a link that renews
}

// GatewayStatus says who and since when.
type GatewayStatus struct {
	ID      string    `json:"id"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Epoch   uint64    `json:"epoch"` // of the queue, the middle of hg-id
}

// QueueStatus is what waits on disk.
type QueueStatus struct {
	Last     uint64         `json:"last"` // newest sequence
	Bytes    int64          `json:"bytes"`
	MaxBytes int64          `json:"max_bytes"`
	Segments int            `json:"segments"`
	Refused  uint64         `json:"refused"`        // messages refused because it was full
	Full     string         `json:"full,omitempty"` // why nothing is taken now
	Written  uint64         `json:"written_bytes"`  // handed to the disk since the start
	Payload  uint64         `json:"payload_bytes"`  // of the messages among them
	Damaged  uint64         `json:"damaged"`        // times a damaged message was left out
	Readers  []ReaderStatus `json:"readers"`
	Lanes    []LaneStatus   `json:"lanes"`   // of the links
	Lost     []LostStatus   `json:"lost"`    // acknowledged and not to be delivered
	Corrupt  int            `json:"corrupt"` // files set aside because they are damaged

	Compactions    uint64 `json:"compactions"`     // segments rewritten because most of each was dead, since start
	CompactedBytes uint64 `json:"compacted_bytes"` // written for it
}

// LaneStatus is what waits in a lane of a link.
type LaneStatus struct {
	Link    string    `json:"link"`
	Lane    string    `json:"lane"`
	Waiting uint64    `json:"waiting"`
	Bytes   int64     `json:"bytes"`           // of disk
	Oldest  time.Time `json:"oldest,omitzero"` // when it was accepted
}

// LostStatus is messages lost since the start. Kind is that of the readers they
// were for: link, quarantine, session, or any where damage does not tell.
type LostStatus struct {
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// LostMessages is how many were lost since the start.
func (q *QueueStatus) LostMessages() (n uint64) {
	for _, l := range q.Lost {
		n += l.Count
	}
	return n
}

// ReaderStatus is what waits for one link or session.
type ReaderStatus struct {
	Name    string `json:"name"`
	Acked   uint64 `json:"acked"`
	Waiting uint64 `json:"waiting"`
}

// LinkStatus is one cloud.
type LinkStatus struct {
	Name      string    `json:"name"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Server    string    `json:"server"`
	Waiting   uint64    `json:"waiting"`
	Delivered uint64    `json:"delivered"` // since start
	Forbidden uint64    `json:"forbidden"` // dropped because no rule lets them leave any more, since start
	Expired   uint64    `json:"expired"`   // dropped by their age, since start
	Refused   uint64    `json:"refused"`   // set aside because the cloud will not take them, since start
	Received  uint64    `json:"received"`  // from the cloud, since start
	Unwanted  uint64    `json:"unwanted"`  // from the cloud: old retained ones, or without a route; since start
	Looped    uint64    `json:"looped"`    // from the cloud: were here before; since start
	Replayed  uint64    `json:"replayed"`  // sent with hg-replay, since start
	BytesIn   uint64    `json:"bytes_in"`  // of TCP, since start
	BytesOut  uint64    `json:"bytes_out"`
	Error     string    `json:"error,omitempty"`

	CatchUp *CatchUpStatus `json:"catch_up,omitempty"` // while there is a backlog and the link is up
}

// CatchUpStatus is how a link comes along with its backlog: with live_first what
// waited when it came up, with in_order all that waits.
type CatchUpStatus struct {
	Left      uint64  `json:"left"`        // messages
	Of        uint64  `json:"of"`          // as the link came up
	PerSecond float64 `json:"per_second"`  // by which it has got smaller since then
	ETA       int64   `json:"eta_seconds"` // -1: it does not get smaller
}

// DeviceStatus is one field device.
type DeviceStatus struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // "online" or "offline"
	Since    time.Time `json:"since"`
	LastGood time.Time `json:"last_good"`
	Error    string    `json:"error,omitempty"`
	Polls    uint64    `json:"polls"`           // since start, as all that follows
	Missed   uint64    `json:"missed"`          // polls that did not take place because their time had passed
	Refused  uint64    `json:"refused"`         // times that a message was not taken, and offered again
	Holes    string    `json:"holes,omitempty"` // what was found not to exist, for the configuration
}

// BusStatus is one bus with all devices on it; its counters begin with the start.
type BusStatus struct {
	Name       string `json:"name"`
	Connects   uint64 `json:"connects"`
	Requests   uint64 `json:"requests"`
	Timeouts   uint64 `json:"timeouts"`
	Late       uint64 `json:"late"`       // answers that came after their timeout and were thrown away
	Garbled    uint64 `json:"garbled"`    // with a wrong checksum, or to another request
	Exceptions uint64 `json:"exceptions"` // answers that refuse
	Missed     uint64 `json:"missed"`     // polls that did not take place because their time had passed
	Silent     int    `json:"silent"`     // units that do not answer, and are asked rarely
}

// ClientStatus counts local clients.
type ClientStatus struct {
	Connected     int    `json:"connected"`
	Sessions      int    `json:"sessions"`
	LoginFailures uint64 `json:"login_failures"`
	Denied        uint64 `json:"denied"`
	DroppedSlow   uint64 `json:"dropped_slow"`    // QoS 0, the subscriber did not read fast enough
	DroppedLarge  uint64 `json:"dropped_large"`   // larger than the subscriber takes
	DroppedOld    uint64 `json:"dropped_expired"` // their time was over
	DroppedQueue  uint64 `json:"dropped_queue"`   // too much waited for the client
	Panics        uint64 `json:"panics"`          // connections closed after a defect of ours
	Received      uint64 `json:"received"`        // messages taken from clients, devices and links
	Sent          uint64 `json:"sent"`            // handed to clients' sockets
	BytesIn       uint64 `json:"bytes_in"`
	BytesOut      uint64 `json:"bytes_out"`
	Takeovers     uint64 `json:"takeovers"`

	Retained        int    `json:"retained"` // messages
	RetainedBytes   int64  `json:"retained_bytes"`
	RetainedRefused uint64 `json:"retained_refused"` // not retained for want of room

	LockedUsers     int    `json:"locked_users"` // users at one address each, now
	LockedAddresses int    `json:"locked_addresses"`
	Hashed          uint64 `json:"passwords_hashed"`
	Remembered      uint64 `json:"passwords_remembered"` // right without a hash, of reconnecting clients

	Slow        int               `json:"slow"`         // connected and not keeping up
	SlowClients []string          `json:"slow_clients"` // the first ten of them
	Logins      map[string]uint64 `json:"logins"`       // by result
	LimitHits   map[string]uint64 `json:"limit_hits"`   // by limit
	Listeners   []ListenerStatus  `json:"listeners"`
}

// ListenerStatus counts the clients of one listener that speak one version.
type ListenerStatus struct {
	Listener    string `json:"listener"`
	MQTT        string `json:"mqtt"` // "3.1.1" or "5"
	Connections int    `json:"connections"`
}
