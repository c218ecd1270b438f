package northbound

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// A cloud is an MQTT 5 server that follows a script. Its connections are
// pipes, so it works under synctest.
type cloud struct {
	t       *testing.T
	connack packets.Connack
	rtt     time.Duration
	// reply gives the PUBACK code for a PUBLISH; n counts all of them from 1.
	reply func(n int, p *packets.Publish) byte
	// cut says whether to drop the line at a step; n counts its kind of step from 1.
	cut func(at step, n int) bool
	// hello, if set, runs after CONNACK.
	hello func(c *cloudConn)
	// sends at QoS 2, if set
	commander *commander
	down      bool        // refuses to be dialled
	alive     func() bool // whoever dials; nil: yes
	older     bool        // speaks MQTT 3.1.1 only
	silent    atomic.Bool // reads, and says nothing
	early     bool        // a QoS 2 message is delivered at PUBLISH, not at PUBREL: the standard allows both

	mu       sync.Mutex // covers the fields below
	steps    map[step]int
	dials    int
	dialled  []time.Time
	connects []*packets.Connect
	got      []*packets.Publish // in order of arrival, repeats included
	acked    map[string]bool    // by hg-id
	order    []string           // hg-ids as acknowledged
	subs     []packets.SubOptions
	unsubs   []string
	pubacks  []uint16 // from the link
	states   []string
	byes     []byte            // codes of DISCONNECT
	maxOpen  []int             // most PUBLISH without an answer, by connection
	held     map[uint16]string // of the session: hg-ids of QoS 2 messages between PUBREC and PUBREL
	given    []string          // hg-ids of QoS 2 messages, as they were delivered
	aliased  int               // PUBLISH without a topic
	unknown  int               // PUBREL for packet ids that the session does not have
	done     sync.WaitGroup
}

type step string

const (
	atConnect step = "CONNECT"
	atConnack step = "CONNACK"
	atPublish step = "PUBLISH"
	atPuback  step = "PUBACK"

	atTaken    step = "PUBLISH taken" // at QoS 2, before PUBREC
	atPubrec   step = "PUBREC"
	atPubrel   step = "PUBREL"
	atReleased step = "PUBREL taken" // before PUBCOMP
	atPubcomp  step = "PUBCOMP"
)

type cloudConn struct {
	*cloud
	net.Conn
	acks  chan ack      // closed when reading ends
	gone  chan struct{} // closed then too
	nr    int           // index in maxOpen
	open  int           // PUBLISH without an answer; covered by mu
	alias map[uint16]string
}

type ack struct {
	due  time.Time
	p    *packets.Publish
	code byte
}

func newCloud(t *testing.T) *cloud {
	return &cloud{
		t: t, steps: map[step]int{}, acked: map[string]bool{}, held: map[uint16]string{},
		connack: packets.Connack{Properties: &packets.Properties{}},
		reply:   func(int, *packets.Publish) byte { return 0 },
		cut:     func(step, int) bool { return false },
	}
}

// dial is the link's seam.
func (c *cloud) dial(ctx context.Context, _ string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials++
	c.dialled = append(c.dialled, time.Now())
	if c.down || c.alive != nil && !c.alive() {
		return nil, &net.DNSError{Err: "no such host", Name: "cloud.test"}
	}
	near, far := net.Pipe()
	c.done.Go(func() { c.serve(far) }) // ends with the connection
	return near, nil
}

func (c *cloud) at(s step) bool {
	c.mu.Lock()
	c.steps[s]++
	n := c.steps[s]
	c.mu.Unlock()
	return c.cut(s, n)
}

func (c *cloud) serve(nc net.Conn) {
	conn := &cloudConn{cloud: c, Conn: nc, acks: make(chan ack, 70000), gone: make(chan struct{}), alias: map[uint16]string{}}
	c.mu.Lock()
	conn.nr = len(c.maxOpen)
	c.maxOpen = append(c.maxOpen, 0)
	c.mu.Unlock()
	var acker sync.WaitGroup
	acker.Go(conn.answer)
	for conn.packet() {
	}
	close(conn.acks)
	close(conn.gone)
	nc.Close()
	acker.Wait()
}

