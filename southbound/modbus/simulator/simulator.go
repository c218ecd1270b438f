// Package simulator is a Modbus TCP gateway with three believable units behind
// it: a boiler, a pump and an energy meter. It serves demonstrations and tests.
//
// What a register holds depends on the seed, the clock and what was set or
// written, and on nothing else. The protocol is spoken by simonvetter/modbus,
// not by our own code, so that the simulator is also a second opinion.
package simulator

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"time"

	server "github.com/simonvetter/modbus"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// registers is how many registers each table of each unit has.
const registers = 64

// Config says what world is simulated. The zero value is ready to use.
type Config struct {
	Seed uint64           // shifts all curves
	Now  func() time.Time // nil: time.Now
}

// A Simulator listens until its Run or Close ends it. It is safe for
// concurrent use.
type Simulator struct {
	address string
	now     func() time.Time
	points  []point

	mu     sync.Mutex // covers what follows
	server *server.ModbusServer
	closed bool
	forced map[register]uint16
}

type register struct {
	unit    byte
	table   modbus.Table
	address uint16
}

// Listen starts a simulator; ":0" takes a free port. It answers at once.
func Listen(address string, cfg Config) (*Simulator, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Simulator{now: cfg.Now, points: points(cfg.Seed), forced: make(map[register]uint16)}
	// The server cannot tell which port it was given, so a free one is
	// found first; somebody else may be quicker, hence the attempts.
	var err error
	for range 10 {
		if s.address, err = resolve(address); err != nil {
			return nil, fmt.Errorf("listen on %s: %w; choose another address", address, err)
		}
		if err = s.start(); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("listen on %s: %w; choose another address", address, err)
}

// resolve returns address with a port that was free a moment ago.
func resolve(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *Simulator) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.server != nil {
		return nil
	}
	srv, err := server.NewServer(&server.ServerConfiguration{
		URL:        "tcp://" + s.address,
		MaxClients: 64,
		Logger:     log.New(io.Discard, "", 0),
	}, handler{s})
	if err != nil {
		return err
	}
	if err := srv.Start(); err != nil {
		return err
	}
	s.server = srv
	return nil
}

// Addr returns the address that Listen bound, host:port.
func (s *Simulator) Addr() string { return s.address }

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
	return s.stop()
}

// Break makes the simulator unreachable: it closes all connections and refuses
// new ones, until Mend.
func (s *Simulator) Break() error { return s.stop() }

func (s *Simulator) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	err := s.server.Stop()
	s.server = nil
	return err
}

// Mend undoes Break. It fails if the port was taken meanwhile.
func (s *Simulator) Mend() error {
	if err := s.start(); err != nil {
		return fmt.Errorf("listen on %s again: %w; free the port", s.address, err)
	}
	return nil
}

// Set forces one register to a value from now on.
func (s *Simulator) Set(unit byte, table modbus.Table, address, value uint16) error {
	if !s.has(unit) || address >= registers || table != modbus.Holding && table != modbus.Input {
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
	if !s.has(unit) {
		return nil, server.ErrGWTargetFailedToRespond
	}
	if int(address)+int(quantity) > registers {
		return nil, server.ErrIllegalDataAddress
	}
	var all [registers]uint16
	elapsed := s.now().Sub(epoch).Seconds()
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

// handler answers the server's requests.
type handler struct{ *Simulator }

func (handler) HandleCoils(*server.CoilsRequest) ([]bool, error) {
	return nil, server.ErrIllegalFunction
}

func (handler) HandleDiscreteInputs(*server.DiscreteInputsRequest) ([]bool, error) {
	return nil, server.ErrIllegalFunction
}

func (h handler) HandleInputRegisters(r *server.InputRegistersRequest) ([]uint16, error) {
	return h.read(r.UnitId, modbus.Input, r.Addr, r.Quantity)
}

func (h handler) HandleHoldingRegisters(r *server.HoldingRegistersRequest) ([]uint16, error) {
	if !r.IsWrite {
		return h.read(r.UnitId, modbus.Holding, r.Addr, r.Quantity)
	}
	if int(r.Addr)+len(r.Args) > registers {
		return nil, server.ErrIllegalDataAddress
	}
	for i, v := range r.Args {
		if err := h.Set(r.UnitId, modbus.Holding, r.Addr+uint16(i), v); err != nil {
			return nil, server.ErrGWTargetFailedToRespond
		}
	}
	return nil, nil
}
