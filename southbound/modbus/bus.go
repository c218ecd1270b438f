package modbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// BusConfig describes one endpoint.
type BusConfig struct {
	// URL says where it is and how it speaks: tcp://host:502,
	// tls://host:802, udp://host:502, rtu+tcp://host:port and
	// ascii+tcp://host:port for serial lines behind a converter, and
	// rtu:///dev/… and ascii:///dev/… for serial ports.
	URL    string
	Backup string // URL of the same scheme, tried when the first does not answer
	Serial Serial // of serial ports, and of lines behind converters

	// TLS returns the configuration of one connection to a host, with the
	// certificate that the gateway shows. Needed with tls, where both ends
	// prove who they are (Modbus/TCP Security).
	TLS func(host string) (*tls.Config, error)

	// Connections is how many requests may be under way, each on a
	// connection of its own. Zero is 1, which is what most devices and
	// gateways can take.
	Connections int

	ConnectTimeout    time.Duration // of each address; zero: 3 s
	ResponseTimeout   time.Duration // from the request to the whole answer, without the time on a serial line; zero: 1 s, serial 500 ms
	LateWindow        time.Duration // without transaction numbers: how long after the timeout an answer may still come; zero: ResponseTimeout
	Gap               time.Duration // least pause between an answer and the next request
	PauseAfterConnect time.Duration // for devices that drop what comes too early
	MaxDeadTime       float64       // share of the time for units that do not answer, while others do; zero: 0.1
	Echo              bool          // the serial port hears what it sends
	Offset            time.Duration // of all beats, so that several buses are not all due at once

	// Dial replaces the ordinary connection of a socket, through a tunnel
	// for example. It returns promptly when ctx ends.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// A Bus is one endpoint with all units behind it. It is safe for concurrent
// use: requests take their turn.
type Bus struct {
	cfg       BusConfig
	endpoints []endpoint
	lines     int
	start     time.Time     // of all beats, with its monotonic reading: they know no clock changes
	groups    atomic.Uint32 // that were given a place between the beats

	mu      sync.Mutex // covers what follows
	streams map[*stream]bool
	closed  bool
	idle    []*line   // those whose turn nobody has
	waiting []*waiter // in the order in which they came
	wake    *time.Timer
	failed  struct { // the last attempt to connect that failed
		at  time.Time
		err error
	}
	units     map[byte]*unit
	debt      time.Duration // of the units that do not answer
	debtSince time.Time

	counters counters
	watchers watchers
}

type counters struct {
	connects, requests, timeouts, late, garbled, exceptions, overruns atomic.Uint64
}

// BusStats counts what happened on a bus since NewBus.
type BusStats struct {
	Connects   uint64 // connections opened
	Requests   uint64 // sent, repetitions included
	Timeouts   uint64
	Late       uint64 // answers that came after their timeout and were thrown away
	Garbled    uint64 // answers with a wrong checksum, or to another request
	Exceptions uint64
	Overruns   uint64 // polls skipped because an earlier one took too long
	Silent     int    // units that do not answer and are asked rarely
}

const maxConnections = 16

// NewBus checks cfg and returns a bus. It connects when the first session
// opens.
func NewBus(cfg BusConfig) (*Bus, error) {
	b := &Bus{cfg: cfg, lines: max(1, cfg.Connections), start: time.Now().Add(cfg.Offset), streams: make(map[*stream]bool), units: make(map[byte]*unit)}
	if err := b.parse(); err != nil {
		return nil, fmt.Errorf("modbus: %w", err)
	}
	t := b.endpoints[0].transport
	if b.cfg.Dial == nil {
		b.cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, t.network, address)
		}
	}
	if b.cfg.ConnectTimeout <= 0 {
		b.cfg.ConnectTimeout = 3 * time.Second
	}
	if b.cfg.ResponseTimeout <= 0 {
		b.cfg.ResponseTimeout = time.Second
		if t.serial() {
			b.cfg.ResponseTimeout = 500 * time.Millisecond
		}
	}
	if b.cfg.LateWindow <= 0 {
		b.cfg.LateWindow = b.cfg.ResponseTimeout
	}
	if b.cfg.MaxDeadTime <= 0 {
		b.cfg.MaxDeadTime = defaultMaxDeadTime
	}
	for range b.lines {
		b.idle = append(b.idle, &line{bus: b, endpoint: b.endpoints[0], owing: make(map[byte]time.Time)})
	}
	return b, nil
}

