package broker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// serve starts the house again with that listener.
func (h *house) serve(l Listener) {
	h.t.Helper()
	h.close()
	l.Address = "127.0.0.1:0"
	h.config.Listeners = []Listener{l}
	h.start()
}

const upgradeRequest = "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\n"

// A web client writes its frames byte by byte.
type web struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

func (h *house) call(t *testing.T) *web {
	t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &web{t, nc, bufio.NewReader(nc)}
}

// request sends an HTTP request and returns the answer.
func (h *house) request(t *testing.T, text string) (*web, *http.Response) {
	t.Helper()
	w := h.call(t)
	w.write([]byte(text))
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		t.Fatalf("%q is answered by %v", text, err)
	}
	return w, resp
}

func (h *house) web(t *testing.T) *web {
	t.Helper()
	w, resp := h.request(t, upgradeRequest+"\r\n")
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Protocol") != "mqtt" ||
		resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("the upgrade is answered by %v", resp)
	}
	return w
}

func (w *web) write(b []byte) {
	w.t.Helper()
	if _, err := w.nc.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

const final, text, binaryFrame, bye, ping, pong = 0x80, 1, 2, 8, 9, 10

// frame is one frame of a client: masked.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// next reads one short frame of the server.
func (w *web) next() (first byte, payload []byte) {
	w.t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(w.r, head); err != nil {
		w.t.Fatalf("read frame: %v", err)
	}
	payload = make([]byte, head[1])
	if _, err := io.ReadFull(w.r, payload); err != nil {
		w.t.Fatalf("read frame: %v", err)
	}
	return head[0], payload
}

// over reads until the server hangs up and returns what came.
func (w *web) over() []byte {
	w.t.Helper()
	b, err := io.ReadAll(w.r)
	if err, ok := err.(net.Error); ok && err.Timeout() {
		w.t.Fatal("connection is still open")
	}
	return b
}

func encode(t *testing.T, v mqtt.Version, packets ...mqtt.Packet) (b []byte) {
	t.Helper()
	for _, p := range packets {
		var err error
		if b, err = mqtt.Append(b, v, p); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func greeting(v mqtt.Version) *mqtt.Connect {
	return &mqtt.Connect{Version: v, ClientID: "w", CleanStart: true, ReceiveMaximum: 10, RequestProblem: true,
		Username: "alice", UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true}
}

// Packets begin and end anywhere in frames, with control frames between them.
func TestWebSocketFrames(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		h.serve(Listener{WebSocket: true})
		w := h.web(t)
		hello := encode(t, v, greeting(v))
		var b []byte
		for i, c := range hello { // one message, a frame for each byte
			first := byte(0)
			if i == 0 {
				first = binaryFrame
			}
			if i == len(hello)-1 {
				first |= final
			}
			b = append(append(b, frame(first, []byte{c})...), frame(final|ping, []byte("?"))...)
		}
		w.write(b)
		for range hello {
			if first, payload := w.next(); first != final|pong && first != final|binaryFrame {
				t.Fatalf("got frame %x %q", first, payload)
			}
		}
		w.next() // a PONG or the CONNACK, which follows the last PING or goes before it

		all := encode(t, v, &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}},
			&mqtt.Pingreq{}, &mqtt.Publish{Topic: []byte("a"), Payload: []byte("to myself")})
		w.write(append(frame(final|binaryFrame, all[:7]), frame(final|binaryFrame, all[7:])...))
		var got []byte
		for !bytes.Contains(got, []byte("to myself")) {
			first, payload := w.next()
			if first != final|binaryFrame {
				t.Fatalf("got frame %x %q", first, payload)
			}
			got = append(got, payload...)
		}
		w.write(frame(final|bye, []byte{0x03, 0xE8}))
		if got := w.over(); !bytes.HasPrefix(got, []byte{final | bye}) {
			t.Errorf("a close frame is answered by %x", got)
		}
	})
}

