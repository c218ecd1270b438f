package northbound

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paholog "github.com/eclipse/paho.golang/paho/log"
)

// A pinger asks a server that is silent for half a keepalive whether it is
// there, and ends the connection when it has heard nothing for so long that a
// dead one is found within one and a half.
type pinger struct {
	conn    *conn
	fail    func(error)
	started <-chan struct{}
}

var pingreq = []byte{packets.PINGREQ << 4, 0}

// Run pings until ctx ends or an answer stays out.
func (p pinger) Run(ctx context.Context, _ net.Conn, keepAlive uint16) error {
	<-p.started
	if keepAlive == 0 {
		return nil
	}
	every := time.Duration(keepAlive) * time.Second
	tick := time.NewTicker(every / 20)
	defer tick.Stop()
	asked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		silent := now.Sub(p.conn.heard.when())
		if silent >= every*7/5 {
			err := fmt.Errorf("%w: it said nothing for %v", errSilent, silent.Round(time.Second))
			p.fail(err)
			return err
		}
		if max(silent, now.Sub(p.conn.said.when())) >= every/2 && now.Sub(asked) >= every/2 && p.conn.mu.TryLock() {
			p.conn.mu.Unlock() // no write hangs
			asked = now
			go p.conn.writePacket(pingreq, nil) // ends with the connection, if not before
		}
	}
}

// PacketSent, PacketReceived and PingResp tell what conn knows.
func (p pinger) PacketSent()             {}
func (p pinger) PacketReceived()         {}
func (p pinger) PingResp()               {}
func (p pinger) SetDebug(paholog.Logger) {}

// A moment is a time for many goroutines.
type moment struct{ nano atomic.Int64 }

func (m *moment) now()            { m.nano.Store(time.Now().UnixNano()) }
func (m *moment) when() time.Time { return time.Unix(0, m.nano.Load()) }
