package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

func (b *Broker) listen(ctx context.Context) ([]net.Listener, error) {
	var lns []net.Listener
	for _, l := range b.listeners {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Address)
		if err != nil {
			for _, ln := range lns {
				ln.Close()
			}
			return nil, fmt.Errorf("%w: free the address or choose another under broker.listeners", err)
		}
		if l.TLS == nil {
			b.log.Warn("serving MQTT in plaintext on this machine only", "address", ln.Addr().String())
		}
		lns = append(lns, ln)
		b.addrs = append(b.addrs, ln.Addr())
	}
	return lns, nil
}

// The accept loop's patience after an error.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// accept starts a goroutine for each socket; it ends when the client goes or
// when Run dismisses it. Running out of file descriptors, or any other error,
// is waited out: the loop ends only with ctx.
func (b *Broker) accept(ctx context.Context, l *Listener, ln net.Listener, clients *sync.WaitGroup) {
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			b.stats.acceptErrors.Add(1)
			b.rarely.log(b.log.Error, "accept: no new clients until this is over", "address", ln.Addr().String(), "error", err)
			pause = min(max(2*pause, minAcceptPause), maxAcceptPause)
			if !wait(ctx, pause) {
				return
			}
			continue
		}
		pause = 0
		if c := b.admit(l, nc); c != nil {
			clients.Go(func() { c.serve(ctx, clients) })
		}
	}
}

// admit makes a connection of a socket, or closes it when there are too many.
func (b *Broker) admit(l *Listener, raw net.Conn) *conn {
	addr := addrOf(raw)
	if full := b.door.enter(addr); full != limitNone {
		b.stats.refusedSockets.Add(1)
		b.stats.hits.add(full)
		raw.Close()
		return nil
	}
	if l.TLS == nil {
		return newConn(b, l, raw, raw)
	}
	conf, err := l.TLS()
	if err != nil {
		b.rarely.log(b.log.Error, "no TLS configuration: client refused", "address", l.Address, "error", err)
		b.door.leave(addr, false)
		raw.Close()
		return nil
	}
	return newConn(b, l, raw, tls.Server(&shaking{Conn: raw, turns: b.turns}, conf))
}

// wait reports whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func addrOf(nc net.Conn) netip.Addr {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// The door counts sockets, those that have not logged in apart from the others.
type door struct {
	limits *atomic.Pointer[Limits]

	mu      sync.Mutex // covers the fields below
	waiting tally
	inside  tally
}

type tally struct {
	all int
	of  map[netip.Addr]int
}

func (t *tally) add(addr netip.Addr, n int) {
	t.all += n
	if t.of[addr] += n; t.of[addr] == 0 {
		delete(t.of, addr)
	}
}

func (d *door) init(l *atomic.Pointer[Limits]) {
	d.limits = l
	d.waiting.of = map[netip.Addr]int{}
	d.inside.of = map[netip.Addr]int{}
}

// enter lets a socket wait at the door, or tells the limit that keeps it out.
func (d *door) enter(addr netip.Addr) limit {
	l := d.limits.Load()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.waiting.of[addr] >= l.PreLoginPerIP:
		return limitPreLoginPerIP
	case d.waiting.all >= l.PreLogin:
		return limitPreLogin
	}
	d.waiting.add(addr, 1)
	return limitNone
}

// pass lets one that waited inside, or tells the limit that keeps it out.
func (d *door) pass(addr netip.Addr) limit {
	l := d.limits.Load()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.inside.of[addr] >= l.ConnectionsPerIP:
		return limitConnectionsPerIP
	case d.inside.all >= l.Connections:
		return limitConnections
	}
	d.waiting.add(addr, -1)
	d.inside.add(addr, 1)
	return limitNone
}

// leave forgets a socket that entered, or one that also passed.
func (d *door) leave(addr netip.Addr, passed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if passed {
		d.inside.add(addr, -1)
	} else {
		d.waiting.add(addr, -1)
	}
}
