package admin

import (
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// metrics is everything in Prometheus' text format. Labels are names from the
// configuration, words of ours, and the names of at most clientSeries clients,
// so their number is bounded.
func metrics(st Status, clients []Client, latency *Latency) []byte {
	var p page
	p.one("start_time_seconds", "gauge", "When the gateway started, in Unix time.", st.Gateway.Started.Unix())
	p.family("build_info", "gauge", "Always 1.")
	p.value("build_info", 1, "version", st.Gateway.Version, "go", runtime.Version())
	p.process()
	p.queue(&st.Queue, time.Now())
	p.histogram("commit_seconds", "How long commits of the queue took.", &latency.Commit)
	p.histogram("publish_ack_seconds", "From a client's PUBLISH with QoS 1 or 2 until it was on disk and answered.", &latency.Acknowledged)
	p.histogram("delivery_seconds", "From PUBLISH until a subscriber with QoS 1 or 2 was sent the message for the first time.", &latency.Delivered)
	p.broker(&st.Clients)
	p.clients(clients)
	p.links(st.Links)
	p.family("certificate_not_after_seconds", "gauge", "When a certificate ends, in Unix time.")
	for _, c := range st.Certificates {
		p.value("certificate_not_after_seconds", c.NotAfter.Unix(), "use", c.Use, "name", c.Name)
	}
	p.histogram("poll_late_seconds", "From when a poll was due until the device was asked.", &latency.Polled)
	p.devices(st.Devices)
	p.buses(st.Buses)
	p.family("commands_total", "counter", "Commands to devices, by how they ended.")
	p.counts("commands_total", "state", st.Commands)
	return p.Bytes()
}

// A series is one figure of each of many.
type series[T any] struct {
	name, kind, help string
	of               func(*T) any
}

// each writes a family for each series; label names whose figure it is.
func each[T any](p *page, all []T, label func(*T) []string, families []series[T]) {
	for _, f := range families {
		p.family(f.name, f.kind, f.help)
		for i := range all {
			p.value(f.name, f.of(&all[i]), label(&all[i])...)
		}
	}
}

func (p *page) devices(all []DeviceStatus) {
	each(p, all, func(d *DeviceStatus) []string { return []string{"device", d.ID} }, []series[DeviceStatus]{
		{"device_up", "gauge", "1 while the device's values can be had.", func(d *DeviceStatus) any { return number(d.State == "online") }},
		{"device_polls_total", "counter", "Polls of a device's groups.", func(d *DeviceStatus) any { return d.Polls }},
		{"device_missed_polls_total", "counter", "Polls that did not take place because their time had passed: the device, its bus or the queue was too slow.",
			func(d *DeviceStatus) any { return d.Missed }},
		{"device_refused_total", "counter", "Times that a device's message was not taken, and offered again.", func(d *DeviceStatus) any { return d.Refused }},
	})
}

func (p *page) buses(all []BusStatus) {
	each(p, all, func(b *BusStatus) []string { return []string{"bus", b.Name} }, []series[BusStatus]{
		{"bus_requests_total", "counter", "Requests sent on a bus.", func(b *BusStatus) any { return b.Requests }},
		{"bus_connects_total", "counter", "Connections made to a bus.", func(b *BusStatus) any { return b.Connects }},
		{"bus_silent_units", "gauge", "Units that do not answer, and are asked rarely.", func(b *BusStatus) any { return b.Silent }},
	})
	p.family("bus_faults_total", "counter", "What went wrong with them: no answer in time, one that came after that, a wrong checksum or another answer than the one that was asked for, a refusal.")
	for _, b := range all {
		p.value("bus_faults_total", b.Timeouts, "bus", b.Name, "fault", "timeout")
		p.value("bus_faults_total", b.Late, "bus", b.Name, "fault", "late")
		p.value("bus_faults_total", b.Garbled, "bus", b.Name, "fault", "garbled")
		p.value("bus_faults_total", b.Exceptions, "bus", b.Name, "fault", "exception")
	}
}

// process is what the system says about us; what it does not say is left out.
func (p *page) process() {
	p.one("goroutines", "gauge", "Goroutines.", runtime.NumGoroutine())
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.one("open_fds", "gauge", "Open file descriptors.", len(fds))
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		p.one("max_fds", "gauge", "File descriptors that may be open.", limit.Cur)
	}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(text)); len(f) > 1 {
			if pages, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				p.one("resident_memory_bytes", "gauge", "Memory in use.", pages*uint64(os.Getpagesize()))
			}
		}
	}
}

