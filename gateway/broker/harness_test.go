package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// A house is a broker over a real queue, with real rules.
type house struct {
	t      testing.TB
	dir    string
	config Config
	disk   storequeue.Config
	gate   *access.Gate
	access Access // instead of everybody whose password is "secret"
	queue  *storequeue.Queue
	b      *Broker
	addr   string
	stop   func()
}

// password lets every user in whose password is "secret"; the rules are the gate's.
type password struct{ *access.Gate }

func (p password) Authenticate(_ context.Context, c access.Credentials) (access.Identity, error) {
	if !c.HasUsername || string(c.Password) != "secret" {
		return access.Identity{}, access.ErrBadCredentials
	}
	return access.Identity{Name: c.Username}, nil
}

func rules(t testing.TB, rules ...access.Rule) *access.Rules {
	t.Helper()
	compiled, err := access.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func rule(allow bool, who string, actions []access.Action, topics ...string) access.Rule {
	return access.Rule{Allow: allow, Who: who, Actions: actions, Topics: topics}
}

var (
	pub  = []access.Action{access.Publish}
	sub  = []access.Action{access.Subscribe}
	both = []access.Action{access.Publish, access.Subscribe}
)

func everything(t testing.TB) *access.Rules {
	return rules(t, rule(true, "*", both, "#", "$SYS/#"))
}

// open starts a broker with these limits, where everybody may do everything.
func open(t testing.TB, limits Limits) *house {
	t.Helper()
	h := &house{
		t: t, dir: filepath.Join(t.TempDir(), "queue"),
		gate:   access.NewGate(access.Config{}, nil, everything(t), nil),
		config: Config{Limits: limits, Listeners: []Listener{{Address: "127.0.0.1:0"}}},
	}
	h.start()
	t.Cleanup(h.close)
	return h
}

func (h *house) start() {
	h.t.Helper()
	q, err := storequeue.Open(h.dir, h.disk)
	if err != nil {
		h.t.Fatal(err)
	}
	h.queue = q
	h.config.Queue, h.config.Access = q, password{h.gate}
	if h.access != nil {
		h.config.Access = h.access
	}
	if h.b, err = New(h.config); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.b.Run(ctx) }()
	select {
	case <-h.b.Ready():
	case err := <-ended:
		h.t.Fatal(err)
	}
	h.addr = h.b.Addrs()[0].String()
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
	}
}

// close stops everything and looks for damage.
func (h *house) close() {
	if h.stop == nil {
		return
	}
	began := time.Now()
	h.stop()
	h.stop = nil
	if d := time.Since(began); d > stopTime+time.Second {
		h.t.Errorf("stopping took %v", d)
	}
	last := storequeue.Message{Topic: "last"} // behind what clients left without waiting for it
	if err := h.queue.Append(context.Background(), last); err != nil && !errors.Is(err, storequeue.ErrFull) {
		h.t.Errorf("queue after the test: %v", err)
	}
	if err := h.queue.Check(); err != nil {
		h.t.Errorf("queue after the test: %v", err)
	}
	if err := h.queue.Close(); err != nil {
		h.t.Errorf("close queue: %v", err)
	}
	if n := h.b.Stats().Panics; n != 0 {
		h.t.Errorf("%d panics were survived", n)
	}
}

func (h *house) restart() {
	h.t.Helper()
	h.close()
	h.start()
}

// A client speaks MQTT byte by byte.
type client struct {
	t   testing.TB
	nc  net.Conn
	dec *mqtt.Decoder
	v   mqtt.Version
	out []byte
}

func (h *house) dial(v mqtt.Version) *client {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { nc.Close() })
	return newClient(h.t, nc, v)
}

func newClient(t testing.TB, nc net.Conn, v mqtt.Version) *client {
	c := &client{t: t, nc: nc, dec: mqtt.NewDecoder(nc, 0), v: v}
	c.dec.SetVersion(v)
	return c
}

// login connects as user with that client id; change adapts the CONNECT.
func (h *house) login(v mqtt.Version, user, id string, change ...func(*mqtt.Connect)) *client {
	h.t.Helper()
	c := h.dial(v)
	if ack := c.connect(user, id, change...); ack.Code != mqtt.Success {
		h.t.Fatalf("CONNECT of %s refused: %v", id, ack.Code)
	}
	return c
}