// packet handles one packet and reports whether to go on.
func (c *cloudConn) packet() bool {
	p, err := packets.ReadPacket(c)
	if err != nil {
		return false
	}
	switch p := p.Content.(type) {
	case *packets.Connect:
		return c.connect(p)
	case *packets.Subscribe:
		c.mu.Lock()
		c.subs = p.Subscriptions
		c.mu.Unlock()
		s := &packets.Suback{PacketID: p.PacketID, Properties: &packets.Properties{}, Reasons: make([]byte, len(p.Subscriptions))}
		c.send(s)
	case *packets.Unsubscribe:
		c.mu.Lock()
		c.unsubs = append(c.unsubs, p.Topics...)
		c.mu.Unlock()
		c.send(&packets.Unsuback{PacketID: p.PacketID, Properties: &packets.Properties{}, Reasons: make([]byte, len(p.Topics))})
	case *packets.Publish:
		return c.publish(p)
	case *packets.Pubrel:
		return c.pubrel(p)
	case *packets.Puback:
		c.mu.Lock()
		c.pubacks = append(c.pubacks, p.PacketID)
		c.mu.Unlock()
	case *packets.Pubrec:
		if c.at(atPubrecIn) {
			return false
		}
		c.commander.pubrec(c, p.PacketID)
	case *packets.Pubcomp:
		if c.at(atPubcompIn) {
			return false
		}
		c.commander.pubcomp(c, p.PacketID)
	case *packets.Pingreq:
		c.send(packets.NewControlPacket(packets.PINGRESP))
	case *packets.Disconnect:
		c.mu.Lock()
		c.byes = append(c.byes, p.ReasonCode)
		c.mu.Unlock()
		return false
	}
	return true
}

func (c *cloudConn) connect(p *packets.Connect) bool {
	c.mu.Lock()
	c.connects = append(c.connects, p)
	connack := c.connack
	if !connack.SessionPresent {
		clear(c.held)
	}
	c.mu.Unlock()
	if c.older {
		c.Write([]byte{0x20, 2, 0, 1}) // as 3.1.1 says that it does not know the version
		return false
	}
	if c.at(atConnect) {
		return false
	}
	if err := c.send(&connack); err != nil || connack.ReasonCode >= 0x80 || c.at(atConnack) {
		return false
	}
	if c.hello != nil {
		c.hello(c)
	}
	return true
}

func (c *cloudConn) publish(p *packets.Publish) bool {
	c.resolve(p)
	if strings.HasSuffix(p.Topic, "hg/gw/state") {
		c.mu.Lock()
		c.states = append(c.states, string(p.Payload))
		c.mu.Unlock()
		if p.QoS > 0 {
			c.send(&packets.Puback{PacketID: p.PacketID, Properties: &packets.Properties{}})
		}
		return true
	}
	c.mu.Lock()
	c.got = append(c.got, p)
	n := len(c.got)
	if p.QoS > 0 {
		c.open++
		c.maxOpen[c.nr] = max(c.maxOpen[c.nr], c.open)
	}
	c.mu.Unlock()
	if c.at(atPublish) {
		return false
	}
	if p.QoS == 0 {
		return true
	}
	code := c.reply(n, p)
	if p.QoS == 2 {
		if code < 0x80 {
			c.hold(p)
		}
		if c.at(atTaken) {
			return false
		}
	}
	c.acks <- ack{time.Now().Add(c.rtt), p, code}
	return true
}