// parse takes the URLs apart and holds the rest of the configuration against
// them.
func (b *Bus) parse() error {
	first, err := parseEndpoint("url", b.cfg.URL)
	if err != nil {
		return err
	}
	b.endpoints = []endpoint{first}
	t := first.transport
	if b.cfg.Backup != "" {
		second, err := parseEndpoint("backup", b.cfg.Backup)
		if err != nil {
			return err
		}
		if second.transport != t {
			return wrong("backup", "give both the same scheme", "the backup is no %s://, and the bus is", t.scheme)
		}
		b.endpoints = append(b.endpoints, second)
	}
	switch {
	case t.tls && b.cfg.TLS == nil:
		return wrong("url", "give ca, certificate and key", "tls:// without certificates")
	case b.cfg.Connections < 0 || b.cfg.Connections > maxConnections:
		return wrong("connections", fmt.Sprintf("give 1 to %d", maxConnections), "%d connections are impossible", b.cfg.Connections)
	case b.cfg.Connections > 1 && !t.numbered:
		return wrong("connections", "remove connections", "several connections to one serial line would talk across each other")
	case b.cfg.Echo && t.numbered:
		return wrong("echo", "remove echo", "%s:// has no echo", t.scheme)
	case b.cfg.Serial != Serial{} && t.numbered:
		return wrong("url", "remove baud, data_bits, parity, stop_bits and rs485", "%s:// is no serial line", t.scheme)
	case b.cfg.Serial.RS485 != nil && !t.serial():
		return wrong("rs485", "remove rs485: the converter has such settings of its own", "%s:// is no serial port of this machine", t.scheme)
	}
	return b.cfg.Serial.check()
}

// CheckBus says what is wrong with cfg, or nothing. It needs no TLS function.
func CheckBus(cfg BusConfig) error {
	if cfg.TLS == nil {
		cfg.TLS = func(string) (*tls.Config, error) { return nil, errClosed }
	}
	return (&Bus{cfg: cfg}).parse()
}

// NeedsTLS reports whether a bus of that URL needs a TLS function.
func NeedsTLS(url string) bool {
	e, err := parseEndpoint("url", url)
	return err == nil && e.transport.tls
}

// SerialPort returns the path of the serial port in a bus's URL, or nothing.
func SerialPort(url string) string {
	e, err := parseEndpoint("url", url)
	if err != nil || !e.transport.serial() {
		return ""
	}
	return e.address
}

// Stats returns a snapshot of the counters.
func (b *Bus) Stats() BusStats {
	c := &b.counters
	return BusStats{
		Connects: c.connects.Load(), Requests: c.requests.Load(), Timeouts: c.timeouts.Load(), Late: c.late.Load(),
		Garbled: c.garbled.Load(), Exceptions: c.exceptions.Load(), Overruns: c.overruns.Load(), Silent: b.silentUnits(),
	}
}

// Close ends the connections and every request, for good. Sessions on the bus
// then fail.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.closed = true
	streams := b.streams
	b.streams = make(map[*stream]bool)
	b.mu.Unlock()
	var err error
	for s := range streams {
		err = errors.Join(err, s.close())
	}
	return err
}

// open makes sure that there is a connection and that the peer has not closed
// it meanwhile. Who waited for an attempt that failed need not make another.
func (b *Bus) open(ctx context.Context) error {
	began := time.Now()
	l, err := b.take(ctx, &turn{rank: toRead, unit: noUnit})
	if err != nil {
		return err
	}
	defer b.release(l)
	if l.stream != nil {
		if err := wait(ctx, time.Millisecond); err != nil { // for news of its end to be read
			return err
		}
		if l.stream.over() == nil {
			return nil
		}
	}
	if err := b.failedSince(began); err != nil {
		return err
	}
	l.drop()
	if err := l.connect(ctx); err != nil {
		if ctx.Err() == nil {
			b.fail(err)
		}
		return err
	}
	b.renew()
	return nil
}

func (b *Bus) failedSince(began time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed.at.After(began) {
		return b.failed.err
	}
	return nil
}

func (b *Bus) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed.at, b.failed.err = time.Now(), err
}

// read asks one unit for registers or bits and returns their bytes as they
// came. It goes before polls. Its errors are ctx's, errTimeout, errGarbled,
// *modbus.ModbusError for an exception, and any other when there is no
// connection that works.
func (b *Bus) read(ctx context.Context, unit byte, table Table, address, quantity uint16) ([]byte, error) {
	return b.readBlock(ctx, &turn{rank: toRead, unit: int(unit)}, &block{table: table, address: address, quantity: quantity})
}

// readBlock is read when its turn comes.
func (b *Bus) readBlock(ctx context.Context, t *turn, what *block) ([]byte, error) {
	l, err := b.take(ctx, t)
	if err != nil {
		return nil, err
	}
	defer b.release(l)
	// Reading twice does no harm, and a peer that closed while nobody asked
	// is no fault, so a connection is replaced once.
	began := time.Now()
	r := reads(what.table, what.address, what.quantity)
	data, err := l.ask(ctx, byte(t.unit), r, time.Time{})
	if broken(err) && ctx.Err() == nil && l.endpoint.transport.numbered {
		data, err = l.ask(ctx, byte(t.unit), r, time.Time{})
	}
	b.judge(byte(t.unit), err, time.Since(began))
	return data, err
}
