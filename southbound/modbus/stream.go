package modbus

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A conn is a live connection: a socket, or a serial port.
type conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// A stream is one live connection and what arrived on it. Its goroutine reads
// until the connection is closed, so that what nobody asked for does not lie in
// wait for the next answer, and so that silence is measured where it is heard.
// Where the kernel can be asked what lies unread, reading and noting are one
// step: this program may have stood still, and then what is heard now is old.
type stream struct {
	conn  conn
	raw   syscall.RawConn // nil: the kernel cannot be asked
	woken chan struct{}   // holds one token when something happened since it was last taken
	ended chan struct{}   // closed when the goroutine is over

	mu   sync.Mutex // covers what follows
	in   []byte     // arrived and not yet taken
	last time.Time  // when the last of it arrived
	err  error      // why the connection is over
}

// maxUnasked is how much may lie unread before a peer is given up: no answer is
// longer than a frame.
const maxUnasked = 16 * maxFrame

var errFlood = errors.New("the peer talks without being asked")

// newStream reads c in a goroutine that ends when c is closed or fails. keep
// says whether one read is worth keeping; nil keeps all.
func newStream(c conn, keep func([]byte) bool) *stream {
	s := &stream{conn: c, woken: make(chan struct{}, 1), ended: make(chan struct{})}
	if asked, ok := c.(syscall.Conn); ok && keep == nil {
		if raw, err := asked.SyscallConn(); err == nil {
			s.raw = raw
			go s.readRaw()
			return s
		}
	}
	go s.read(keep)
	return s
}

func (s *stream) read(keep func([]byte) bool) {
	defer close(s.ended)
	buf := make([]byte, 2*maxFrame)
	for {
		n, err := s.conn.Read(buf)
		if n > 0 && (keep == nil || keep(buf[:n])) || err != nil {
			if err = s.took(buf[:n], err); err != nil {
				return
			}
		}
	}
}

// readRaw is read where nothing is ever between the kernel and s.in.
func (s *stream) readRaw() {
	defer close(s.ended)
	buf := make([]byte, 2*maxFrame)
	for {
		var over error
		err := s.raw.Read(func(fd uintptr) (done bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			n, err := unix.Read(int(fd), buf)
			switch {
			case err == unix.EAGAIN || err == unix.EINTR:
				return err == unix.EINTR // and again
			case n == 0 && err == nil:
				err = io.EOF
			}
			over = s.note(buf[:max(0, n)], err)
			return true
		})
		if err != nil {
			over = s.took(nil, err)
		}
		if over != nil {
			return
		}
	}
}

// took notes what arrived, and returns why there is no more to come.
func (s *stream) took(data []byte, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.note(data, err)
}

// note is took with s.mu held.
func (s *stream) note(data []byte, err error) error {
	s.in = append(s.in, data...)
	if len(data) > 0 {
		s.last = time.Now()
	}
	if err == nil && len(s.in) > maxUnasked {
		err = errFlood
	}
	s.err = err
	select {
	case s.woken <- struct{}{}:
	default:
	}
	return err
}

// look calls f with what has arrived and then removes as much as it says.
func (s *stream) look(f func(in []byte) (taken int)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := f(s.in)
	s.in = s.in[:copy(s.in, s.in[taken:])]
	return s.err
}

// silent is how long nothing has arrived, if that is less than want. Otherwise
// it throws away what had arrived and returns zero.
func (s *stream) silent(want time.Duration) (wait time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if wait := want - time.Since(s.last); wait > 0 {
		return wait, nil
	}
	if s.unread() {
		return time.Millisecond, nil
	}
	s.in = s.in[:0]
	return 0, nil
}

// unread reports whether something arrived and is not in s.in, with s.mu held.
func (s *stream) unread() bool {
	if s.raw == nil {
		return false
	}
	waiting := 0
	err := s.raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			waiting = n
		}
	})
	return err == nil && waiting > 0
}

// over returns why the connection is over, or nil.
func (s *stream) over() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close ends the connection and waits for the goroutine.
func (s *stream) close() error {
	err := s.conn.Close()
	<-s.ended
	return err
}
