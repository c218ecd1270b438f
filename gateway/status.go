package gateway

import (
	"os"
	"path/filepath"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/config"
)

// maxSocketDir leaves room for a socket's name in the 107 bytes a path may have.
const maxSocketDir = 80

const socketName = "headgate.sock"

// runtimeDir is where sockets are: systemd's folder, else the data folder.
func runtimeDir(cfg *config.Config) string {
	if dir := os.Getenv("RUNTIME_DIRECTORY"); dir != "" {
		return dir
	}
	return cfg.Gateway.Data
}

// Socket is where the gateway of that configuration answers.
func Socket(cfg *config.Config) string {
	const packaged = "/run/headgate" // what systemd gives the unit
	if _, err := os.Stat(packaged); err == nil && os.Getenv("RUNTIME_DIRECTORY") == "" && cfg.Gateway.Data == "/var/lib/headgate" {
		return filepath.Join(packaged, socketName)
	}
	return filepath.Join(runtimeDir(cfg), socketName)
}

// UsersFile is where the users of that configuration are.
func UsersFile(cfg *config.Config) string { return filepath.Join(cfg.Gateway.Data, "users") }

// Status is a snapshot for people.
func (g *Gateway) Status() admin.Status {
	q := g.queue.Stats()
	st := admin.Status{
		Gateway: admin.GatewayStatus{ID: g.cfg.Gateway.ID, Version: g.opt.Version, Started: g.started, Epoch: g.queue.Epoch()},
		Queue: admin.QueueStatus{
			Last: q.Last, Bytes: q.Bytes, MaxBytes: g.cfg.Queue.MaxSize, Segments: q.Segments, Refused: q.Refused, Damaged: q.Damaged,
			Readers: []admin.ReaderStatus{},
		},
		Links: []admin.LinkStatus{}, Devices: []admin.DeviceStatus{},
	}
	if err := g.queue.HasRoom(); err != nil {
		st.Queue.Full = err.Error()
	}
	waiting := map[string]uint64{}
	for _, r := range q.Readers {
		waiting[r.Name] = r.Waiting
		if r.Durable {
			st.Queue.Readers = append(st.Queue.Readers, admin.ReaderStatus{Name: r.Name, Acked: r.Acked, Waiting: r.Waiting})
		}
	}
	for _, l := range g.links {
		s := l.Stats()
		st.Links = append(st.Links, admin.LinkStatus{
			Name: l.name, Connected: s.Connected, Since: s.Since, Server: s.Server, Waiting: waiting[l.reader.Name()],
			Delivered: s.Acked, Forbidden: s.Skipped, Expired: s.Expired, Refused: s.Quarantined, Error: s.LastError,
		})
	}
	for _, d := range g.devices {
		s := d.Stats()
		st.Devices = append(st.Devices, admin.DeviceStatus{
			ID: d.ID, State: string(s.State), Since: s.Since, LastGood: s.LastGood, Error: s.LastError,
		})
	}
	b := g.broker.Stats()
	st.Clients = admin.ClientStatus{
		Connected: b.Connections, Sessions: b.Sessions, LoginFailures: b.AuthFailures, Denied: b.Denied,
		DroppedSlow: b.DroppedSlow, DroppedLarge: b.DroppedLarge, DroppedOld: b.DroppedExpired, Panics: b.Panics,
	}
	return st
}

// Published is how many messages devices have handed over since the start.
func (g *Gateway) Published() uint64 { return g.published.Load() }