func TestWebSocketIsRefused(t *testing.T) {
	h := open(t, Limits{Connect: time.Minute}) // nothing here is refused by waiting
	h.serve(Listener{WebSocket: true, Origins: []string{"http://hmi.example.com", "http://[::1]:80", "https://*"}})
	replace := func(old, to string) string { return strings.Replace(upgradeRequest, old, to, 1) + "\r\n" }
	from := func(origin string) string { return upgradeRequest + "Origin: " + origin + "\r\n\r\n" }
	for _, tt := range []struct {
		name, request string
		code          int
	}{
		{"another path", replace("/mqtt", "/"), 404},
		{"no subprotocol", replace("mqttv3.1, mqtt", "mqttv3.1, chat"), 400},
		{"not an upgrade", "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", 426},
		{"POST", replace("GET", "POST"), 405},
		{"a page of elsewhere", from("http://evil.example.com"), 403},
		{"the right page over the wrong scheme", from("https://hmi.example.com"), 403},
		{"what a pattern would match", from("https://x"), 403},
		{"no origin", from("null"), 403},
		{"a page whose name was made to lead here", strings.Replace(from("http://evil.example.com"), "127.0.0.1", "evil.example.com", 1), 421},
		{"a page that is listed", from("http://hmi.example.com"), 101},
		{"an address that is listed", from("http://[::1]:80"), 101},
		{"the same host", from("http://127.0.0.1"), 101},
	} {
		if w, resp := h.request(t, tt.request); resp.StatusCode != tt.code {
			t.Errorf("%s: %v", tt.name, resp.Status)
		} else if tt.code != 101 {
			w.over()
		}
	}
	for name, bytes := range map[string]string{
		"not HTTP":         "\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01\n",
		"endless headers":  upgradeRequest + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 20),
		"an endless line":  "GET /" + strings.Repeat("x", 20_000),
		"endless pings":    upgradeRequest + "\r\n" + strings.Repeat(string(frame(final|ping, make([]byte, 100))), 200),
		"endless nothings": upgradeRequest + "\r\n" + strings.Repeat(string(frame(0, nil)), 4000),
		"an endless frame": upgradeRequest + "\r\n\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff1234" + strings.Repeat("\x00", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			w := h.call(t)
			io.WriteString(w.nc, bytes) // the server may hang up in the middle
			w.over()
		})
	}
	if n := h.b.Stats().Connections; n != 0 {
		t.Errorf("%d are logged in", n)
	}
}

func TestWebSocketUpgradeTakesTooLong(t *testing.T) {
	h := open(t, Limits{Connect: 300 * time.Millisecond})
	h.serve(Listener{WebSocket: true})
	var slow []*web
	for _, begun := range []string{"", "GET", upgradeRequest, upgradeRequest + "\r\n", upgradeRequest + "\r\n\x82\x84"} {
		w := h.call(t)
		w.write([]byte(begun))
		slow = append(slow, w)
	}
	for _, w := range slow {
		w.over()
	}
}

// What is wrong with a frame costs the connection [MQTT-6.0.0-1].
func TestWebSocketBadFrames(t *testing.T) {
	h := open(t, Limits{PacketSize: 4 << 10})
	h.serve(Listener{WebSocket: true})
	good := encode(t, mqtt.V5, &mqtt.Pingreq{})
	for name, b := range map[string][]byte{
		"text":                     frame(final|text, good),
		"no mask":                  append([]byte{final | binaryFrame, 2}, good...),
		"reserved bits":            frame(final|0x40|binaryFrame, good),
		"reserved opcode":          frame(final|3, good),
		"a continuation of naught": frame(final, good),
		"control in parts":         frame(ping, good),
		"a long control frame":     frame(final|ping, make([]byte, 200)),
		"a bad close code":         frame(final|bye, []byte{0, 1}),
		"a large packet":           frame(final|binaryFrame, append([]byte{0x30, 0x80, 0x80, 0x01}, make([]byte, 16<<10)...)),
		"a large message":          frame(final|binaryFrame, bytes.Repeat(good, 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			w := h.web(t)
			w.write(frame(final|binaryFrame, encode(t, mqtt.V5, greeting(mqtt.V5))))
			w.next()
			w.nc.Write(b) // the server may hang up in the middle
			w.over()
		})
	}
	w := h.web(t)
	w.write(frame(final|binaryFrame, encode(t, mqtt.V5, greeting(mqtt.V5))))
	w.next()
	w.write(frame(final|binaryFrame, good))
	if first, payload := w.next(); first != final|binaryFrame || payload[0] != 0xD0 {
		t.Errorf("got frame %x %x", first, payload)
	}
}

