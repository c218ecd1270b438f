package modbus

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Serial is how characters lie on a serial line. The zero value is what the
// standard asks for: 19200 baud, 8 bits, even parity, one stop bit.
type Serial struct {
	Baud     int    // zero: 19200
	DataBits int    // 5 to 8; zero: 8
	Parity   string // "N", "E" or "O"; empty: "E"
	StopBits int    // 1 or 2; zero: 1, and 2 without parity
	RS485    *RS485 // nil: what the port is set to
}

// RS485 is how the kernel switches the sender of a two-wire line.
type RS485 struct {
	SendLow   bool          // RTS is low while sending, and high otherwise
	Before    time.Duration // from RTS to the first bit, in whole milliseconds
	After     time.Duration // from the last bit to RTS
	HearsSelf bool          // the receiver stays on while sending
}

func (s Serial) withDefaults() Serial {
	if s.Baud == 0 {
		s.Baud = 19200
	}
	if s.DataBits == 0 {
		s.DataBits = 8
	}
	if s.Parity == "" {
		s.Parity = "E"
	}
	if s.StopBits == 0 {
		s.StopBits = 1
		if s.Parity == "N" {
			s.StopBits = 2
		}
	}
	return s
}

func (s Serial) check() error {
	s = s.withDefaults()
	switch {
	case s.Baud < 300 || s.Baud > 921600:
		return wrong("baud", "give 300 to 921600", "%d baud is impossible", s.Baud)
	case s.DataBits < 5 || s.DataBits > 8:
		return wrong("data_bits", "give 8, or 7 with ascii", "%d data bits are impossible", s.DataBits)
	case !strings.Contains("NEO", s.Parity) || len(s.Parity) != 1:
		return wrong("parity", "give N, E or O", "parity %q is unknown", s.Parity)
	case s.StopBits < 1 || s.StopBits > 2:
		return wrong("stop_bits", "give 1 or 2", "%d stop bits are impossible", s.StopBits)
	}
	return nil
}

// character is how long one character takes.
func (s Serial) character() time.Duration {
	s = s.withDefaults()
	bits := 1 + s.DataBits + s.StopBits
	if s.Parity != "N" {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(s.Baud)
}

// silence is what parts two frames: 3.5 characters, and above 19200 baud a
// fixed time (Modbus over Serial Line, 2.5.1.1).
func (s Serial) silence() time.Duration {
	if s.withDefaults().Baud > 19200 {
		return fastSilence
	}
	return s.character() * 7 / 2
}

// A port is an open serial port that nobody else may open.
type port struct{ *os.File }

// openPort opens, locks and sets up a serial port.
func openPort(path string, s Serial) (conn, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("open serial port: %w; add the gateway's user to the port's group, usually dialout", err)
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("open serial port: %w; stop the program that uses it", err)
	case err != nil:
		return nil, fmt.Errorf("open serial port: %w; check that the adapter is plugged in: ls /dev/serial/by-id", err)
	}
	if err := setUp(f, s.withDefaults()); err != nil {
		return nil, errors.Join(fmt.Errorf("serial port %s: %w", path, err), f.Close())
	}
	return port{f}, nil
}

// Close lets others open the port, too.
func (p port) Close() error {
	_ = control(p.File, func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) }) // gone with the port otherwise
	return p.File.Close()
}

func setUp(f *os.File, s Serial) error {
	err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.New("another program has locked it; stop that program")
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return control(f, func(fd int) error {
		if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
			return fmt.Errorf("%w; it is no serial port", err)
		}
		if err := setLine(fd, s); err != nil {
			return err
		}
		if s.RS485 != nil {
			if err := setRS485(fd, *s.RS485); err != nil {
				return fmt.Errorf("the port cannot switch RS-485: %w; remove rs485 if the adapter switches by itself, as most USB ones do", err)
			}
		}
		return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH)
	})
}

// control calls f with the file's descriptor.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// setLine sets speed and shape of the characters, and that nothing else is done
// to them. Errors of shape are read as NUL: the checksum finds them.
func setLine(fd int, s Serial) error {
	size := map[int]uint32{5: unix.CS5, 6: unix.CS6, 7: unix.CS7, 8: unix.CS8}[s.DataBits]
	t := unix.Termios{
		Cflag:  unix.CREAD | unix.CLOCAL | unix.BOTHER | size,
		Ispeed: uint32(s.Baud), Ospeed: uint32(s.Baud),
	}
	if s.Parity != "N" {
		t.Cflag |= unix.PARENB
		t.Iflag |= unix.INPCK
	}
	if s.Parity == "O" {
		t.Cflag |= unix.PARODD
	}
	if s.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	t.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, &t); err != nil {
		return fmt.Errorf("set %d baud, %d%s%d: %w; the port does not offer it", s.Baud, s.DataBits, s.Parity, s.StopBits, err)
	}
	return nil
}

// Flags of struct serial_rs485 in linux/serial.h.
const (
	rs485Enabled   = 1 << 0
	rs485SendHigh  = 1 << 1
	rs485AfterHigh = 1 << 2
	rs485HearsSelf = 1 << 4
)

// setRS485 passes a struct serial_rs485, 32 bytes that begin with flags and the
// two delays in milliseconds, as the first words of the larger Termios: so the
// package needs no unsafe pointer.
func setRS485(fd int, r RS485) error {
	flags := uint32(rs485Enabled | rs485SendHigh)
	if r.SendLow {
		flags = rs485Enabled | rs485AfterHigh
	}
	if r.HearsSelf {
		flags |= rs485HearsSelf
	}
	words := unix.Termios{Iflag: flags, Oflag: uint32(r.Before.Milliseconds()), Cflag: uint32(r.After.Milliseconds())}
	return unix.IoctlSetTermios(fd, unix.TIOCSRS485, &words)
}
