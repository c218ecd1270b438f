package modbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goburrow/modbus"
)

// BusConfig describes one endpoint.
type BusConfig struct {
	Address           string        // host:port
	ConnectTimeout    time.Duration // zero: 3 s
	ResponseTimeout   time.Duration // from the request to the whole answer; zero: 1 s
	Gap               time.Duration // least pause between an answer and the next request
	PauseAfterConnect time.Duration // for devices that drop what comes too early

	// Dial replaces the ordinary TCP connection, through a tunnel for
	// example. It returns promptly when ctx ends.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// silentLimit is how many requests in a row may find no answer at all before
// the connection is taken for half-open and replaced.
const silentLimit = 3

var (
	errClosed  = errors.New("bus closed")
	errTimeout = errors.New("no answer in time")
)

// A Bus is one endpoint with all units behind it. It is safe for concurrent
// use: requests take their turn.
type Bus struct {
	cfg  BusConfig
	turn chan struct{} // holds one token while a request is under way
	// What only the holder of the turn touches. The turn is held over
	// network I/O: one request in flight is the purpose of a bus. It is
	// bounded by the two timeouts.
	in          *bufio.Reader
	transaction uint16
	first       uint16 // oldest transaction whose answer may still come
	silent      int    // requests without any answer since the last byte
	lastEnd     time.Time

	mu     sync.Mutex // covers conn and closed; conn is replaced by the turn's holder only
	conn   net.Conn
	closed bool

	counters counters
}

type counters struct {
	connects, requests, timeouts, late, exceptions, overruns atomic.Uint64
}

// BusStats counts what happened on a bus since NewBus.
type BusStats struct {
	Connects   uint64 // connections opened
	Requests   uint64 // sent, repetitions included
	Timeouts   uint64
	Late       uint64 // answers that came after their timeout and were thrown away
	Exceptions uint64
	Overruns   uint64 // polls skipped because an earlier one took too long
}

// NewBus returns a bus. It connects when the first session opens.
func NewBus(cfg BusConfig) *Bus {
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 3 * time.Second
	}
	if cfg.ResponseTimeout <= 0 {
		cfg.ResponseTimeout = time.Second
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	return &Bus{cfg: cfg, turn: make(chan struct{}, 1)}
}

// Stats returns a snapshot of the counters.
func (b *Bus) Stats() BusStats {
	c := &b.counters
	return BusStats{
		Connects: c.connects.Load(), Requests: c.requests.Load(), Timeouts: c.timeouts.Load(),
		Late: c.late.Load(), Exceptions: c.exceptions.Load(), Overruns: c.overruns.Load(),
	}
}

// Close ends the connection and every request, for good. Sessions on the bus
// then fail.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.conn == nil {
		return nil
	}
	return b.conn.Close()
}

func (b *Bus) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bus) release() { <-b.turn }

// open makes sure that there is a connection and that the peer has not closed
// it meanwhile.
func (b *Bus) open(ctx context.Context) error {
	if err := b.acquire(ctx); err != nil {
		return err
	}
	defer b.release()
	if conn := b.current(); conn != nil && !peerGone(conn, b.in) {
		return nil
	}
	b.drop()
	return b.connect(ctx)
}

// peerGone reports whether an idle connection is known to be over.
func peerGone(conn net.Conn, in *bufio.Reader) bool {
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return true
	}
	_, err := in.Peek(1)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// read asks one unit for registers and returns their bytes as they came. Its
// errors are ctx's, errTimeout, *modbus.ModbusError for an exception, and any
// other when there is no connection that works.
func (b *Bus) read(ctx context.Context, unit byte, table Table, address, quantity uint16) ([]byte, error) {
	if err := b.acquire(ctx); err != nil {
		return nil, err
	}
	defer b.release()
	// Reading twice does no harm, and a peer that closed while nobody asked
	// is no fault, so a connection is replaced once.
	var data []byte
	var err error
	for range 2 {
		if err := b.connect(ctx); err != nil {
			return nil, err
		}
		data, err = b.attempt(ctx, unit, table, address, quantity)
		if err == nil || ctx.Err() != nil || !broken(err) {
			break
		}
	}
	return data, err
}

// broken reports whether err says that the connection cannot be used further.
func broken(err error) bool {
	var exception *modbus.ModbusError
	return !errors.As(err, &exception) && !errors.Is(err, errTimeout)
}

func (b *Bus) attempt(ctx context.Context, unit byte, table Table, address, quantity uint16) ([]byte, error) {
	if err := wait(ctx, time.Until(b.lastEnd.Add(b.cfg.Gap))); err != nil {
		return nil, err
	}
	b.transaction++
	if b.transaction-b.first > math.MaxInt16 { // identifiers wrap around
		b.first = b.transaction - math.MaxInt16
	}
	send := func(request []byte) ([]byte, error) { return b.exchange(ctx, request) }
	client := modbus.NewClient2(packager{b.transaction, unit}, transporter(send))
	read := client.ReadHoldingRegisters
	if table == Input {
		read = client.ReadInputRegisters
	}
	b.counters.requests.Add(1)
	data, err := read(address, quantity)
	b.lastEnd = time.Now()
	var exception *modbus.ModbusError
	switch {
	case errors.As(err, &exception):
		b.counters.exceptions.Add(1)
	case errors.Is(err, errTimeout):
		b.counters.timeouts.Add(1)
		if b.silent++; b.silent >= silentLimit {
			b.drop()
		}
	case err != nil && ctx.Err() == nil:
		b.drop()
		err = fmt.Errorf("ask %s, unit %d: %w", b.cfg.Address, unit, err)
	}
	return data, err
}

// exchange sends a request on the connection and returns its answer. Answers to
// earlier requests of the connection, which had timed out, are thrown away.
func (b *Bus) exchange(ctx context.Context, request []byte) ([]byte, error) {
	conn := b.current()
	if err := conn.SetDeadline(time.Now().Add(b.cfg.ResponseTimeout)); err != nil {
		return nil, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0)) // fails only when closed, which ends the read as well
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted // or it would cut the next request short
		}
	}()
	if _, err := conn.Write(request); err != nil {
		b.drop() // part of a request may be out
		return nil, errors.Join(ctx.Err(), fmt.Errorf("send: %w", err))
	}
	for {
		frame, err := readFrame(b.in)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errTimeout
		case err != nil:
			return nil, err
		}
		b.silent = 0
		got := binary.BigEndian.Uint16(frame)
		if got == b.transaction {
			return frame, nil
		}
		if b.transaction-got > b.transaction-b.first {
			return nil, badFrame("transaction %d for %d", got, b.transaction)
		}
		b.counters.late.Add(1)
	}
}
