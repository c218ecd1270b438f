package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// Dial connects and waits for the server's CONNACK until ctx ends. A refusal is
// a *RefusedError.
func Dial(ctx context.Context, o Options) (*Client, error) {
	var conn net.Conn
	var err error
	if o.TLS != nil {
		conn, err = (&tls.Dialer{Config: o.TLS}).DialContext(ctx, "tcp", o.Address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", o.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.Address, err)
	}
	c, err := Open(ctx, conn, o)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.Address, err)
	}
	return c, nil
}

// Open is Dial over a connection that exists. It closes conn on error.
func Open(ctx context.Context, conn net.Conn, o Options) (*Client, error) {
	if o.Version == 0 {
		o.Version = mqtt.V5
	}
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = math.MaxUint16
	}
	c := &Client{
		conn:     conn,
		version:  o.Version,
		options:  o,
		decoder:  mqtt.NewDecoder(conn, int(o.MaximumPacket)),
		received: make(map[uint16]struct{}),
		wake:     make(chan struct{}, 1),
		stopped:  make(chan struct{}),
		done:     make(chan struct{}),
		drained:  make(chan struct{}),
		inFlight: make(map[uint16]*exchange),
	}
	c.decoder.SetVersion(o.Version)
	if err := c.shakeHands(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	c.window = make(chan struct{}, min(int(c.connack.ReceiveMaximum), maxInFlight))
	written := make(chan struct{})
	go c.write(written) // ends after stop
	go c.read(written)  // ends after stop or with the connection; waits for write
	return c, nil
}

func (c *Client) shakeHands(ctx context.Context) error {
	release := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	connack, err := c.exchangeConnect()
	if !release() { // the deadline is or will be set: the connection is lost
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if connack.Code != mqtt.Success {
		return &RefusedError{"connect", connack.Code, connack.ReasonString}
	}
	if connack.SessionPresent && c.options.CleanStart { // [MQTT-3.2.2-2]
		return fmt.Errorf("server resumes a session that was to start clean")
	}
	if connack.HasServerKeepAlive { // [MQTT-3.1.2-21]
		c.options.KeepAlive = time.Duration(connack.ServerKeepAlive) * time.Second
	}
	c.connack = *connack
	return nil
}

func (c *Client) exchangeConnect() (*mqtt.Connack, error) {
	connect, err := c.options.connectPacket()
	if err != nil {
		return nil, err
	}
	wire, err := mqtt.Append(nil, c.version, connect)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(wire); err != nil {
		return nil, fmt.Errorf("send CONNECT: %w", err)
	}
	p, err := c.decoder.Read()
	if err != nil {
		return nil, fmt.Errorf("read CONNACK: %w", err)
	}
	connack, ok := p.(*mqtt.Connack)
	if !ok { // [MQTT-3.2.0-1]
		return nil, fmt.Errorf("server answers CONNECT with %v", p.Type())
	}
	return connack, nil
}
