package gateway

import (
	"cmp"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/northbound"
	"github.com/headgate-io/headgate/storequeue"
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
			Last: q.Last, Bytes: q.Bytes, MaxBytes: g.cfg.Queue.MaxSize, Segments: q.Segments, Refused: q.Refused, Written: q.Written, Payload: q.Payload, Damaged: q.Damaged, Compactions: q.Compactions, CompactedBytes: q.CompactedBytes,
			Readers: []admin.ReaderStatus{}, Lanes: []admin.LaneStatus{}, Lost: lostStatus(&q), Corrupt: len(q.Aside),
		},
		Links: []admin.LinkStatus{},
	}
	if err := g.queue.HasRoom(); err != nil {
		st.Queue.Full = err.Error()
	}
	waiting, byName := map[string]uint64{}, map[string]storequeue.ReaderStats{}
	for _, r := range q.Readers {
		waiting[r.Name], byName[r.Name] = r.Waiting, r
		if r.Durable {
			st.Queue.Readers = append(st.Queue.Readers, admin.ReaderStatus{Name: r.Name, Acked: r.Acked, Waiting: r.Waiting})
		}
	}
	for _, l := range g.links {
		s := l.Stats()
		var total uint64
		for _, r := range l.lanes.readers() {
			total += waiting[r.Name()]
		}
		st.Queue.Lanes = append(st.Queue.Lanes, g.laneStatus(l.name, &l.lanes, byName)...)
		st.Links = append(st.Links, admin.LinkStatus{
			Name: l.name, Connected: s.Connected, Since: s.Since, Server: s.Server, Waiting: total,
			Delivered: s.Acked, Forbidden: s.Skipped, Expired: s.Expired, Refused: s.Quarantined, Error: s.LastError,
			Received: s.Received, Unwanted: s.Unwanted, Looped: s.Looped, Replayed: s.Replayed, BytesIn: s.BytesIn, BytesOut: s.BytesOut, CatchUp: catchUp(&s, time.Now()),
		})
	}
	st.Devices, st.Buses = g.deviceStatus(), g.busStatus()
	st.Commands = map[string]uint64{}
	if g.commands != nil {
		st.Commands = g.commands.counts.get()
	}
	st.Clients = g.clientStatus()
	st.Certificates = g.certificateStatus()
	return st
}

// catchUp is how a link comes along with its backlog; nil: it has none.
func catchUp(s *northbound.Stats, now time.Time) *admin.CatchUpStatus {
	if !s.Connected || s.Backlog == 0 {
		return nil
	}
	c := &admin.CatchUpStatus{Left: s.Backlog, Of: max(s.BacklogAtUp, s.Backlog), ETA: -1}
	c.PerSecond = float64(c.Of-c.Left) / max(now.Sub(s.Since).Seconds(), 1)
	if c.PerSecond > 0 {
		c.ETA = int64(math.Ceil(float64(c.Left) / c.PerSecond))
	}
	return c
}

func (g *Gateway) deviceStatus() []admin.DeviceStatus {
	all := []admin.DeviceStatus{}
	for i, d := range g.devices { // in the order of the configuration
		s := d.Stats()
		all = append(all, admin.DeviceStatus{
			ID: d.ID, State: string(s.State), Since: s.Since, LastGood: s.LastGood, Error: s.LastError,
			Polls: s.Polls, Missed: s.Missed, Refused: s.Refused, Holes: holes(&g.cfg.Devices[i], d.Adapter),
		})
	}
	return all
}

func (g *Gateway) busStatus() []admin.BusStatus {
	all := []admin.BusStatus{}
	for _, name := range slices.Sorted(maps.Keys(g.buses)) {
		s := g.buses[name].Stats()
		all = append(all, admin.BusStatus{
			Name: name, Connects: s.Connects, Requests: s.Requests, Timeouts: s.Timeouts, Late: s.Late,
			Garbled: s.Garbled, Exceptions: s.Exceptions, Missed: s.Overruns, Silent: s.Silent,
		})
	}
	return all
}

