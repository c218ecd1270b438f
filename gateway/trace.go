package gateway

import (
	"context"
	"fmt"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/southbound/modbus"
)

// maxUnshown is how many frames wait for a slow onlooker; what is more is left
// out, so that the bus waits for nobody.
const maxUnshown = 1000

// trace hands the frames of a bus to send until ctx ends. Of a device, those of
// its unit.
func (g *Gateway) trace(ctx context.Context, name string, begun func() error, send func(admin.Frame) error) error {
	bus, unit := g.buses[name], -1
	for _, d := range g.cfg.Devices {
		if bus == nil && d.ID == name && d.Adapter == builtInAdapter {
			bus, unit = g.buses[d.Bus], int(d.Unit)
		}
	}
	if bus == nil {
		return fmt.Errorf("%w: %.64q", admin.ErrNoBus, name)
	}
	frames := make(chan modbus.Frame, maxUnshown)
	stop := bus.Watch(func(f modbus.Frame) {
		if unit >= 0 && f.Note == "" && int(f.Unit) != unit {
			return
		}
		select {
		case frames <- f:
		default:
		}
	})
	defer stop()
	if err := begun(); err != nil {
		return err
	}
	for {
		select {
		case f := <-frames:
			if err := send(AdminFrame(f)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AdminFrame is a frame as the admin socket has it.
func AdminFrame(f modbus.Frame) admin.Frame {
	return admin.Frame{Time: f.Time, Sent: f.Sent, Transaction: f.Transaction, Unit: f.Unit, PDU: f.PDU, Note: f.Note}
}

// ModbusFrame is the inverse of AdminFrame.
func ModbusFrame(f admin.Frame) modbus.Frame {
	return modbus.Frame{Time: f.Time, Sent: f.Sent, Transaction: f.Transaction, Unit: f.Unit, PDU: f.PDU, Note: f.Note}
}
