package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

var errDisconnected = errors.New("disconnected")

// Publish sends m and waits: with QoS 0 until it is written, else until the
// server has acknowledged it. When ctx ends first the message may still arrive.
func (c *Client) Publish(ctx context.Context, m Message) error {
	result := make(chan error, 1)
	c.publish(ctx, m, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// PublishAsync sends m as soon as the server's Receive Maximum and the writer's
// buffer have room, and waits for nothing else. done is called once, with the
// outcome that Publish would return; it must not block. m.Payload may be reused
// when PublishAsync has returned.
func (c *Client) PublishAsync(m Message, done func(error)) {
	c.publish(context.Background(), m, done)
}

func (c *Client) publish(ctx context.Context, m Message, done func(error)) {
	p := &mqtt.Publish{
		QoS: m.QoS, Retain: m.Retain, Topic: []byte(m.Topic), Payload: m.Payload, Properties: m.Properties,
	}
	if err := c.checkPublish(m); err != nil {
		done(err)
		return
	}
	if m.QoS == 0 {
		if err := c.send(ctx, p, done); err != nil {
			done(err)
		}
		return
	}
	select {
	case c.window <- struct{}{}: // [MQTT-3.3.4-7]
	case <-ctx.Done():
		done(context.Cause(ctx))
		return
	case <-c.stopped:
		done(c.cause())
		return
	}
	finish := func(err error) {
		<-c.window
		done(err)
	}
	e := &exchange{want: mqtt.PUBACK, done: func(answer mqtt.Packet, err error) {
		if a, ok := answer.(*mqtt.Ack); ok && a.Code.Failed() {
			err = &RefusedError{"publish", a.Code, a.ReasonString}
		}
		finish(err)
	}}
	if m.QoS == 2 {
		e.want = mqtt.PUBREC
	}
	if err := c.request(ctx, p, &p.PacketID, e); err != nil {
		finish(err)
	}
}

// checkPublish refuses what the server has said it will not take.
func (c *Client) checkPublish(m Message) error {
	switch err := mqtt.CheckTopic(m.Topic); {
	case err != nil:
		return fmt.Errorf("publish to %q: %w", m.Topic, err)
	case m.QoS > c.connack.MaximumQoS: // [MQTT-3.2.2-11]
		return fmt.Errorf("publish to %q: the server takes QoS %d at most", m.Topic, c.connack.MaximumQoS)
	case m.Retain && !c.connack.RetainAvailable: // [MQTT-3.2.2-14]
		return fmt.Errorf("publish to %q: the server retains nothing", m.Topic)
	}
	return nil
}

// Subscribe asks for messages and returns the server's answer to each filter; a
// refused one is a code, not an error.
func (c *Client) Subscribe(ctx context.Context, subs ...mqtt.Subscription) ([]mqtt.ReasonCode, error) {
	for _, s := range subs {
		if err := mqtt.CheckFilter(s.Filter); err != nil {
			return nil, fmt.Errorf("subscribe to %q: %w", s.Filter, err)
		}
	}
	p := &mqtt.Subscribe{Subscriptions: subs}
	codes, err := c.ask(ctx, p, &p.PacketID, mqtt.SUBACK)
	if err == nil && len(codes) != len(subs) { // [MQTT-3.8.4-6]
		err = fmt.Errorf("server answers %d filters with %d codes", len(subs), len(codes))
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return codes, nil
}

// Unsubscribe takes filters back and returns the server's answer to each; 3.1.1
// has none.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) ([]mqtt.ReasonCode, error) {
	p := &mqtt.Unsubscribe{Filters: filters}
	codes, err := c.ask(ctx, p, &p.PacketID, mqtt.UNSUBACK)
	if err == nil && c.version == mqtt.V5 && len(codes) != len(filters) {
		err = fmt.Errorf("server answers %d filters with %d codes", len(filters), len(codes))
	}
	if err != nil {
		return nil, fmt.Errorf("unsubscribe: %w", err)
	}
	return codes, nil
}

// ask sends p and returns the codes of the answer that it wants.
func (c *Client) ask(ctx context.Context, p mqtt.Packet, id *uint16, want mqtt.Type) ([]mqtt.ReasonCode, error) {
	type outcome struct {
		codes []mqtt.ReasonCode
		err   error
	}
	result := make(chan outcome, 1)
	e := &exchange{want: want, done: func(answer mqtt.Packet, err error) {
		switch a := answer.(type) {
		case *mqtt.Suback:
			result <- outcome{a.Codes, nil}
		case *mqtt.Unsuback:
			result <- outcome{a.Codes, nil}
		default:
			result <- outcome{nil, err}
		}
	}}
	if err := c.request(ctx, p, id, e); err != nil {
		return nil, err
	}
	select {
	case o := <-result:
		return o.codes, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
