package admin

import "time"

// Status is the one screen. Its JSON names are stable.
type Status struct {
	Gateway GatewayStatus  `json:"gateway"`
	Queue   QueueStatus    `json:"queue"`
	Links   []LinkStatus   `json:"links"`
	Devices []DeviceStatus `json:"devices"`
	Clients ClientStatus   `json:"clients"`
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
	Refused  uint64         `json:"refused"` // messages refused because it was full
	Readers  []ReaderStatus `json:"readers"`
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
	Dropped   uint64    `json:"dropped"`   // by rule, age or quarantine, since start
	Error     string    `json:"error,omitempty"`
}

// DeviceStatus is one field device.
type DeviceStatus struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // "online" or "offline"
	Since    time.Time `json:"since"`
	LastGood time.Time `json:"last_good"`
	Error    string    `json:"error,omitempty"`
}

// ClientStatus counts local clients.
type ClientStatus struct {
	Connected     int    `json:"connected"`
	Sessions      int    `json:"sessions"`
	LoginFailures uint64 `json:"login_failures"`
	Denied        uint64 `json:"denied"`
}
