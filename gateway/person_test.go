package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A person is one client with a session that outlives its connections and the
// gateway's deaths: it keeps its own half of the session's state.
type person struct {
	address string
	id      string
	version mqtt.Version
	qos     byte
	scores  *scores

	mu   sync.Mutex // covers writing and the fields below
	nc   net.Conn
	been bool // the gateway acknowledged something: the session must be there again
}

func (p *person) isKnown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.been
}

func (p *person) known() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.been = true
}

// fragile is how often a connection breaks by itself: once in so many packets.
const fragile = 3000

// connect resumes the session. It returns nil when the gateway is not there.
func (p *person) connect() *mqtt.Decoder {
	nc, err := net.Dial("tcp", p.address)
	if err != nil {
		return nil
	}
	p.mu.Lock()
	p.nc = nc
	p.mu.Unlock()
	dec := mqtt.NewDecoder(nc, 0)
	dec.SetVersion(p.version)
	expiry := uint32(3600)
	if p.version == mqtt.V311 {
		expiry = 0xFFFFFFFF
	}
	p.send(&mqtt.Connect{Version: p.version, ClientID: p.id, SessionExpiry: expiry, ReceiveMaximum: 20, KeepAlive: 60})
	packet, err := dec.Read()
	ack, ok := packet.(*mqtt.Connack)
	if err != nil || !ok || ack.Code != mqtt.Success {
		nc.Close()
		return nil
	}
	if p.isKnown() && !ack.SessionPresent {
		p.scores.fault("%s: its session is gone", p.id)
	}
	return dec
}

// send writes one packet. What cannot be written is found missing by the reader.
func (p *person) send(packet mqtt.Packet) {
	b, err := mqtt.Append(nil, p.version, packet)
	if err != nil {
		p.scores.fault("%s: encode %v: %v", p.id, packet, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nc.Write(b)
	if p.been && rand.IntN(fragile) == 0 {
		p.nc.Close()
	}
}

func (p *person) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nc != nil {
		p.nc.Close()
	}
}

// pause reports whether to try again, after a moment.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(5 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

// A talker publishes numbers, rising by one. What is not finished is sent again
// on the next connection, under its packet id and in order [MQTT-4.4.0-1].
type talker struct {
	person

	state  sync.Mutex // covers the fields below
	flight []sending
	number int
}

type sending struct {
	id       uint16
	number   int
	received bool // PUBREC came: PUBREL is next
}

const talkerWindow = 20

func (p *talker) open() (open []string) {
	p.state.Lock()
	defer p.state.Unlock()
	for _, s := range p.flight {
		open = append(open, fmt.Sprintf("%s/%d as %d", p.id, s.number, s.id))
	}
	return open
}

// run publishes until talk ends, and finishes until quit does.
func (p *talker) run(talk, quit context.Context) {
	stop := context.AfterFunc(quit, p.hangUp)
	defer stop()
	for quit.Err() == nil {
		dec := p.connect()
		if dec == nil {
			if !pause(quit) {
				return
			}
			continue
		}
		if quit.Err() != nil { // it may have missed this connection
			p.hangUp()
			return
		}
		p.resume()
		gone := make(chan struct{})
		go func() { // ends with the connection
			defer close(gone)
			for p.hear(dec) {
			}
		}()
		p.talk(talk, gone)
		<-gone
		p.hangUp()
	}
}

// talk begins new messages, a few every few milliseconds.
func (p *talker) talk(ctx context.Context, gone chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			for range rand.IntN(6) {
				p.next()
			}
		}
	}
}

// next begins a message if the window has room.
func (p *talker) next() {
	p.state.Lock()
	defer p.state.Unlock()
	if len(p.flight) >= talkerWindow {
		return
	}
	p.number++
	s := sending{id: 1, number: p.number}
	for p.find(s.id) >= 0 { // the lowest that is free, so that ids come again soon
		s.id++
	}
	p.flight = append(p.flight, s)
	p.scores.mu.Lock()
	p.scores.sent[p.id] = p.number
	p.scores.mu.Unlock()
	p.publish(s, false)
}

