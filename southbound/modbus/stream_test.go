package modbus

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// gated is a connection whose reader does not come to read: as on a machine that
// stood still, what arrived lies in the kernel.
type gated struct {
	*net.TCPConn
	gate chan struct{}
}

type gatedRaw struct {
	syscall.RawConn
	gate chan struct{}
}

func (g gated) SyscallConn() (syscall.RawConn, error) {
	raw, err := g.TCPConn.SyscallConn()
	return gatedRaw{raw, g.gate}, err
}

func (g gatedRaw) Read(f func(uintptr) bool) error {
	<-g.gate
	return g.RawConn.Read(f)
}

// A line is not silent while something lies unread, however long ago it came: it
// would be taken for the answer to what is asked next.
func TestUnreadIsNotSilence(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	gate := make(chan struct{})
	s := newStream(gated{near.(*net.TCPConn), gate}, nil)
	defer s.close()
	if wait, err := s.silent(0); wait != 0 || err != nil {
		t.Fatalf("not silent at first: %v, %v", wait, err)
	}
	if _, err := far.Write([]byte("late answer")); err != nil {
		t.Fatal(err)
	}
	limit := time.Now().Add(5 * time.Second)
	for wait := time.Duration(0); wait == 0; { // until the kernel has it
		if wait, err = s.silent(0); err != nil || time.Now().After(limit) {
			t.Fatalf("taken for silent: %v", err)
		}
	}
	close(gate)
	for wait := time.Duration(1); wait > 0; {
		if wait, err = s.silent(time.Millisecond); err != nil || time.Now().After(limit) {
			t.Fatalf("never silent: %v", err)
		}
	}
	if s.look(func(in []byte) int { return len(in) }); len(s.in) != 0 || s.unread() {
		t.Errorf("%q is left", s.in)
	}
}
