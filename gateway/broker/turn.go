package broker

import (
	"net"
	"runtime"
)

// Turns are places at the processor for handshakes. One that computes has a
// turn, one that waits for its peer has none: however many arrive, those who
// are in wait for a few of them at most, and who is silent holds up nobody.
type turns chan struct{}

// newTurns leaves half of the processors to those who are in.
func newTurns() turns { return make(turns, max(1, runtime.NumCPU()/2)) }

// A shaking connection is under TLS that shakes hands. One goroutine reads it.
type shaking struct {
	net.Conn
	turns turns // nil: the handshake is over
	mine  bool

	first [1]byte
	ahead bool // first was read and is to be given to TLS
}

// await returns when the peer has said something. Waiting here takes a quarter
// of the stack that waiting inside TLS does.
func (s *shaking) await() error {
	_, err := s.Conn.Read(s.first[:])
	s.ahead = err == nil
	return err
}

// Read gives the turn away and takes one when there is something to compute.
// What TLS writes in its turn is less than a new socket holds.
func (s *shaking) Read(p []byte) (int, error) {
	if s.turns == nil {
		return s.Conn.Read(p)
	}
	s.pass()
	n, err := s.read(p)
	s.turns <- struct{}{} // those who have one do not keep it long
	s.mine = true
	return n, err
}

func (s *shaking) read(p []byte) (int, error) {
	if s.ahead && len(p) > 0 {
		s.ahead = false
		return copy(p, s.first[:]), nil
	}
	return s.Conn.Read(p)
}

func (s *shaking) pass() {
	if s.mine {
		<-s.turns
		s.mine = false
	}
}

// over ends taking turns.
func (s *shaking) over() {
	s.pass()
	s.turns = nil
}