// resolve puts the topic in place of its alias [MQTT-3.3.2-8].
func (c *cloudConn) resolve(p *packets.Publish) {
	a := p.Properties.TopicAlias
	c.mu.Lock()
	most := c.connack.Properties.TopicAliasMaximum
	c.mu.Unlock()
	switch {
	case a == nil && p.Topic != "":
	case a == nil || most == nil || *a == 0 || *a > *most:
		c.t.Errorf("topic %q with alias %v", p.Topic, a)
	case p.Topic != "":
		c.alias[*a] = p.Topic
	default:
		c.aliased++
		if p.Topic = c.alias[*a]; p.Topic == "" {
			c.t.Errorf("alias %d stands for nothing on this connection", *a)
		}
	}
}

// hold takes a QoS 2 message, once for a packet id.
func (c *cloud) hold(p *packets.Publish) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := hgID(p)
	was, ok := c.held[p.PacketID]
	switch {
	case ok && !p.Duplicate:
		c.t.Errorf("packet id %d is in use for %s, and comes without DUP for %s", p.PacketID, was, id)
	case ok && was != id:
		c.t.Errorf("packet id %d stands for %s and for %s: the second is lost", p.PacketID, was, id)
	case !ok:
		c.held[p.PacketID] = id
		if c.early {
			c.given = append(c.given, id)
		}
	}
}

func (c *cloudConn) pubrel(p *packets.Pubrel) bool {
	if c.at(atPubrel) {
		return false
	}
	comp := &packets.Pubcomp{PacketID: p.PacketID, Properties: &packets.Properties{}}
	c.mu.Lock()
	id, ok := c.held[p.PacketID]
	delete(c.held, p.PacketID)
	if ok {
		c.open--
		if !c.early {
			c.given = append(c.given, id)
		}
	} else {
		comp.ReasonCode = packets.PubcompPacketIdentifierNotFound
		c.unknown++
	}
	c.mu.Unlock()
	if c.at(atReleased) {
		return false
	}
	return c.send(comp) == nil && !c.at(atPubcomp)
}

func (c *cloud) delivered() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.given)
}

// send writes a packet in one piece: paho would write it in several, and
// packets are sent by two goroutines.
func (c *cloudConn) send(p io.WriterTo) error {
	var b bytes.Buffer
	if _, err := p.WriteTo(&b); err != nil {
		return err
	}
	if c.silent.Load() {
		return nil
	}
	_, err := c.Write(b.Bytes())
	return err
}

// answer sends PUBACKs when they are due.
func (c *cloudConn) answer() {
	for a := range c.acks {
		select {
		case <-time.After(time.Until(a.due)):
		case <-c.gone:
			return
		}
		if a.code == dropLine {
			c.Close()
			return
		}
		if a.code == sayTooLarge {
			c.send(&packets.Disconnect{ReasonCode: 0x95, Properties: &packets.Properties{}})
			c.Close()
			return
		}
		if a.code == sayPoison {
			c.send(&packets.Disconnect{ReasonCode: 0x99, Properties: &packets.Properties{}})
			c.Close()
			return
		}
		if a.p.QoS == 2 {
			if a.code >= 0x80 {
				c.mu.Lock()
				c.open--
				c.mu.Unlock()
			}
			err := c.send(&packets.Pubrec{PacketID: a.p.PacketID, ReasonCode: a.code, Properties: &packets.Properties{}})
			if err != nil || c.at(atPubrec) {
				c.Close()
				return
			}
			continue
		}
		c.mu.Lock()
		c.open--
		if id := hgID(a.p); a.code < 0x80 && !c.acked[id] {
			c.acked[id] = true
			c.order = append(c.order, id)
		}
		c.mu.Unlock()
		err := c.send(&packets.Puback{PacketID: a.p.PacketID, ReasonCode: a.code, Properties: &packets.Properties{}})
		if err != nil || c.at(atPuback) {
			c.Close()
			return
		}
	}
}

// Codes of reply that are none.
const (
	dropLine    = 1
	sayPoison   = 2
	sayTooLarge = 3
)

func (c *cloud) ackedIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

func (c *cloud) received() []*packets.Publish {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

func hgID(p *packets.Publish) string {
	for _, u := range p.Properties.User {
		if u.Key == propID {
			return u.Value
		}
	}
	return ""
}
