package admin

import (
	"bytes"
	"fmt"
	"strings"
)

// metrics is a status in Prometheus' text format. Labels are names from the
// configuration, so their number is bounded by it.
func metrics(st Status) []byte {
	var b bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP headgate_%s %s\n# TYPE headgate_%[1]s %[3]s\n", name, help, kind)
	}
	one := func(name, kind, help string, value any) {
		family(name, kind, help)
		fmt.Fprintf(&b, "headgate_%s %v\n", name, value)
	}
	one("start_time_seconds", "gauge", "When the gateway started, in Unix time.", st.Gateway.Started.Unix())
	one("queue_last_sequence", "counter", "Sequence number of the newest message on disk.", st.Queue.Last)
	one("queue_bytes", "gauge", "Disk used by the queue.", st.Queue.Bytes)
	one("queue_max_bytes", "gauge", "Disk the queue may use.", st.Queue.MaxBytes)
	one("queue_refused_total", "counter", "Messages refused because the queue was full.", st.Queue.Refused)
	one("clients_connected", "gauge", "Local clients that are logged in.", st.Clients.Connected)
	one("sessions", "gauge", "Local sessions, connected or waiting.", st.Clients.Sessions)
	one("login_failures_total", "counter", "Logins refused.", st.Clients.LoginFailures)
	one("denied_total", "counter", "Actions refused by the rules.", st.Clients.Denied)
	one("queue_damaged_total", "counter", "Times a damaged message was left out.", st.Queue.Damaged)
	one("panics_total", "counter", "Connections closed after a defect of the gateway.", st.Clients.Panics)
	family("client_dropped_total", "counter", "Messages that did not reach a local subscriber.")
	fmt.Fprintf(&b, "headgate_client_dropped_total{reason=\"slow\"} %d\n", st.Clients.DroppedSlow)
	fmt.Fprintf(&b, "headgate_client_dropped_total{reason=\"large\"} %d\n", st.Clients.DroppedLarge)
	fmt.Fprintf(&b, "headgate_client_dropped_total{reason=\"expired\"} %d\n", st.Clients.DroppedOld)
	family("link_connected", "gauge", "1 while the link is up.")
	for _, l := range st.Links {
		fmt.Fprintf(&b, "headgate_link_connected{link=%s} %d\n", label(l.Name), number(l.Connected))
	}
	family("link_waiting_messages", "gauge", "Messages on disk that the cloud has not acknowledged.")
	for _, l := range st.Links {
		fmt.Fprintf(&b, "headgate_link_waiting_messages{link=%s} %d\n", label(l.Name), l.Waiting)
	}
	family("link_delivered_total", "counter", "Messages the cloud acknowledged.")
	for _, l := range st.Links {
		fmt.Fprintf(&b, "headgate_link_delivered_total{link=%s} %d\n", label(l.Name), l.Delivered)
	}
	family("link_dropped_total", "counter", "Messages that did not reach the cloud: no rule lets them leave, too old, or refused by it and set aside until the next start.")
	for _, l := range st.Links {
		fmt.Fprintf(&b, "headgate_link_dropped_total{link=%s,reason=\"forbidden\"} %d\n", label(l.Name), l.Forbidden)
		fmt.Fprintf(&b, "headgate_link_dropped_total{link=%s,reason=\"expired\"} %d\n", label(l.Name), l.Expired)
		fmt.Fprintf(&b, "headgate_link_dropped_total{link=%s,reason=\"refused\"} %d\n", label(l.Name), l.Refused)
	}
	family("device_up", "gauge", "1 while the device's values can be had.")
	for _, d := range st.Devices {
		fmt.Fprintf(&b, "headgate_device_up{device=%s} %d\n", label(d.ID), number(d.State == "online"))
	}
	return b.Bytes()
}

func label(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