func (c *client) connect(user, id string, change ...func(*mqtt.Connect)) *mqtt.Connack {
	c.t.Helper()
	req := &mqtt.Connect{
		Version: c.v, ClientID: id, CleanStart: true, ReceiveMaximum: 65535, RequestProblem: true,
		Username: user, UsernameFlag: true, Password: []byte("secret"), PasswordFlag: true,
	}
	for _, f := range change {
		f(req)
	}
	c.send(req)
	return expect[*mqtt.Connack](c)
}

// durable asks for a session that outlives its connection.
func durable(req *mqtt.Connect) { req.CleanStart, req.SessionExpiry = false, 3600 }

func (c *client) send(packets ...mqtt.Packet) {
	c.t.Helper()
	c.out = c.out[:0]
	for _, p := range packets {
		b, err := mqtt.Append(c.out, c.v, p)
		if err != nil {
			c.t.Fatalf("encode %v: %v", p.Type(), err)
		}
		c.out = b
	}
	c.raw(c.out)
}

func (c *client) raw(b []byte) {
	c.t.Helper()
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) read() (mqtt.Packet, error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	return c.dec.Read()
}

// expect reads the next packet, which must be a T.
func expect[T mqtt.Packet](c *client) T {
	c.t.Helper()
	p, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v, want %T", err, *new(T))
	}
	got, ok := p.(T)
	if !ok {
		c.t.Fatalf("got %v %+v, want %T", p.Type(), p, *new(T))
	}
	return got
}

// expectAck reads an acknowledgement of that kind, id and code. That nobody
// subscribed is a success as well.
func (c *client) expectAck(kind mqtt.Type, id uint16, code mqtt.ReasonCode) {
	c.t.Helper()
	a := expect[*mqtt.Ack](c)
	if code == mqtt.Success && a.Code == mqtt.NoMatchingSubscribers {
		a.Code = code
	}
	if a.Kind != kind || a.PacketID != id || a.Code != code {
		c.t.Fatalf("got %v %d %v, want %v %d %v", a.Kind, a.PacketID, a.Code, kind, id, code)
	}
}

// expectMessage reads a PUBLISH with that payload and answers QoS 1.
func (c *client) expectMessage(payload string) mqtt.Publish {
	c.t.Helper()
	p := expect[*mqtt.Publish](c)
	if string(p.Payload) != payload {
		c.t.Fatalf("got %q on %q, want %q", p.Payload, p.Topic, payload)
	}
	got := *p
	got.Topic, got.Payload = bytes.Clone(p.Topic), bytes.Clone(p.Payload)
	if p.QoS == 1 {
		c.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: p.PacketID})
	}
	return got
}

// expectClosed reads until the server hangs up and returns its DISCONNECT's
// code; Success without one.
func (c *client) expectClosed() mqtt.ReasonCode {
	c.t.Helper()
	code := mqtt.Success
	for {
		p, err := c.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Fatal("connection is still open")
		}
		if err != nil {
			return code
		}
		if d, ok := p.(*mqtt.Disconnect); ok {
			code = d.Code
		}
	}
}

func (c *client) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.subscribeWith(0, mqtt.Subscription{Filter: filter, QoS: qos})
}

func (c *client) subscribeWith(id uint32, s mqtt.Subscription) {
	c.t.Helper()
	c.send(&mqtt.Subscribe{PacketID: 999, ID: id, Subscriptions: []mqtt.Subscription{s}})
	if a := expect[*mqtt.Suback](c); a.Codes[0] != mqtt.ReasonCode(s.QoS) {
		c.t.Fatalf("SUBACK %v for %q", a.Codes[0], s.Filter)
	}
}

// publish sends a message and waits for its acknowledgement.
func (c *client) publish(topic, payload string, qos byte, change ...func(*mqtt.Publish)) {
	c.t.Helper()
	p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}
	if qos > 0 {
		p.PacketID = 7
	}
	for _, f := range change {
		f(p)
	}
	c.send(p)
	switch qos {
	case 1:
		c.expectAck(mqtt.PUBACK, p.PacketID, mqtt.Success)
	case 2:
		c.expectAck(mqtt.PUBREC, p.PacketID, mqtt.Success)
		c.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: p.PacketID})
		c.expectAck(mqtt.PUBCOMP, p.PacketID, mqtt.Success)
	}
}

func retain(p *mqtt.Publish) { p.Retain = true }

// ping waits until the server has handled everything sent so far.
func (c *client) ping() {
	c.t.Helper()
	c.send(&mqtt.Pingreq{})
	expect[*mqtt.Pingresp](c)
}

// bothVersions runs a test for 3.1.1 and 5.
func bothVersions(t *testing.T, f func(t *testing.T, v mqtt.Version)) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}
