package mqtt

import (
	"fmt"
	"io"
)

// Version is the protocol level of a CONNECT.
type Version byte

// The versions this package speaks.
const (
	V311 Version = 4
	V5   Version = 5
)

func (v Version) String() string {
	switch v {
	case V311:
		return "3.1.1"
	case V5:
		return "5"
	}
	return fmt.Sprintf("level %d", byte(v))
}

// Type is the control packet type, the upper four bits of the fixed header.
type Type byte

// The fifteen control packet types.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

var typeNames = [...]string{
	"reserved type", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

func (t Type) String() string { return typeNames[t&15] }

// Secret is bytes that no format, log or encoder shows.
type Secret []byte

// Format writes "[redacted]" for every verb.
func (Secret) Format(w fmt.State, _ rune) { io.WriteString(w, "[redacted]") }

// MarshalText keeps the bytes out of JSON and of logs in JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// A Packet is one control packet: a pointer to one of the structs below.
type Packet interface{ Type() Type }

// UserProperty is an MQTT 5 user property. Order and repeats are kept.
type UserProperty struct{ Key, Value string }

// Connect opens a session. UsernameFlag and PasswordFlag tell absent from empty.
type Connect struct {
	Version    Version
	ClientID   string
	CleanStart bool
	KeepAlive  uint16 // seconds, 0: none

	Username     string
	UsernameFlag bool
	Password     Secret
	PasswordFlag bool
	Will         *Will

	SessionExpiry   uint32 // seconds; 0xFFFFFFFF: never. 3.1.1: 0 if CleanStart, else never
	ReceiveMaximum  uint16 // 65535 when absent
	MaximumPacket   uint32 // 0 when absent: no limit
	TopicAliasMax   uint16
	RequestResponse bool
	RequestProblem  bool // true when absent
	AuthMethod      string
	AuthData        Secret // nil: absent
	UserProperties  []UserProperty
}

// Will is the message the server publishes when a client goes without DISCONNECT.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Delay   uint32 // seconds
	Properties
}

// Properties are the MQTT 5 properties that travel with a message from
// publisher to subscriber.
type Properties struct {
	Text             bool   // payload format indicator: UTF-8
	MessageExpiry    uint32 // seconds, valid when HasMessageExpiry
	HasMessageExpiry bool
	ContentType      string
	ResponseTopic    string
	CorrelationData  []byte // nil: absent
	UserProperties   []UserProperty
}

// Connack answers CONNECT. Limits that are absent hold the protocol's default;
// a refusal is written without limits.
type Connack struct {
	Version        Version // of the connection; decides the encoding, 0: as Append is told
	SessionPresent bool
	Code           ReasonCode // for 3.1.1 the v5 code; Append translates

	SessionExpiry       uint32
	HasSessionExpiry    bool
	ReceiveMaximum      uint16 // 65535 when absent
	MaximumQoS          byte   // 2 when absent
	RetainAvailable     bool   // true when absent
	MaximumPacket       uint32 // 0: no limit
	AssignedClientID    string
	TopicAliasMax       uint16
	ReasonString        string
	UserProperties      []UserProperty
	WildcardAvailable   bool // true when absent
	SubscriptionIDs     bool // true when absent
	SharedAvailable     bool // true when absent
	ServerKeepAlive     uint16
	HasServerKeepAlive  bool
	ResponseInformation string
	ServerReference     string
	AuthMethod          string
	AuthData            Secret // nil: absent
}

// Publish carries a message. After Decoder.Read, the Publish itself, Topic,
// Payload and CorrelationData are valid until the next Read; the strings stay.
type Publish struct {
	Dup      bool
	QoS      byte
	Retain   bool
	Topic    []byte // may be empty with a topic alias
	PacketID uint16 // non-zero when QoS > 0
	Payload  []byte

	TopicAlias      uint16   // 0: absent
	SubscriptionIDs []uint32 // server to client only
	Properties
}

// Ack is PUBACK, PUBREC, PUBREL or PUBCOMP. After Decoder.Read it is valid until
// the next Read.
type Ack struct {
	Kind           Type
	PacketID       uint16
	Code           ReasonCode
	ReasonString   string
	UserProperties []UserProperty
}

// A Subscription is one filter of a SUBSCRIBE with its options.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0 send, 1 send if new, 2 do not send
}

// Subscribe asks for messages.
type Subscribe struct {
	PacketID       uint16
	ID             uint32 // subscription identifier, 0: absent
	Subscriptions  []Subscription
	UserProperties []UserProperty
}

// Suback answers SUBSCRIBE, a code per filter.
type Suback struct {
	PacketID       uint16
	Codes          []ReasonCode
	ReasonString   string
	UserProperties []UserProperty
}

// Unsubscribe takes filters back.
type Unsubscribe struct {
	PacketID       uint16
	Filters        []string
	UserProperties []UserProperty
}

// Unsuback answers UNSUBSCRIBE; 3.1.1 carries no codes.
type Unsuback struct {
	PacketID       uint16
	Codes          []ReasonCode
	ReasonString   string
	UserProperties []UserProperty
}

// Pingreq and Pingresp keep a connection alive.
type (
	Pingreq  struct{}
	Pingresp struct{}
)

// Disconnect ends a connection in words.
type Disconnect struct {
	Code             ReasonCode
	SessionExpiry    uint32
	HasSessionExpiry bool
	ReasonString     string
	ServerReference  string
	UserProperties   []UserProperty
}

// Auth is the extended authentication exchange of MQTT 5.
type Auth struct {
	Code           ReasonCode
	Method         string
	Data           Secret // nil: absent
	ReasonString   string
	UserProperties []UserProperty
}

func (*Connect) Type() Type     { return CONNECT }
func (*Connack) Type() Type     { return CONNACK }
func (*Publish) Type() Type     { return PUBLISH }
func (a *Ack) Type() Type       { return a.Kind }
func (*Subscribe) Type() Type   { return SUBSCRIBE }
func (*Suback) Type() Type      { return SUBACK }
func (*Unsubscribe) Type() Type { return UNSUBSCRIBE }
func (*Unsuback) Type() Type    { return UNSUBACK }
func (*Pingreq) Type() Type     { return PINGREQ }
func (*Pingresp) Type() Type    { return PINGRESP }
func (*Disconnect) Type() Type  { return DISCONNECT }
func (*Auth) Type() Type        { return AUTH }
