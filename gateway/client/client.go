// Package client is a small, strict MQTT client for the command line, the demo
// and tests. It speaks 3.1.1 and 5 and every QoS in both directions.
//
// One connection is one Client: it does not reconnect, and it remembers no
// unfinished message beyond the connection. A message that comes in is
// acknowledged after OnMessage has returned nil; one that goes out counts as
// published when the server has acknowledged it. Two goroutines serve a
// connection, one reads and one writes, and both end with it.
package client

import (
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

const (
	writeTimeout = 30 * time.Second
	pingTimeout  = 10 * time.Second // for the answer to a ping
	maxUnsent    = 256 << 10        // bytes waiting to be written, from which Publish waits
	maxReplies   = 1 << 17          // acknowledgements waiting to be written: the peer does not read
	maxInFlight  = 16384            // own messages not yet acknowledged
)

// Options say where to connect and as whom.
type Options struct {
	Address  string       // "host:port"
	TLS      *tls.Config  // nil: plaintext
	ClientID string       // may be empty with CleanStart
	Username string       // empty: none
	Password mqtt.Secret  // nil: none
	Version  mqtt.Version // 0: MQTT 5

	CleanStart     bool
	KeepAlive      time.Duration // whole seconds up to 65535 s; 0: off
	SessionExpiry  uint32        // seconds, 0xFFFFFFFF: never; MQTT 5 only
	ReceiveMaximum uint16        // 0: 65535
	MaximumPacket  uint32        // largest packet taken in, bytes; 0: the protocol's limit
	Will           *mqtt.Will

	// OnMessage is called for every message, one after the other, on the reader:
	// it must not wait for an answer to Publish, Subscribe or Disconnect. The
	// message belongs to it. An error ends the connection and leaves the message
	// unacknowledged. Nil: messages are acknowledged and dropped.
	OnMessage func(*Message) error
}

// A Message is what is published.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Dup     bool // received: a repetition, perhaps

	SubscriptionIDs []uint32 // received: the subscriptions that matched
	mqtt.Properties          // MQTT 5 only
}

// theConnection is what a DISCONNECT refuses.
const theConnection = "connection"

// A RefusedError is the server's no, in its words.
type RefusedError struct {
	What   string // "connect", "publish", "connection"
	Code   mqtt.ReasonCode
	Reason string // the server's own text, may be empty
}

func (e *RefusedError) Error() string {
	if e.What == theConnection {
		return fmt.Sprintf("connection ended by the server: %v", e.Code)
	}
	if e.Reason == "" {
		return fmt.Sprintf("%s refused by the server: %v", e.What, e.Code)
	}
	return fmt.Sprintf("%s refused by the server: %v: %s", e.What, e.Code, e.Reason)
}

// A Client is one connection. It is safe for concurrent use.
type Client struct {
	conn    net.Conn
	version mqtt.Version
	connack mqtt.Connack
	options Options
	decoder *mqtt.Decoder // the reader's, after Dial

	received map[uint16]struct{} // the reader's: QoS 2 taken in, PUBREL to come
	window   chan struct{}       // a place for each own message in flight

	wake    chan struct{} // something is in unsent
	stopped chan struct{} // closed with the cause in err
	done    chan struct{} // closed when both goroutines have ended

	mu       sync.Mutex // covers all below; never held over I/O or a callback
	inFlight map[uint16]*exchange
	lastID   uint16
	unsent   []byte
	replies  int           // acknowledgements in unsent
	sent     []func(error) // to be called when unsent is written
	drained  chan struct{} // closed when the writer takes unsent
	closing  bool          // DISCONNECT is the last thing in unsent
	err      error
}

// An exchange is a packet of ours that waits for its answer.
type exchange struct {
	want mqtt.Type
	done func(mqtt.Packet, error) // the packet is valid during the call
}

// Connack is what the server said at connect.
func (c *Client) Connack() mqtt.Connack { return c.connack }

// Done is closed when the connection and its goroutines have ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection ended; nil while it lasts and after Disconnect.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == errDisconnected {
		return nil
	}
	return c.err
}

// stop ends the connection for the first cause given.
func (c *Client) stop(cause error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = cause
		close(c.stopped)
	}
	c.mu.Unlock()
	if first {
		c.conn.Close()
	}
}

// Disconnect writes what waits, says goodbye and returns when the connection has
// ended. Messages not yet acknowledged fail. The error is that of a connection
// that had already ended, or could not be told.
func (c *Client) Disconnect() error {
	c.mu.Lock()
	if c.err == nil && !c.closing {
		c.unsent, _ = mqtt.Append(c.unsent, c.version, &mqtt.Disconnect{})
		c.closing = true
	}
	c.mu.Unlock()
	c.signal()
	<-c.done
	return c.Err()
}

func (c *Client) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// connectPacket is the CONNECT that the options ask for.
func (o *Options) connectPacket() (*mqtt.Connect, error) {
	seconds := o.KeepAlive / time.Second
	if o.KeepAlive < 0 || o.KeepAlive%time.Second != 0 || seconds > math.MaxUint16 {
		return nil, fmt.Errorf("keep alive %v: use whole seconds from 0 to 65535", o.KeepAlive)
	}
	return &mqtt.Connect{
		Version:        o.Version,
		ClientID:       o.ClientID,
		CleanStart:     o.CleanStart,
		KeepAlive:      uint16(seconds),
		Username:       o.Username,
		UsernameFlag:   o.Username != "" || o.Password != nil && o.Version == mqtt.V311,
		Password:       o.Password,
		PasswordFlag:   o.Password != nil,
		Will:           o.Will,
		SessionExpiry:  o.SessionExpiry,
		ReceiveMaximum: o.ReceiveMaximum,
		MaximumPacket:  o.MaximumPacket,
		RequestProblem: true,
	}, nil
}