// laneStatus is one status a lane that is configured; what is left of others, and
// the gateway's own, counts for the link as a whole.
func (g *Gateway) laneStatus(link string, l *lanes, stats map[string]storequeue.ReaderStats) (all []admin.LaneStatus) {
	for i, r := range l.all {
		s := stats[r.Name()]
		all = append(all, admin.LaneStatus{Link: link, Lane: g.cfg.Queue.Lanes[i].Name, Waiting: s.Waiting, Bytes: s.Bytes, Oldest: s.Oldest})
	}
	return all
}

// lostStatus sums what was lost by kind of reader and reason.
func lostStatus(q *storequeue.Stats) []admin.LostStatus {
	type cause struct{ kind, reason string }
	sums := map[cause]uint64{}
	count := func(kind string, lost map[storequeue.Reason]uint64) {
		for reason, n := range lost {
			if n > 0 {
				sums[cause{kind, string(reason)}] += n
			}
		}
	}
	count("any", q.Lost)
	for _, r := range q.Readers {
		if kind := kindOf(r.Name); kind != "" {
			count(kind, r.Lost)
		}
	}
	all := []admin.LostStatus{}
	for c, n := range sums {
		all = append(all, admin.LostStatus{Kind: c.kind, Reason: c.reason, Count: n})
	}
	slices.SortFunc(all, func(x, y admin.LostStatus) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Reason, y.Reason))
	})
	return all
}

func (g *Gateway) clientStatus() admin.ClientStatus {
	b, a := g.broker.Stats(), g.gate.Stats()
	st := admin.ClientStatus{
		Connected: b.Connections, Sessions: b.Sessions, LoginFailures: b.AuthFailures, Denied: b.Denied,
		DroppedSlow: b.DroppedSlow, DroppedLarge: b.DroppedLarge, DroppedOld: b.DroppedExpired,
		DroppedQueue: b.DroppedQueue, Panics: b.Panics,
		Retained: b.Retained, RetainedBytes: b.RetainedBytes, RetainedRefused: b.RetainedRefused,
		Received: b.Received, Sent: b.Delivered, BytesIn: b.BytesIn, BytesOut: b.BytesOut, Takeovers: b.Takeovers,
		LockedUsers: a.LockedUsers, LockedAddresses: a.LockedAddresses, Hashed: a.Hashed, Remembered: a.Remembered,
		Logins: b.Logins, LimitHits: b.LimitHits, SlowClients: []string{}, Listeners: []admin.ListenerStatus{},
	}
	for _, c := range g.clients() {
		if c.Slow() {
			if st.Slow++; st.Slow <= 10 {
				st.SlowClients = append(st.SlowClients, c.ID)
			}
		}
		if c.Connected {
			st.Listeners = countListener(st.Listeners, c.Listener, c.MQTT)
		}
	}
	slices.SortFunc(st.Listeners, func(x, y admin.ListenerStatus) int {
		return cmp.Or(cmp.Compare(x.Listener, y.Listener), cmp.Compare(x.MQTT, y.MQTT))
	})
	return st
}

func countListener(all []admin.ListenerStatus, listener, version string) []admin.ListenerStatus {
	for i := range all {
		if all[i].Listener == listener && all[i].MQTT == version {
			all[i].Connections++
			return all
		}
	}
	return append(all, admin.ListenerStatus{Listener: listener, MQTT: version, Connections: 1})
}

func (g *Gateway) clients() []admin.Client {
	all := []admin.Client{}
	for _, c := range g.broker.Clients() {
		cl := admin.Client{
			ID: c.ID, Identity: c.Identity, Connected: c.Connected, Subscriptions: c.Subscriptions, InFlight: c.InFlight, Waiting: c.Waiting,
			Since: c.Since, Listener: c.Listener, MQTT: c.MQTT,
			Received: c.Received, Sent: c.Sent, BytesIn: c.BytesIn, BytesOut: c.BytesOut, Dropped: c.Dropped,
		}
		if c.Connected {
			cl.Remote = c.Remote.String()
		}
		all = append(all, cl)
	}
	return all
}

// Published is how many messages devices have handed over since the start.
func (g *Gateway) Published() uint64 { return g.published.Load() }
