package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// request sends p under a fresh packet identifier, put into *id, and keeps e
// until the answer. On error e.done is not called.
func (c *Client) request(ctx context.Context, p mqtt.Packet, id *uint16, e *exchange) error {
	return c.enqueue(ctx, func() error {
		for taken := true; taken; _, taken = c.inFlight[c.lastID] {
			if c.lastID++; c.lastID == 0 {
				c.lastID = 1
			}
		}
		*id = c.lastID
		if err := c.encode(p); err != nil {
			return err
		}
		c.inFlight[*id] = e
		return nil
	})
}

// send queues p; done is called when it is written. On error it is not called.
func (c *Client) send(ctx context.Context, p mqtt.Packet, done func(error)) error {
	return c.enqueue(ctx, func() error {
		if err := c.encode(p); err != nil {
			return err
		}
		c.sent = append(c.sent, done)
		return nil
	})
}

// enqueue runs add under the lock as soon as the writer's buffer has room.
func (c *Client) enqueue(ctx context.Context, add func() error) error {
	for {
		c.mu.Lock()
		if c.err != nil || c.closing {
			c.mu.Unlock()
			return c.cause()
		}
		if len(c.unsent) < maxUnsent {
			err := add()
			c.mu.Unlock()
			c.signal()
			return err
		}
		drained := c.drained
		c.mu.Unlock()
		select {
		case <-drained:
		case <-c.stopped:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// encode appends p to what the writer takes next. The lock is held.
func (c *Client) encode(p mqtt.Packet) error {
	before := len(c.unsent)
	wire, err := mqtt.Append(c.unsent, c.version, p)
	if err != nil {
		return err
	}
	if size, limit := len(wire)-before, int(c.connack.MaximumPacket); limit > 0 && size > limit { // [MQTT-3.2.2-15]
		return fmt.Errorf("%v of %d bytes: the server takes %d at most", p.Type(), size, limit)
	}
	c.unsent = wire
	return nil
}

// cause is why nothing more can be sent.
func (c *Client) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return errDisconnected // DISCONNECT is queued
	}
	return c.err
}

// reply queues an acknowledgement. It never waits, for it runs on the reader.
func (c *Client) reply(kind mqtt.Type, id uint16, code mqtt.ReasonCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil
	}
	if c.replies++; c.replies > maxReplies {
		return errors.New("server sends and does not read")
	}
	defer c.signal()
	return c.encode(&mqtt.Ack{Kind: kind, PacketID: id, Code: code})
}

// write sends what is queued, and pings, until stop.
func (c *Client) write(written chan<- struct{}) {
	defer close(written)
	var ping <-chan time.Time
	if c.options.KeepAlive > 0 {
		ticker := time.NewTicker(c.options.KeepAlive)
		defer ticker.Stop()
		ping = ticker.C
	}
	var spare []byte
	for {
		var err error
		select {
		case <-c.stopped:
			return
		case <-ping:
			err = c.ping()
		case <-c.wake:
			spare, err = c.flush(spare)
		}
		if err != nil {
			c.stop(err)
			return
		}
	}
}

// ping asks the server for a sign of life within pingTimeout.
func (c *Client) ping() error {
	wire, _ := mqtt.Append(nil, c.version, &mqtt.Pingreq{})
	if err := c.conn.SetReadDeadline(time.Now().Add(pingTimeout)); err != nil {
		return err
	}
	return c.writeOut(wire)
}

// flush writes all that waits in one go; buf is an empty buffer to go on with.
func (c *Client) flush(buf []byte) (spare []byte, err error) {
	c.mu.Lock()
	out, sent, closing := c.unsent, c.sent, c.closing
	c.unsent, c.sent, c.replies = buf[:0], nil, 0
	close(c.drained)
	c.drained = make(chan struct{})
	c.mu.Unlock()
	if len(out) > 0 { // woken twice for one packet
		err = c.writeOut(out)
	}
	if err == nil && closing {
		err = errDisconnected
	}
	for _, done := range sent {
		if err == errDisconnected {
			done(nil)
			continue
		}
		done(err)
	}
	if cap(out) > 2*maxUnsent {
		out = nil
	}
	return out, err
}