func (p *page) queue(q *QueueStatus, now time.Time) {
	p.one("queue_last_sequence", "counter", "Sequence number of the newest message on disk.", q.Last)
	p.one("queue_bytes", "gauge", "Disk used by the queue.", q.Bytes)
	p.one("queue_max_bytes", "gauge", "Disk the queue may use.", q.MaxBytes)
	p.one("queue_refused_total", "counter", "Messages refused because the queue was full.", q.Refused)
	p.one("queue_compactions_total", "counter", "Segments rewritten because most of each was dead.", q.Compactions)
	p.one("queue_compacted_bytes_total", "counter", "Bytes written to rewrite segments.", q.CompactedBytes)
	p.one("queue_written_bytes_total", "counter", "Bytes that the queue handed to the disk: what wears it.", q.Written)
	p.one("queue_payload_bytes_total", "counter", "Bytes of payload that the queue took.", q.Payload)
	p.one("queue_damaged_total", "counter", "Times a damaged message was left out.", q.Damaged)
	p.one("queue_corrupt_files", "gauge", "Damaged files that were put aside.", q.Corrupt)
	p.family("queue_lost_total", "counter", "Acknowledged messages that will not be delivered, by kind of reader and reason.")
	for _, l := range q.Lost {
		p.value("queue_lost_total", l.Count, "reader", l.Kind, "reason", l.Reason)
	}
	each(p, q.Lanes, func(l *LaneStatus) []string { return []string{"link", l.Link, "lane", l.Lane} }, []series[LaneStatus]{
		{"lane_waiting_messages", "gauge", "Messages on disk that wait in a lane of a link.", func(l *LaneStatus) any { return l.Waiting }},
		{"lane_bytes", "gauge", "Disk that they use.", func(l *LaneStatus) any { return l.Bytes }},
		{"lane_oldest_seconds", "gauge", "Age of the oldest of them; 0: there is none.", func(l *LaneStatus) any {
			if l.Oldest.IsZero() {
				return 0.0
			}
			return max(0, now.Sub(l.Oldest).Round(time.Millisecond).Seconds())
		}},
	})
}

