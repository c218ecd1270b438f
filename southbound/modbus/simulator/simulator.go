// Package simulator is a Modbus gateway with three believable units behind it: a
// boiler, a pump and an energy meter. It serves demonstrations and tests, over
// every transport, and hurts its answers if told to.
//
// What a register holds depends on the seed, the clock and what was set or
// written, and on nothing else. It shares no code with the client that reads
// it; that both read the standard rightly is for other people's programs to
// say, see the tests of southbound/modbus.
package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// registers is how many registers or bits each table of each unit has.
const registers = 64

// Config says what world is simulated. The zero value is ready to use.
type Config struct {
	Seed uint64           // shifts all curves, and chooses the faults
	Now  func() time.Time // nil: time.Now
	TLS  *tls.Config      // needed with tls://
	Baud int              // on a serial port: characters take their time; zero: none

	// Faults are what may happen to an answer, and FaultRate the share of
	// answers to which one of them does. Zero is a quarter.
	Faults    []Fault
	FaultRate float64
	// Slow is the most that a slow answer takes, and Late the least that a
	// late one does; it takes up to half as long again. Zero is 200 ms and
	// 1.2 s.
	Slow, Late time.Duration

	// Wrote is told of each write that was done, before it is answered. Nil:
	// nobody.
	Wrote func(unit byte, table modbus.Table, address uint16, values []uint16)

	// Read replaces the three units: it returns the registers, or bits as 0
	// and 1, an Exception, or ErrSilent. It takes as long as the unit does.
	Read func(unit byte, table modbus.Table, address, quantity uint16) ([]uint16, error)
}

// A Simulator listens until its Run or Close ends it. It is safe for
// concurrent use.
type Simulator struct {
	cfg     Config
	scheme  string
	address string
	points  []point

	mu      sync.Mutex // covers what follows
	rand    *rand.Rand
	service *service // nil: not listening
	closed  bool
	forced  map[register]uint16
}

type register struct {
	unit    byte
	table   modbus.Table
	address uint16
}

// An Exception is the code with which a unit refuses a request.
type Exception byte

func (e Exception) Error() string { return fmt.Sprintf("exception %d", byte(e)) }

// ErrSilent is what Config.Read returns for a unit that does not answer.
var ErrSilent = errors.New("no answer")

// The exceptions the simulator knows by itself.
const (
	illegalFunction = Exception(1)
	illegalAddress  = Exception(2)
	illegalValue    = Exception(3)
	noSuchUnit      = Exception(11)
)

// Listen starts a simulator, and answers at once. The address is host:port for
// Modbus TCP, where ":0" takes a free port, or a URL as a bus has it. For a
// serial port, rtu:///path, it makes a pseudo-terminal and a link to it at path.
func Listen(address string, cfg Config) (*Simulator, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.FaultRate == 0 {
		cfg.FaultRate = 0.25
	}
	if cfg.Slow == 0 {
		cfg.Slow = 200 * time.Millisecond
	}
	if cfg.Late == 0 {
		cfg.Late = 1200 * time.Millisecond
	}
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		scheme, rest = "tcp", address
	}
	s := &Simulator{
		cfg: cfg, scheme: scheme, address: rest, points: points(cfg.Seed),
		rand: rand.New(rand.NewPCG(cfg.Seed, 0)), forced: make(map[register]uint16),
	}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address", address, err)
	}
	return s, nil
}

func (s *Simulator) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.service != nil {
		return nil
	}
	service, err := s.listen()
	if err != nil {
		return err
	}
	s.service = service
	return nil
}

// Addr returns the address that Listen bound, host:port or a path.
func (s *Simulator) Addr() string { return s.address }

// URL returns the address as a bus has it.
func (s *Simulator) URL() string { return s.scheme + "://" + s.address }

// Run blocks until ctx ends, then closes the simulator and returns nil.
func (s *Simulator) Run(ctx context.Context) error {
	<-ctx.Done()
	return s.Close()
}

// Close stops listening and closes all connections.
func (s *Simulator) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Break()
}

// Break makes the simulator unreachable: it closes all connections and refuses
// new ones, until Mend.
func (s *Simulator) Break() error {
	s.mu.Lock()
	service := s.service
	s.service = nil
	s.mu.Unlock()
	if service == nil {
		return nil
	}
	return service.stop()
}

// Mend undoes Break. It fails if the port was taken meanwhile.
func (s *Simulator) Mend() error {
	if err := s.start(); err != nil {
		return fmt.Errorf("listen on %s again: %w; free the port", s.address, err)
	}
	return nil
}

// Set forces one register, or one bit with 0 and 1, to a value from now on.
func (s *Simulator) Set(unit byte, table modbus.Table, address, value uint16) error {
	if !s.has(unit) || address >= registers {
		return fmt.Errorf("set unit %d %s %d: no such register; units are 1 to 3, addresses 0 to %d", unit, table, address, registers-1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forced[register{unit, table, address}] = value
	return nil
}

func (s *Simulator) has(unit byte) bool {
	for _, p := range s.points {
		if p.unit == unit {
			return true
		}
	}
	return false
}

// read returns registers as they all were at one moment.
func (s *Simulator) read(unit byte, table modbus.Table, address, quantity uint16) ([]uint16, error) {
	if s.cfg.Read != nil {
		return s.cfg.Read(unit, table, address, quantity)
	}
	if !s.has(unit) {
		return nil, noSuchUnit
	}
	if int(address)+int(quantity) > registers {
		return nil, illegalAddress
	}
	var all [registers]uint16
	elapsed := s.cfg.Now().Sub(epoch).Seconds()
	for _, p := range s.points {
		if p.unit == unit && p.tag.Table == table {
			copy(all[p.tag.Address:], p.words(elapsed))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range all {
		if v, ok := s.forced[register{unit, table, uint16(i)}]; ok {
			all[i] = v
		}
	}
	return all[address : address+quantity], nil
}

// write is read's other half.
func (s *Simulator) write(unit byte, table modbus.Table, address uint16, values []uint16) error {
	switch {
	case s.cfg.Read != nil:
		return illegalFunction
	case !s.has(unit):
		return noSuchUnit
	case int(address)+len(values) > registers:
		return illegalAddress
	}
	for i, v := range values {
		if err := s.Set(unit, table, address+uint16(i), v); err != nil {
			return illegalAddress
		}
	}
	if s.cfg.Wrote != nil {
		s.cfg.Wrote(unit, table, address, values)
	}
	return nil
}
