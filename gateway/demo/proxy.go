package demo

import (
	"context"
	"io"
	"net"
	"sync"
)

// A cable is the line between the gateway and the cloud, with an end that can
// be pulled.
type cable struct {
	ln     net.Listener
	server string

	mu    sync.Mutex // covers cut and conns
	cut   bool
	conns map[net.Conn]struct{}
}

func newCable(server string) (*cable, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &cable{ln: ln, server: server, conns: map[net.Conn]struct{}{}}, nil
}

// Run carries bytes until ctx ends.
func (c *cable) Run(ctx context.Context) error {
	var lines sync.WaitGroup
	defer lines.Wait()
	stop := context.AfterFunc(ctx, func() {
		c.ln.Close()
		c.pull()
	})
	defer stop()
	for {
		conn, err := c.ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		lines.Go(func() { c.carry(conn) }) // ends when either side does, or with pull
	}
}

func (c *cable) carry(near net.Conn) {
	defer near.Close()
	if !c.add(near) {
		return
	}
	defer c.remove(near)
	far, err := net.Dial("tcp", c.server)
	if err != nil {
		return // the gateway sees its connection close and tries again
	}
	defer far.Close()
	if !c.add(far) {
		return
	}
	defer c.remove(far)
	var back sync.WaitGroup
	back.Go(func() { // ends when far or near closes
		io.Copy(near, far)
		near.Close()
	})
	io.Copy(far, near)
	far.Close()
	back.Wait()
}

func (c *cable) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false
	}
	c.conns[conn] = struct{}{}
	return true
}

func (c *cable) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// pull cuts what is connected and whatever tries to connect.
func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for conn := range c.conns {
		conn.Close()
	}
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

func (c *cable) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}
