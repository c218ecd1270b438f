// Package southbound reads field devices and writes to them.
//
// An Adapter knows one protocol and one device; it holds configuration only.
// Whatever can break lives in a Session, and a Session that failed is thrown
// away: Device, the loop around one adapter, closes it and opens another. So
// neither adapters nor sessions carry reconnect logic or a "connected" flag.
//
// Three rules hold for every adapter, plugins included, and adaptertest
// proves them:
//
//  1. A value is published only if the device held it. What could not be read
//     is a Reading with a bad Quality and a nil Value: never the last value,
//     never zero.
//  2. Read and Write end promptly when their context ends.
//  3. Close releases everything the session opened, goroutines included, and
//     may be called while Read blocks.
package southbound

import (
	"context"
	"time"
)

// A Reading is one tag as the device held it at Time.
type Reading struct {
	Tag     string
	Value   any       // bool, int64, uint64, float64 (finite), string or []byte; nil unless Quality.HasValue
	Quality Quality   // the zero value is BadInit: not read yet
	Time    time.Time // when the answer arrived, or the device's own time where the protocol gives one
}

// A Batch is what one poll of one group brought.
type Batch struct {
	Group    string // see CheckGroup
	Time     time.Time
	Late     time.Duration // from when it was due until the device was asked
	Missed   int           // polls that were due before it and did not take place: their time had passed
	Readings []Reading     // in the order of the configuration; the receiver owns it
}

// A Tag describes one value of a device.
type Tag struct {
	Name  string
	Group string
	Type  string // as configured: "int16", "float32", "string", …
	Unit  string // UCUM, may be empty

	Range  Range
	Report Report // the zero value: as the device's other tags
}

// A Command asks for one tag to be written.
type Command struct {
	ID       string // given by whoever asked; the answer carries it back
	Tag      string
	Value    any       // as in Reading
	Deadline time.Time // after this the command must not reach the device
	Verify   bool      // read it back even where the tag's limits ask for no more than the device's word
}

// An Adapter opens sessions to one device.
type Adapter interface {
	// Open connects. It returns promptly when ctx ends; ctx does not bound
	// the session's life.
	Open(ctx context.Context) (Session, error)
}

// A Session is one live connection to a device. Any error from Read ends it:
// the caller closes the session and opens another. A tag that cannot be read
// while the connection stands is a Reading of bad quality, not an error.
type Session interface {
	// Tags lists what Read will bring. It does no I/O.
	Tags() []Tag
	// Read blocks until the next group is due, polls it and returns it.
	Read(ctx context.Context) (Batch, error)
	// Close may be called once, also while Read or Write block, which then
	// return an error.
	Close() error
}

// A Writer is a Session that takes commands. Write may be called while Read
// blocks. An error that wraps ErrRejected means the device was not changed;
// any other error leaves the outcome unknown. It sends a command once: whether
// one that got no answer was done, whoever asked finds out by reading.
type Writer interface {
	Write(ctx context.Context, cmd Command) error
}

// A Message is what a device publishes.
type Message struct {
	Topic   string
	Payload []byte
	Retain  bool
	CBOR    bool // the payload; otherwise it is JSON
}

// Publish hands one message on. It returns nil once the message is on
// disk, so a slow disk slows the polling and no other back-pressure is needed.
// The caller keeps the payload and may reuse it after Publish returns. It may be
// called by several goroutines at once.
type Publish func(ctx context.Context, m Message) error