func (c *Client) writeOut(wire []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if _, err := c.conn.Write(wire); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// read takes packets in until the connection ends, and then tells everyone.
func (c *Client) read(written <-chan struct{}) {
	for {
		err := c.readPacket()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("server did not answer a ping within %v", pingTimeout)
		}
		if errors.Is(err, io.EOF) && c.leaving() {
			err = errDisconnected // the server was faster to close than we
		}
		if err != nil {
			c.stop(err)
			break
		}
	}
	<-written
	c.mu.Lock()
	cause, lost, unsent := c.err, c.inFlight, c.sent
	c.inFlight, c.sent, c.unsent = nil, nil, nil
	c.mu.Unlock()
	for _, e := range lost {
		e.done(nil, cause)
	}
	for _, done := range unsent {
		done(cause)
	}
	close(c.done)
}

func (c *Client) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

func (c *Client) readPacket() error {
	p, err := c.decoder.Read()
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	switch p := p.(type) {
	case *mqtt.Publish:
		return c.receive(p)
	case *mqtt.Ack:
		return c.acknowledged(p)
	case *mqtt.Suback:
		return c.answer(p.PacketID, p)
	case *mqtt.Unsuback:
		return c.answer(p.PacketID, p)
	case *mqtt.Pingresp:
		return c.conn.SetReadDeadline(time.Time{})
	case *mqtt.Disconnect:
		return &RefusedError{theConnection, p.Code, p.ReasonString}
	}
	return fmt.Errorf("server sent %v", p.Type())
}

// receive hands a message on and acknowledges it.
func (c *Client) receive(p *mqtt.Publish) error {
	if p.TopicAlias > 0 { // [MQTT-3.1.2-27]: this client allows none
		return errors.New("server sent a topic alias")
	}
	if _, again := c.received[p.PacketID]; p.QoS == 2 && again { // [MQTT-4.3.3-10]
		return c.reply(mqtt.PUBREC, p.PacketID, mqtt.Success)
	}
	if p.QoS == 2 && len(c.received) >= int(c.options.ReceiveMaximum) { // [MQTT-3.3.4-9]
		return errors.New("server exceeds the receive maximum")
	}
	if c.options.OnMessage != nil {
		m := &Message{
			Topic: string(p.Topic), Payload: bytes.Clone(p.Payload), QoS: p.QoS, Retain: p.Retain, Dup: p.Dup,
			SubscriptionIDs: p.SubscriptionIDs, Properties: p.Properties,
		}
		m.CorrelationData = bytes.Clone(p.CorrelationData)
		if err := c.options.OnMessage(m); err != nil {
			return fmt.Errorf("handle message on %q: %w", m.Topic, err)
		}
	}
	switch p.QoS {
	case 1:
		return c.reply(mqtt.PUBACK, p.PacketID, mqtt.Success)
	case 2:
		c.received[p.PacketID] = struct{}{}
		return c.reply(mqtt.PUBREC, p.PacketID, mqtt.Success)
	}
	return nil
}

// acknowledged moves a QoS 1 or 2 exchange on, in either direction.
func (c *Client) acknowledged(p *mqtt.Ack) error {
	switch p.Kind {
	case mqtt.PUBREL:
		code := mqtt.Success
		if _, known := c.received[p.PacketID]; !known && c.version == mqtt.V5 {
			code = mqtt.PacketIdentifierNotFound
		}
		delete(c.received, p.PacketID)
		return c.reply(mqtt.PUBCOMP, p.PacketID, code)
	case mqtt.PUBREC:
		if p.Code.Failed() {
			return c.answer(p.PacketID, p)
		}
		c.mu.Lock()
		e := c.inFlight[p.PacketID]
		ok := e != nil && e.want == mqtt.PUBREC
		if ok {
			e.want = mqtt.PUBCOMP
		}
		c.mu.Unlock()
		if !ok {
			return fmt.Errorf("server sent PUBREC for %d, which waits for none", p.PacketID)
		}
		return c.reply(mqtt.PUBREL, p.PacketID, mqtt.Success)
	}
	return c.answer(p.PacketID, p)
}

// answer ends the exchange that waits for p.
func (c *Client) answer(id uint16, p mqtt.Packet) error {
	c.mu.Lock()
	e := c.inFlight[id]
	ok := e != nil && e.want == p.Type()
	if ok {
		delete(c.inFlight, id)
	}
	c.mu.Unlock()
	if !ok {
		return fmt.Errorf("server sent %v for %d, which waits for none", p.Type(), id)
	}
	e.done(p, nil)
	return nil
}
