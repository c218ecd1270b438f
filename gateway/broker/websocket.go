package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

const (
	webSocketPath    = "/mqtt"
	webSocketName    = "mqtt"     // the subprotocol [MQTT-6.0.0-3]
	webSocketMessage = 1 << 20    // bytes of one message, at least: it may hold many packets
	webSocketBuffer  = 1 << 10    // bytes, one for each direction
	webSocketBye     = "\x88\x00" // a close frame without a reason
)

// A framed connection is a byte stream in the binary messages of a WebSocket;
// packets begin and end anywhere in them [MQTT-6.0.0-2]. Deadlines are those of
// what carries it. One goroutine reads, one writes.
type framed struct {
	*metered
	ws        *websocket.Conn // nil before upgrade
	message   io.Reader       // the one being read; nil: none
	answering func()          // before a pong is written; set with the connection's outbox
}

// metered bounds what a stranger may send in all: HTTP, control frames and
// whatever else comes before login.
type metered struct {
	net.Conn
	left int // bytes; negative: no bound
}

var errTalkative = errors.New("too much was sent before login")

func (m *metered) Read(p []byte) (int, error) {
	if m.left < 0 {
		return m.Conn.Read(p)
	}
	if m.left == 0 {
		return 0, errTalkative
	}
	n, err := m.Conn.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

// newFramed makes a connection that has yet to be upgraded. Twice limit bytes
// may come before trust is called.
func newFramed(nc net.Conn, limit int) *framed {
	return &framed{metered: &metered{nc, 2 * limit}}
}

// upgrade reads the HTTP request and answers it. After an error the connection
// is to be closed.
func (f *framed) upgrade(l *Listener, limit int) error {
	rw := bufio.NewReadWriter(bufio.NewReaderSize(f.metered, webSocketBuffer), bufio.NewWriterSize(f.Conn, webSocketBuffer))
	req, err := http.ReadRequest(rw.Reader)
	if err != nil {
		return fmt.Errorf("read upgrade request: %w", err)
	}
	w := &response{nc: f.metered, rw: rw, header: http.Header{}}
	defer rw.Flush()
	if code, why := l.refusedUpgrade(req); code != 0 {
		http.Error(w, why, code)
		return errors.New(why)
	}
	f.ws, err = websocket.Accept(w, req, &websocket.AcceptOptions{Subprotocols: []string{webSocketName}, OriginPatterns: literally(l.Origins),
		OnPingReceived: func(context.Context, []byte) bool { f.answering(); return true }})
	if err != nil {
		return err
	}
	f.ws.SetReadLimit(int64(limit))
	return nil
}

// refusedUpgrade says what is wrong with a request, beside what the library
// checks. Code 0: nothing.
func (l *Listener) refusedUpgrade(req *http.Request) (code int, why string) {
	switch {
	case req.URL.Path != webSocketPath:
		return http.StatusNotFound, "MQTT is at " + webSocketPath
	case !slices.ContainsFunc(req.Header.Values("Sec-WebSocket-Protocol"), offersMQTT):
		return http.StatusBadRequest, "offer the subprotocol " + webSocketName
	case l.TLS == nil && !localName(req.Host):
		// A page of example.com whose name now leads here is a stranger, though
		// it names the same host twice. TLS sees to that with the certificate.
		return http.StatusMisdirectedRequest, "without TLS this is 127.0.0.1 or localhost"
	}
	return 0, ""
}

// literally makes patterns for path.Match that match nothing but what they are.
func literally(all []string) []string {
	quote := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	patterns := make([]string, len(all))
	for i, s := range all {
		patterns[i] = quote.Replace(s)
	}
	return patterns
}

func offersMQTT(header string) bool {
	return slices.ContainsFunc(strings.Split(header, ","), func(s string) bool {
		return strings.EqualFold(strings.TrimSpace(s), webSocketName)
	})
}

func localName(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// trust lifts the bound on what a stranger may send; limit is for one packet.
func (f *framed) trust(limit int) {
	f.left = -1
	f.ws.SetReadLimit(int64(max(limit, webSocketMessage)))
}

func (f *framed) Read(p []byte) (int, error) {
	for {
		if f.message == nil {
			kind, r, err := f.ws.Reader(context.Background()) // the deadline is the socket's
			if err != nil {
				return 0, unframed(err)
			}
			if kind != websocket.MessageBinary {
				return 0, violation(mqtt.ProtocolError, "MQTT-6.0.0-1", "a WebSocket message that is not binary")
			}
			f.message = r
		}
		n, err := f.message.Read(p)
		if err == io.EOF {
			f.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, unframed(err)
		}
	}
}

// unframed turns the library's errors into those of a socket and of the protocol.
func unframed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, websocket.ErrMessageTooBig):
		return &mqtt.Error{Code: mqtt.PacketTooLarge, Clause: "section 6", Text: "a WebSocket message is larger than the limit"}
	case websocket.CloseStatus(err) >= 0:
		return io.EOF
	}
	return err
}

func (f *framed) Write(p []byte) (int, error) {
	if err := f.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil { // the deadline is the socket's
		return 0, err
	}
	return len(p), nil
}

// Close says goodbye in the WebSocket's terms, and waits for no answer. Nobody
// writes any more when it is called.
func (f *framed) Close() error {
	if f.ws == nil {
		return f.Conn.Close()
	}
	_, _ = io.WriteString(f.Conn, webSocketBye) // who is gone does not miss it
	return f.ws.CloseNow()
}

// A response is one HTTP answer, written to the connection itself.
type response struct {
	nc     net.Conn
	rw     *bufio.ReadWriter
	header http.Header
	code   int
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(code int) {
	if w.code != 0 {
		return
	}
	w.code = code
	if code != http.StatusSwitchingProtocols {
		w.header.Set("Connection", "close")
	}
	fmt.Fprintf(w.rw, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	_ = w.header.Write(w.rw) // the flush says what went wrong
	_, _ = w.rw.WriteString("\r\n")
}

func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.rw.Write(p)
}

// Hijack implements http.Hijacker.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.nc, w.rw, w.rw.Flush()
}