func (p *talker) find(id uint16) int {
	for i, s := range p.flight {
		if s.id == id {
			return i
		}
	}
	return -1
}

func (p *talker) publish(s sending, dup bool) {
	p.send(&mqtt.Publish{
		Topic: []byte("plant/" + p.id), QoS: p.qos, PacketID: s.id, Dup: dup,
		Payload: fmt.Appendf(nil, "%s/%d %0100d", p.id, s.number, 0),
	})
}

func (p *talker) resume() {
	p.state.Lock()
	defer p.state.Unlock()
	for _, s := range p.flight {
		if s.received {
			p.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: s.id})
			continue
		}
		if p.qos == 1 {
			p.scores.mu.Lock()
			p.scores.resent[fmt.Sprintf("%s/%d", p.id, s.number)] = true
			p.scores.mu.Unlock()
		}
		p.publish(s, true)
	}
}

// hear takes one answer, and reports false at the connection's end.
func (p *talker) hear(dec *mqtt.Decoder) bool {
	packet, err := dec.Read()
	if err != nil {
		return false
	}
	a, ok := packet.(*mqtt.Ack)
	if !ok {
		p.scores.fault("%s got %v", p.id, packet.Type())
		return true
	}
	p.state.Lock()
	defer p.state.Unlock()
	p.known()
	i := p.find(a.PacketID)
	switch {
	case i < 0 || a.Code.Failed() && a.Code != mqtt.PacketIdentifierNotFound:
		p.scores.fault("%s: %v %d %v", p.id, a.Kind, a.PacketID, a.Code)
	case a.Kind == mqtt.PUBREC:
		if !p.flight[i].received {
			p.flight[i].received = true
			p.scores.promised()
		}
		p.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: a.PacketID})
	case a.Kind == mqtt.PUBACK && p.qos == 1, a.Kind == mqtt.PUBCOMP && p.flight[i].received:
		if p.qos == 1 {
			p.scores.promised()
		}
		p.flight = append(p.flight[:i], p.flight[i+1:]...)
	default:
		p.scores.fault("%s: %v for packet id %d, which is not there yet", p.id, a.Kind, a.PacketID)
	}
	return true
}

// A listener subscribes once, and remembers which QoS 2 packet ids wait for
// PUBREL [MQTT-4.3.3-10].
type listener struct {
	person
	pending map[uint16]bool
	ready   chan struct{} // closed when subscribed
}

func (l *listener) run(quit context.Context) {
	stop := context.AfterFunc(quit, l.hangUp)
	defer stop()
	for quit.Err() == nil {
		dec := l.connect()
		if dec == nil {
			if !pause(quit) {
				return
			}
			continue
		}
		if quit.Err() != nil { // it may have missed this connection
			l.hangUp()
			return
		}
		if !l.isKnown() {
			l.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "plant/#", QoS: l.qos}}})
		}
		for l.hear(dec) {
		}
		l.hangUp()
	}
}

func (l *listener) hear(dec *mqtt.Decoder) bool {
	packet, err := dec.Read()
	if err != nil {
		return false
	}
	switch p := packet.(type) {
	case *mqtt.Suback:
		l.known()
		close(l.ready)
	case *mqtt.Publish:
		if p.QoS < 2 || !l.pending[p.PacketID] {
			l.scores.take(&l.person, p)
		} else if !p.Dup {
			l.scores.fault("%s: packet id %d is sent again without DUP, or used for two messages", l.id, p.PacketID)
		}
		if p.QoS == 2 {
			l.pending[p.PacketID] = true
			l.send(&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: p.PacketID})
		} else {
			l.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: p.PacketID})
		}
	case *mqtt.Ack: // PUBREL
		delete(l.pending, p.PacketID)
		l.send(&mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: p.PacketID})
	default:
		l.scores.fault("%s got %v", l.id, packet.Type())
	}
	return true
}
