package config

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/modbus"
)

// Config is a configuration that is complete and consistent: defaults are
// filled in, paths are absolute, names refer to what exists. It is not changed
// after Load and may be read from several goroutines.
type Config struct {
	Gateway    Gateway
	Broker     Broker
	Access     Access
	Queue      Queue
	Northbound []Link
	Buses      map[string]Bus
	Devices    []Device
	Admin      Admin

	written *file // for Show
}

// Gateway is the machine itself.
type Gateway struct {
	ID      string // matches [A-Za-z0-9._-]{1,64}; neither "." nor ".."
	Data    string // folder of queue, sessions, keys and users
	Plugins string // folder of plugin executables
}

// Broker is the local MQTT broker.
type Broker struct {
	Listeners []Listener // may be empty
	Limits    Limits
	Lockout   Lockout
}

// A Listener takes local connections.
type Listener struct {
	Address           string // host:port; the host is an IP address or empty
	Plaintext         bool   // then Address is a loopback address, and no certificate is set
	Certificate, Key  string // paths
	ClientCA          string // path, or empty
	ClientCRL         string // path, or empty
	ClientDenylist    string // path, or empty
	ClientCertificate ClientCertificate
	AnonymousAs       string // identity of clients without credentials; empty: none
	WebSocket         bool
	Origins           []string // of web pages: http:// or https:// and a host, perhaps a port; only with WebSocket
}

// ClientCertificate says whether TLS asks clients for a certificate.
type ClientCertificate string

// The three ways. Optional and Required come with a ClientCA.
const (
	Off      ClientCertificate = "off"
	Optional ClientCertificate = "optional"
	Required ClientCertificate = "required"
)

// Limits bound what clients may use.
type Limits struct {
	Connections      int
	ConnectionsPerIP int
	PacketSize       int // bytes
	ReceiveMaximum   int // 1 to 65535
	PublishRate      int // messages per second of one client; 0: unlimited
	TopicLevels      int
	Subscriptions    int // per client
	AllSubscriptions int
	Sessions         int
	SessionsPerUser  int           // per identity
	SessionExpiry    time.Duration // at most
	KeepAlive        time.Duration // at most; 0: any, and none
	Retained         int
	RetainedBytes    int64
	SessionQueue     int64 // bytes waiting for one client
	IdentityQueue    int64 // bytes waiting for all clients of one identity
	OutboxTotal      int64 // bytes waiting for all clients' sockets
}

// Lockout answers wrong passwords.
type Lockout struct {
	Failures         int
	Window, Duration time.Duration
}

// Access says who may do what.
type Access struct {
	CertificateName string // "san" or "cn"
	Certificates    []access.CertificateRole
	Rules           []access.Rule // in order; {gateway} is replaced, {id} is left in
}

// Queue is the store in front of the links.
type Queue struct {
	MaxSize      int64         // bytes of disk
	MinFree      int64         // bytes of disk left to others
	CommitLinger time.Duration // how long a commit waits for more messages
	Encryption   bool
	KeyFile      string // path; empty: in the data folder
	Lanes        []Lane // at least one; the last takes everything
}

// A Lane is a class of messages, with limits of its own for each link.
type Lane struct {
	Name     string
	Topics   []string      // filters
	Priority int           // 0 to 9; the highest is sent first
	MaxSize  int64         // bytes of disk; 0: as much as the queue
	MaxAge   time.Duration // 0: any
	WhenFull WhenFull
}

// WhenFull says what becomes of a message for a lane that is full.
type WhenFull string

// The two policies.
const (
	Refuse     WhenFull = "refuse"
	DropOldest WhenFull = "drop_oldest"
)

// A Link leads to a cloud broker over mutual TLS.
type Link struct {
	Name                 string   // in rules "link:" + Name
	Servers              []string // host:port, in order of preference
	CA, Certificate, Key string   // paths
	CRL                  string   // path, or empty
	ServerName           string   // verified instead of the host in Servers; empty: that
	ALPN                 []string // may be empty
	Renew                *Renew   // nil: by hand
	ClientID             string
	KeepAlive            time.Duration // whole seconds
	SessionExpiry        time.Duration // whole seconds
	LiveFirst            bool          // new messages before a backlog
	CatchUpRate          int64         // bytes a second for a backlog; 0: no bound
	Old                  bool          // MQTT 3.1.1
	Enveloped            bool
	Send, Receive        []Route
}

