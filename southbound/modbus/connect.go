package modbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/goburrow/modbus"
)

// broken reports whether err says that the connection cannot be used further.
func broken(err error) bool {
	var exception *modbus.ModbusError
	return err != nil && !errors.As(err, &exception) && !errors.Is(err, errTimeout) && !errors.Is(err, errGarbled)
}

// connect makes a connection unless there is one: to the endpoint that worked
// last, or else to the others.
func (l *line) connect(ctx context.Context) error {
	if l.stream != nil {
		return nil
	}
	var failed error
	for range l.bus.endpoints {
		l.endpoint = l.bus.endpoints[l.at%len(l.bus.endpoints)]
		c, err := l.dial(ctx)
		if err == nil {
			return l.adopt(ctx, c)
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		l.at++
		failed = errors.Join(failed, err)
	}
	return failed
}

func (l *line) dial(ctx context.Context) (conn, error) {
	b, e := l.bus, l.endpoint
	if e.transport.serial() {
		return openPort(e.address, b.cfg.Serial)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	c, err := b.cfg.Dial(ctx, e.address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w; check the address, the network and that the device is switched on", e.address, err)
	}
	if !e.transport.tls {
		return c, ctx.Err()
	}
	cfg, err := b.cfg.TLS(e.host)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	secure := tls.Client(c, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close() // the handshake's error says more
		return nil, fmt.Errorf("connect to %s: %w; check the certificates of both ends, and that it is a port for TLS", e.address, err)
	}
	return secure, nil
}

// adopt makes c the line's connection, unless the bus was closed meanwhile.
func (l *line) adopt(ctx context.Context, c conn) error {
	var keep func([]byte) bool
	t := l.endpoint.transport
	if t.datagram() {
		keep = func(datagram []byte) bool { // one frame each, whole
			_, n, err := t.framing.cut(datagram, frame{})
			return err == nil && n == len(datagram)
		}
	}
	s, err := l.bus.own(c, keep)
	if err != nil {
		return err
	}
	l.stream = s
	l.first = l.transaction + 1
	l.silent = 0
	l.bus.counters.connects.Add(1)
	if !t.numbered {
		l.quiet = time.Now().Add(l.bus.cfg.LateWindow)
	}
	for unit, until := range l.owing { // a converter may pass it on to the new connection
		if until.After(l.quiet) {
			l.quiet = until
		}
		delete(l.owing, unit)
	}
	if err := wait(ctx, l.bus.cfg.PauseAfterConnect); err != nil {
		l.drop()
		return err
	}
	return nil
}

// own starts reading c, unless the bus is closed.
func (b *Bus) own(c conn, keep func([]byte) bool) (*stream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.Join(errClosed, c.Close())
	}
	s := newStream(c, keep)
	b.streams[s] = true
	return s, nil
}

// disown closes a stream that Close has not closed.
func (b *Bus) disown(s *stream) error {
	b.mu.Lock()
	mine := b.streams[s]
	delete(b.streams, s)
	b.mu.Unlock()
	if !mine {
		return nil
	}
	return s.close()
}

// wait returns nil after d, at once if d is not positive, or ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
