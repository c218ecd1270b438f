package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A service is what listens between Listen or Mend and Break or Close.
type service struct {
	cancel  context.CancelFunc
	stopped func() error // closes the listener
	running sync.WaitGroup
	conns   atomic.Int32
}

// stop ends all connections and waits for their goroutines.
func (v *service) stop() error {
	v.cancel()
	err := v.stopped()
	v.running.Wait()
	return err
}

// listen starts a service. The simulator's address becomes what was bound.
func (s *Simulator) listen() (*service, error) {
	f, ok := framings[s.scheme]
	if !ok {
		return nil, fmt.Errorf("no transport %q; known are tcp, tls, udp, rtu, ascii, rtu+tcp, ascii+tcp", s.scheme)
	}
	ctx, cancel := context.WithCancel(context.Background())
	v := &service{cancel: cancel}
	var err error
	switch s.scheme {
	case "rtu", "ascii":
		err = s.listenSerial(ctx, v, f)
	case "udp":
		err = s.listenUDP(ctx, v, f)
	default:
		err = s.listenTCP(ctx, v, f)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return v, nil
}

func (s *Simulator) listenTCP(ctx context.Context, v *service, f framing) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	s.address, v.stopped = l.Addr().String(), l.Close
	if s.scheme == "tls" {
		if s.cfg.TLS == nil {
			return errors.Join(errors.New("tls needs a certificate"), l.Close())
		}
		l = tls.NewListener(l, s.cfg.TLS)
	}
	v.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if v.conns.Add(1) > 1 && s.hasFault(OneConnection) {
				v.conns.Add(-1)
				_ = conn.Close() // as such devices do
				continue
			}
			v.running.Go(func() {
				defer v.conns.Add(-1)
				s.serveConn(ctx, conn, f)
			})
		}
	})
	return nil
}

func (s *Simulator) hasFault(f Fault) bool {
	for _, have := range s.cfg.Faults {
		if have == f {
			return true
		}
	}
	return false
}

func (s *Simulator) listenUDP(ctx context.Context, v *service, f framing) error {
	l, err := net.ListenPacket("udp", s.address)
	if err != nil {
		return err
	}
	s.address, v.stopped = l.LocalAddr().String(), l.Close
	v.running.Go(func() {
		var answers sync.WaitGroup
		defer answers.Wait()
		buf := make([]byte, 1500)
		for {
			n, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			request, _ := f.take(buf[:n])
			if request.pdu == nil {
				continue
			}
			came := time.Now()
			a := message{request.transaction, request.unit, s.answer(request.unit, request.pdu)}
			if a.pdu == nil {
				continue
			}
			parts := s.hurt(f, request, a)
			answers.Go(func() {
				for _, p := range parts {
					if !p.hangUp && until(ctx, came.Add(p.after)) {
						_, _ = l.WriteTo(append(p.data, p.rest...), from) // who is gone needs no answer
					}
				}
			})
		}
	})
	return nil
}

// serveConn answers the requests of one connection until it or ctx ends.
func (s *Simulator) serveConn(ctx context.Context, conn io.ReadWriteCloser, f framing) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read
	w := &wire{conn: conn}
	defer w.late.Wait()
	defer stop()
	defer cancel()
	defer conn.Close()
	var in []byte
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for {
			request, taken := f.take(in)
			if taken == 0 {
				break
			}
			in = in[taken:]
			if request.pdu == nil {
				continue
			}
			a := message{request.transaction, request.unit, s.answer(request.unit, request.pdu)}
			if a.pdu != nil && !w.send(ctx, s.hurt(f, request, a), s.patience()) {
				return
			}
		}
	}
}

// patience is after how long an answer that could not go out in its time does
// not go out at all.
func (s *Simulator) patience() time.Duration { return 2 * s.cfg.Late }

// A wire is one connection on which answers overtake each other.
type wire struct {
	conn io.Writer
	mu   sync.Mutex // covers writing to conn, and is held over it: a part goes out in one piece
	late sync.WaitGroup
}

// send puts the parts out: those without delay at once, the others while
// further requests are answered. It returns false when the connection is over.
func (w *wire) send(ctx context.Context, parts []part, patience time.Duration) bool {
	came := time.Now()
	for i, p := range parts {
		if p.hangUp {
			return false
		}
		if p.after > 0 {
			w.late.Go(func() {
				for _, p := range parts[i:] {
					if !until(ctx, came.Add(p.after)) || time.Since(came) > patience {
						return
					}
					_ = w.write(ctx, p) // the reader hears of it
				}
			})
			return true
		}
		if time.Since(came) > patience {
			return true
		}
		if w.write(ctx, p) != nil {
			return false
		}
	}
	return true
}

// write puts a part out. Nothing comes between its two halves: frames follow
// one another, however slowly.
func (w *wire) write(ctx context.Context, p part) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.conn.Write(p.data); err != nil || p.rest == nil {
		return err
	}
	until(ctx, time.Now().Add(p.pause))
	_, err := w.conn.Write(p.rest)
	return err
}

// until waits for a time and returns false if ctx ended before.
func until(ctx context.Context, at time.Time) bool {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