// Renew says how a link's certificate is renewed: by EST, or by a command.
type Renew struct {
	At      float64 // part of its life, 0.1 to 0.95
	EST     *EST
	Command []string
}

// EST is a server that renews certificates.
type EST struct {
	URL, CA     string
	Credentials string // path, or empty
}

// A Route names topics and what becomes of their messages.
type Route struct {
	Topics []string // filters, on the side the message comes from
	Except []string // filters; empty in Receive
	QoS    byte     // at most
	Retain Retain   // Ignore only in Receive
	Strip  string   // cut off the front, where it is there
	Prefix string   // then put in front
}

// Retain says what becomes of retained messages.
type Retain string

// The three ways.
const (
	Keep   Retain = "keep"   // retained on the other side, too
	Clear  Retain = "clear"  // passed on, and not retained there
	Ignore Retain = "ignore" // what was retained before is not taken
)

// A Bus is a connection that devices share.
type Bus struct {
	modbus.BusConfig // without TLS

	CA, Certificate, Key string // paths; set with tls://
}

// A Device is read in the field.
type Device struct {
	ID      string // in rules "device:" + ID
	Adapter string // "modbus", or the name of a plugin
	Groups  map[string]Group

	Report     southbound.Report // of tags that have none of their own
	LazyErrors int
	Telemetry  Telemetry
	Writes     bool // commands may write to it: to Writable, or to what a plugin takes

	// With adapter modbus.
	Bus          string // a key of Config.Buses
	Unit         uint8
	MaxRegisters int // 0: 125
	MaxGap       int // 0: 16 or 50; below: none
	AddressBase  int // from what addresses like holding:10 are counted in the file
	Holes        []modbus.Hole
	Retries      int          // 0: 1; below: none
	Tags         []modbus.Tag // in the order of the file
	Writable     map[string]southbound.Writable
	ForceFC15    bool
	ForceFC16    bool

	// With a plugin: a JSON object, {} if nothing was written.
	Settings json.RawMessage
}

// Modbus is the device as its adapter has it.
func (d *Device) Modbus() modbus.DeviceConfig {
	m := modbus.DeviceConfig{
		Unit: d.Unit, MaxRegisters: d.MaxRegisters, MaxGap: d.MaxGap, Holes: d.Holes, Retries: d.Retries, Tags: d.Tags,
		ForceFC15: d.ForceFC15, ForceFC16: d.ForceFC16,
	}
	for _, name := range slices.Sorted(maps.Keys(d.Groups)) {
		g := d.Groups[name]
		m.Groups = append(m.Groups, modbus.Group{Name: name, Interval: g.Interval, Wall: g.Wall, Phase: g.Phase})
	}
	return m
}

// A Group is read together.
type Group struct {
	Interval   time.Duration
	Wall       bool          // at full intervals of the clock
	Phase      time.Duration // 0: the bus decides
	StaleAfter time.Duration // 0: never
}

// Admin is the local HTTP listener.
type Admin struct {
	Address string // loopback IP and port; empty: none
}

// Commands is the filter of commands to devices. They end here: no send route
// takes them.
func (c *Config) Commands() string { return "hg/" + c.Gateway.ID + "/+/cmd/write" }

// RulePlace is where rule i of Access.Rules stands, as file:line:column.
func (c *Config) RulePlace(i int) string { return c.written.access.rules.items[i].at.String() }

// SendPlace is where send route i of a link of Northbound stands, as
// file:line:column.
func (c *Config) SendPlace(link, i int) string {
	return c.written.northbound.items[link].send.items[i].at.String()
}

// ReceivePlace is where receive route i of a link of Northbound stands, as
// file:line:column.
func (c *Config) ReceivePlace(link, i int) string {
	return c.written.northbound.items[link].receive.items[i].at.String()
}