func (p *page) broker(c *ClientStatus) {
	p.one("clients_connected", "gauge", "Local clients that are logged in.", c.Connected)
	p.one("sessions", "gauge", "Local sessions, connected or waiting.", c.Sessions)
	p.family("connections", "gauge", "Local clients that are logged in, by listener and version of MQTT.")
	for _, l := range c.Listeners {
		p.value("connections", l.Connections, "listener", l.Listener, "mqtt", l.MQTT)
	}
	p.one("messages_received_total", "counter", "Messages accepted from clients, devices and links.", c.Received)
	p.one("messages_sent_total", "counter", "Messages handed to clients' sockets.", c.Sent)
	p.one("received_bytes_total", "counter", "Bytes of MQTT from clients.", c.BytesIn)
	p.one("sent_bytes_total", "counter", "Bytes of MQTT to clients.", c.BytesOut)
	p.family("logins_total", "counter", "Logins, by how they ended.")
	p.counts("logins_total", "result", c.Logins)
	p.one("login_failures_total", "counter", "Logins refused.", c.LoginFailures)
	p.family("password_checks_total", "counter", "Passwords checked: by a hash, or found right by what is remembered of reconnecting clients.")
	p.value("password_checks_total", c.Hashed, "by", "hash")
	p.value("password_checks_total", c.Remembered, "by", "memory")
	p.family("lockouts", "gauge", "Locked out at the moment: addresses, and users at one address.")
	p.value("lockouts", c.LockedUsers, "of", "user")
	p.value("lockouts", c.LockedAddresses, "of", "address")
	p.one("retained_messages", "gauge", "Retained messages.", c.Retained)
	p.one("retained_bytes", "gauge", "Memory they take.", c.RetainedBytes)
	p.one("retained_refused_total", "counter", "Messages that were not retained for want of room.", c.RetainedRefused)
	p.one("denied_total", "counter", "Actions refused by the rules.", c.Denied)
	p.one("takeovers_total", "counter", "Connections closed because their client came again.", c.Takeovers)
	p.family("limit_hits_total", "counter", "How often a limit was what decided.")
	p.counts("limit_hits_total", "limit", c.LimitHits)
	p.one("panics_total", "counter", "Connections closed after a defect of the gateway.", c.Panics)
	p.family("client_dropped_total", "counter", "Messages that did not reach a local subscriber.")
	p.value("client_dropped_total", c.DroppedSlow, "reason", "slow")
	p.value("client_dropped_total", c.DroppedLarge, "reason", "large")
	p.value("client_dropped_total", c.DroppedOld, "reason", "expired")
	p.value("client_dropped_total", c.DroppedQueue, "reason", "queue")
	p.one("slow_clients", "gauge", "Connected clients that do not keep up.", c.Slow)
}

func (p *page) counts(name, by string, counts map[string]uint64) {
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		p.value(name, counts[k], by, k)
	}
}

func (p *page) links(links []LinkStatus) {
	each(p, links, func(l *LinkStatus) []string { return []string{"link", l.Name} }, []series[LinkStatus]{
		{"link_connected", "gauge", "1 while the link is up.", func(l *LinkStatus) any { return number(l.Connected) }},
		{"link_waiting_messages", "gauge", "Messages on disk that the cloud has not acknowledged.", func(l *LinkStatus) any { return l.Waiting }},
		{"link_delivered_total", "counter", "Messages the cloud acknowledged.", func(l *LinkStatus) any { return l.Delivered }},
		{"link_replayed_total", "counter", "Messages sent after later ones, and marked so: live_first.", func(l *LinkStatus) any { return l.Replayed }},
		{"link_backlog_messages", "gauge", "Messages by which a link that is up is behind.", func(l *LinkStatus) any {
			if l.CatchUp == nil {
				return uint64(0)
			}
			return l.CatchUp.Left
		}},
		{"link_received_bytes_total", "counter", "Bytes of TCP from the cloud, TLS included.", func(l *LinkStatus) any { return l.BytesIn }},
		{"link_sent_bytes_total", "counter", "Bytes of TCP to the cloud, TLS included.", func(l *LinkStatus) any { return l.BytesOut }},
	})
	p.family("link_dropped_total", "counter", "Messages that did not reach the cloud: no rule lets them leave, too old, or refused by it and set aside until the next start.")
	for _, l := range links {
		p.value("link_dropped_total", l.Forbidden, "link", l.Name, "reason", "forbidden")
		p.value("link_dropped_total", l.Expired, "link", l.Name, "reason", "expired")
		p.value("link_dropped_total", l.Refused, "link", l.Name, "reason", "refused")
	}
	p.family("link_received_total", "counter", "Messages from the cloud: taken, not wanted (old retained ones, or without a route), or here before (looped).")
	for _, l := range links {
		p.value("link_received_total", l.Received, "link", l.Name, "result", "taken")
		p.value("link_received_total", l.Unwanted, "link", l.Name, "result", "unwanted")
		p.value("link_received_total", l.Looped, "link", l.Name, "result", "looped")
	}
}
