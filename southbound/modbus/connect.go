package modbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// current returns the connection, or nil.
func (b *Bus) current() net.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn
}

// drop closes the connection, so that the next request makes a new one.
func (b *Bus) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		_ = b.conn.Close() // it is given up already
		b.conn = nil
	}
}

// connect makes a connection unless there is one.
func (b *Bus) connect(ctx context.Context) error {
	if b.current() != nil {
		return nil
	}
	dialling, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	conn, err := b.cfg.Dial(dialling, b.cfg.Address)
	if ctx.Err() != nil {
		if err == nil {
			err = conn.Close()
		}
		return errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w; check the address, the network and that the device is switched on",
			b.cfg.Address, err)
	}
	if err := b.adopt(conn); err != nil {
		return err
	}
	b.in = bufio.NewReaderSize(conn, 2*maxFrame)
	b.first = b.transaction + 1
	b.silent = 0
	b.counters.connects.Add(1)
	if err := wait(ctx, b.cfg.PauseAfterConnect); err != nil {
		b.drop()
		return err
	}
	return nil
}

// adopt makes conn the bus's connection, unless the bus was closed meanwhile.
func (b *Bus) adopt(conn net.Conn) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.Join(errClosed, conn.Close())
	}
	b.conn = conn
	return nil
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
