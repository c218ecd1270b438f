package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// listenSerial makes a pseudo-terminal that answers like a serial port, and a
// link to it at the simulator's address.
func (s *Simulator) listenSerial(ctx context.Context, v *service, f framing) error {
	master, name, err := openPseudoTerminal()
	if err != nil {
		return fmt.Errorf("make a serial port: %w", err)
	}
	if old, err := os.Readlink(s.address); err == nil && strings.HasPrefix(old, "/dev/pts/") {
		_ = os.Remove(s.address) // left by an earlier run; if it stays, the link fails
	}
	if err := os.Symlink(name, s.address); err != nil {
		return errors.Join(err, master.Close())
	}
	v.stopped = func() error { return os.Remove(s.address) } // serveConn closes the terminal
	var conn io.ReadWriteCloser = &terminal{File: master, ctx: ctx.Done()}
	if s.cfg.Baud > 0 {
		conn = &paced{ReadWriteCloser: conn, character: 11 * time.Second / time.Duration(s.cfg.Baud)}
	}
	v.running.Go(func() { s.serveConn(ctx, conn, f) })
	return nil
}

func openPseudoTerminal() (master *os.File, name string, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, "", errors.Join(err, master.Close())
	}
	var number uint32
	control := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if number, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN); err != nil {
			return
		}
		// Until the client sets it up, nothing is echoed or changed.
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, &unix.Termios{Cflag: unix.CREAD | unix.CLOCAL | unix.CS8 | unix.B9600})
	})
	if err = errors.Join(control, err); err != nil {
		return nil, "", errors.Join(err, master.Close())
	}
	return master, fmt.Sprintf("/dev/pts/%d", number), nil
}

// A terminal is the device's end of a serial port. While nobody has opened the
// other end, it waits.
type terminal struct {
	*os.File
	ctx <-chan struct{}
}

func (t *terminal) Read(p []byte) (int, error) {
	for {
		n, err := t.File.Read(p)
		if !errors.Is(err, unix.EIO) {
			return n, err
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.ctx:
			return 0, io.EOF
		}
	}
}

// A paced line hands on each character when its last bit would have come.
type paced struct {
	io.ReadWriteCloser
	character time.Duration
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.ReadWriteCloser.Read(b)
	time.Sleep(time.Duration(n) * p.character)
	return n, err
}

func (p *paced) Write(b []byte) (int, error) {
	const chunk = 16 // as many as the receivers of real ports gather
	start, done := time.Now(), 0
	for done < len(b) {
		n := min(chunk, len(b)-done)
		time.Sleep(time.Until(start.Add(time.Duration(done+n) * p.character)))
		if _, err := p.ReadWriteCloser.Write(b[done : done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
