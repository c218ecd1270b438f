package modbus

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An endpoint is a URL taken apart.
type endpoint struct {
	transport *transport
	address   string // host:port, or the path of a serial port
	host      string // empty for a serial port
}

// A transport is what the scheme of a URL stands for.
type transport struct {
	scheme   string
	network  string // as net.Dial has it; empty for a serial port
	port     string // the usual one
	tls      bool
	framing  framing
	silence  time.Duration // that parts two frames; serial ports work it out
	numbered bool          // answers carry the number of their request
}

// The serial lines behind rtu+tcp and ascii+tcp have silences of their own to
// keep; this is the one of 19200 baud and faster (Modbus over Serial Line
// 2.5.1.1).
const fastSilence = 1750 * time.Microsecond

var transports = []transport{
	{scheme: "tcp", network: "tcp", port: "502", framing: mbap{}, numbered: true},
	{scheme: "tls", network: "tcp", port: "802", framing: mbap{}, numbered: true, tls: true},
	{scheme: "udp", network: "udp", port: "502", framing: mbap{}, numbered: true},
	{scheme: "rtu", framing: rtu{}},
	{scheme: "ascii", framing: ascii{}},
	{scheme: "rtu+tcp", network: "tcp", port: "502", framing: rtu{}, silence: fastSilence},
	{scheme: "ascii+tcp", network: "tcp", port: "502", framing: ascii{}, silence: fastSilence},
}

func (t *transport) serial() bool   { return t.network == "" }
func (t *transport) datagram() bool { return t.network == "udp" }

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?$`)

const knownTransports = "write tcp://host:502, tls://host:802, udp://host:502, rtu+tcp://host:port, ascii+tcp://host:port, " +
	"rtu:///dev/serial/by-id/NAME or ascii:///dev/serial/by-id/NAME"

// parseEndpoint takes a bus's URL apart, which key gives.
func parseEndpoint(key, text string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, wrong(key, knownTransports, "%q is not a bus", text)
	}
	i := slices.IndexFunc(transports, func(t transport) bool { return t.scheme == u.Scheme })
	if i < 0 {
		return endpoint{}, wrong(key, knownTransports, "%q is not a bus", text)
	}
	t := &transports[i]
	if t.serial() {
		path := strings.TrimPrefix(text, t.scheme+"://")
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
			return endpoint{}, wrong(key, "write "+t.scheme+":///dev/serial/by-id/NAME, and baud and parity as keys of the bus", "%q names no serial port", text)
		}
		return endpoint{transport: t, address: path}, nil
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = t.port
	}
	n, err := strconv.ParseUint(port, 10, 16)
	_, notIP := netip.ParseAddr(host)
	if err != nil || n == 0 || notIP != nil && !hostPattern.MatchString(host) || u.String() != u.Scheme+"://"+u.Host {
		return endpoint{}, wrong(key, "write "+t.scheme+"://host:"+t.port, "%q is not a bus", text)
	}
	return endpoint{transport: t, address: net.JoinHostPort(host, port), host: host}, nil
}
