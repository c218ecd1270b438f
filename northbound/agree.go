package northbound

import (
	"context"
	"math"

	"github.com/eclipse/paho.golang/packets"
)

// begin notes what the server allows and makes the window for it.
func (l *Link) begin(c *connection, ack *packets.Connack) *window {
	limit := math.MaxUint16 // [MQTT-3.2.2-11]: the default
	p := ack.Properties
	if p.ReceiveMaximum != nil {
		limit = max(int(*p.ReceiveMaximum), 1)
	}
	c.maxSize = math.MaxInt
	if p.MaximumPacketSize != nil {
		c.maxSize = int(*p.MaximumPacketSize)
	}
	c.retain = p.RetainAvailable == nil || *p.RetainAvailable == 1
	c.maxQoS = 2
	if p.MaximumQOS != nil {
		c.maxQoS = min(*p.MaximumQOS, 2)
	}
	if p.TopicAliasMaximum != nil {
		c.maxAlias, c.aliases = *p.TopicAliasMaximum, map[string]uint16{}
	}
	c.present = ack.SessionPresent
	l.split(min(limit, l.cfg.InFlight))
	cursors := make([]uint64, len(l.lanes))
	for i, lane := range l.lanes {
		cursors[i] = lane.Acked()
	}
	c.window = newWindow(cursors, min(limit, l.cfg.InFlight))
	if n := len(l.cfg.Live); n > 0 {
		c.window.behind.from = n
	}
	for i := range l.redo {
		if !c.present {
			clear(l.redo[i].ids)
		}
		c.window.keep(l.redo[i].ids)
	}
	return c.window
}

// agree brings what we know of the session to what the server knows, and sees
// to it that routes ask for nothing that it cannot do.
func (l *Link) agree(life context.Context, server string, c *connection) error {
	most := byte(0)
	for _, r := range l.routes.Load().send {
		most = max(most, r.sendQoS())
	}
	if most == 0 {
		return nil
	}
	if c.maxQoS == 0 {
		return errQoS
	}
	if most > c.maxQoS && !l.capped {
		l.capped = true
		l.log.Warn("the server takes QoS 1 at most: send routes with qos: 2 send at QoS 1, a repeat is possible; consumers drop it by hg-id", "server", server)
	}
	if most < 2 && l.ledger.unused() {
		c.maxQoS = 1 // a route that comes meanwhile: no packet id of QoS 2 before the ledger met the server
		return nil
	}
	return l.persist(life, func() error {
		for i, live := range l.cfg.Live {
			if err := l.ledger.cut(live.Name(), l.given[i]); err != nil {
				return err
			}
		}
		return l.ledger.meet(server, c.present)
	})
}