// dialWeb connects with a library's client.
func (h *house) dialWeb(conf *tls.Config, header http.Header) *client {
	h.t.Helper()
	url := "ws://" + h.addr + "/mqtt"
	opts := &websocket.DialOptions{Subprotocols: []string{"mqtt"}, HTTPHeader: header}
	if conf != nil {
		url = "wss://" + h.addr + "/mqtt"
		transport := &http.Transport{TLSClientConfig: conf}
		opts.HTTPClient = &http.Client{Transport: transport}
		h.t.Cleanup(transport.CloseIdleConnections)
	}
	ws, _, err := websocket.Dial(h.t.Context(), url, opts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { ws.CloseNow() })
	return newClient(h.t, websocket.NetConn(context.Background(), ws, websocket.MessageBinary), mqtt.V5)
}

// witness notes where logins come from.
type witness struct {
	byCertificate
	remotes chan netip.Addr
}

func (w witness) Authenticate(ctx context.Context, c access.Credentials) (access.Identity, error) {
	w.remotes <- c.Remote
	return w.byCertificate.Authenticate(ctx, c)
}

// Over wss a certificate says who it is, and no header where it comes from.
func TestWebSocketOverTLS(t *testing.T) {
	server, serverCA := selfSigned(t, "broker")
	press, clientCA := selfSigned(t, "press-1")
	conf := &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: clientCA, ClientAuth: tls.VerifyClientCertIfGiven}
	h := open(t, Limits{})
	h.serve(Listener{WebSocket: true, TLS: func() (*tls.Config, error) { return conf, nil }})
	seen := witness{byCertificate{h.gate}, make(chan netip.Addr, 10)}
	h.b.access = seen

	forged := http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Real-Ip": {"192.0.2.1"}, "Forwarded": {"for=192.0.2.1"}}
	c := h.dialWeb(&tls.Config{RootCAs: serverCA, Certificates: []tls.Certificate{press}}, forged)
	if code := c.connect("", "a").Code; code != mqtt.Success {
		t.Fatalf("with a certificate: %v", code)
	}
	if addr := <-seen.remotes; addr != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the login is said to come from %v", addr)
	}
	large := strings.Repeat("x", 300<<10)
	c.subscribe("a", 1)
	c.send(&mqtt.Publish{Topic: []byte("a"), Payload: []byte(large), QoS: 1, PacketID: 1})
	for range 2 { // the acknowledgement, the message
		if p, err := c.read(); err != nil {
			t.Fatalf("%v %v", p, err)
		}
	}
	other := h.dialWeb(&tls.Config{RootCAs: serverCA, Certificates: []tls.Certificate{press}}, nil)
	if code := other.connect("", "a").Code; code != mqtt.Success {
		t.Fatal(code)
	}
	if code := c.expectClosed(); code != mqtt.SessionTakenOver { // said over a socket whose reads are over
		t.Errorf("got %v", code)
	}
	if code := h.dialWeb(&tls.Config{RootCAs: serverCA}, nil).connect("", "nobody").Code; code != mqtt.NotAuthorized {
		t.Errorf("without a certificate: %v", code)
	}
}

// Clients that vanish are told from those that leave, and stuck ones hold up nobody.
func TestWebSocketEnds(t *testing.T) {
	h := open(t, Limits{})
	h.serve(Listener{WebSocket: true})
	watch := h.dialWeb(nil, nil)
	watch.connect("bob", "watch")
	watch.subscribe("will", 0)
	will := func(r *mqtt.Connect) { r.Will = &mqtt.Will{Topic: "will", Payload: []byte(r.ClientID)} }
	gone := h.dialWeb(nil, nil)
	gone.connect("alice", "gone", will)
	gone.nc.Close() // WebSocket's goodbye is none of MQTT's
	watch.expectMessage("gone")

	stuck := h.dialWeb(nil, nil)
	stuck.connect("bob", "stuck")
	stuck.subscribe("a", 0)
	p := h.dialWeb(nil, nil)
	p.connect("alice", "p")
	for h.b.Stats().DroppedSlow == 0 {
		p.publish("a", string(make([]byte, 64<<10)), 1)
	}
	began := time.Now()
	again := h.dialWeb(nil, nil)
	again.connect("bob", "stuck")
	again.ping()
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	h.close() // says if it takes too long
	if code := p.expectClosed(); code != mqtt.ServerShuttingDown {
		t.Errorf("got %v", code)
	}
}
