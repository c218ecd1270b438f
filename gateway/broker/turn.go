package broker

import (
	"net"
	"runtime"
)

// Turns are places at the processor for handshakes. One that computes has a
// turn, one that waits for its peer has none: however many arrive, those who
// are in wait for a few of them at most, and who is silent holds up nobody.
type turns chan struct{}

func newTurns() turns { return make(turns, runtime.GOMAXPROCS(0)) }

// A shaking connection is under TLS that shakes hands. One goroutine reads it.
type shaking struct {
	net.Conn
	turns turns // nil: the handshake is over
	mine  bool
}

// Read gives the turn away and takes one when there is something to compute.
// What TLS writes in its turn is less than a new socket holds.
func (s *shaking) Read(p []byte) (int, error) {
	if s.turns == nil {
		return s.Conn.Read(p)
	}
	s.pass()
	n, err := s.Conn.Read(p)
	s.turns <- struct{}{} // those who have one do not keep it long
	s.mine = true
	return n, err
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
