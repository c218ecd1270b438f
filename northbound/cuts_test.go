package northbound

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/headgate-io/headgate/storequeue"
)

// packet is a kind of packet; what, if not empty, it must contain.
func packet(name string, down bool, first, mask byte, what string) place {
	return place{name: name, down: down, nth: 1, is: func(p []byte) bool {
		return p[0]&mask == first && strings.Contains(string(p), what)
	}}
}

const cloudward, homeward = false, true

// Where an MQTT connection is cut.
var packetPlaces = []place{
	packet("CONNECT", cloudward, 0x10, 0xf0, ""),
	packet("CONNACK", homeward, 0x20, 0xf0, ""),
	packet("SUBSCRIBE", cloudward, 0x80, 0xf0, ""),
	packet("SUBACK", homeward, 0x90, 0xf0, ""),
	third(packet("PUBLISH QoS 1", cloudward, 0x32, 0xf6, "")),
	third(packet("PUBACK", homeward, 0x40, 0xf0, "")),
	third(packet("PUBLISH QoS 2", cloudward, 0x34, 0xf6, "")),
	third(packet("PUBREC", homeward, 0x50, 0xf0, "")),
	third(packet("PUBREL", cloudward, 0x60, 0xf0, "")),
	third(packet("PUBCOMP", homeward, 0x70, 0xf0, "")),
	first(packet("PUBLISH QoS 1 in", homeward, 0x32, 0xf6, "cmd")),
	first(packet("PUBACK out", cloudward, 0x40, 0xf0, "")),
	first(packet("PUBLISH QoS 2 in", homeward, 0x34, 0xf6, "cmd")),
	first(packet("PUBREC out", cloudward, 0x50, 0xf0, "")),
	first(packet("PUBREL in", homeward, 0x60, 0xf0, "")),
	first(packet("PUBCOMP out", cloudward, 0x70, 0xf0, "")),
	first(packet("PINGREQ", cloudward, 0xc0, 0xf0, "")),
	first(packet("PINGRESP", homeward, 0xd0, 0xf0, "")),
	packet("DISCONNECT", cloudward, 0xe0, 0xf0, ""),
}

// third is for places that every connection comes to, again and again.
func third(p place) place {
	p.nth, p.live = 3, true
	return p
}

func first(p place) place {
	p.live = true
	return p
}

func record(name string, down bool, kind byte) place {
	return place{name: name, down: down, nth: 1, tls: true, is: func(p []byte) bool { return p[0] == kind }}
}

// Where one over TLS is: the second kind of record is encrypted.
var recordPlaces = []place{
	record("ClientHello", cloudward, 22), record("ServerHello", homeward, 22),
	record("client's Finished", cloudward, 23), record("server's Finished", homeward, 23),
}

// The line between a link and mosquitto breaks at each step of the protocol, in
// each way, before and after the packet: nothing is lost, at QoS 2 nothing comes
// twice, and the link is back within 5 s.
func TestCutAtEachStep(t *testing.T) {
	ca := newAuthority(t, "Our CA")
	plain, secure := startPlainMosquitto(t), startMosquitto(t, ca)
	client := ca.client("gw")
	heard := listen(t, plain)
	heardTLS := listenTLS(t, secure, ca)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	together := atOnce{room: make(chan struct{}, 16)}
	if proves {
		together.room = make(chan struct{}, 40)
	}
	for i, at := range append(packetPlaces, recordPlaces...) {
		for j, how := range []fault{cutOff, resets, blackHole} {
			for _, after := range []bool{false, true} {
				if !proves && after != ((i+j)%2 == 0) { // a half, and of the packets a quarter
					continue
				}
				if at.tls {
					together.run(t, fmt.Sprint(at.name, " ", how, " ", after), func(t *testing.T) {
						c := &cutCase{breaker: newBreaker(t, secure, at, how, after), heard: heardTLS}
						cfg := cutConfig(t.Name())
						cfg.Servers, cfg.TLS = []string{c.address()}, clientTLS(ca, &client)
						c.run(t, cfg)
					})
					continue
				}
				for _, old := range []bool{false, true} {
					if !proves && old != ((i+j)%4 > 1) {
						continue
					}
					together.run(t, fmt.Sprint(at.name, " ", how, " ", after, " ", old), func(t *testing.T) {
						cfg := cutConfig(t.Name())
						cfg.Old, cfg.Enveloped = old, old
						(&cutCase{breaker: newBreaker(t, plain, at, how, after), heard: heard}).run(t, cfg)
					})
				}
			}
		}
	}
	together.Wait()
	wantNoGrowth(t, goroutines, files)
}

// atOnce runs subtests that mostly wait, many at once.
type atOnce struct {
	sync.WaitGroup
	room chan struct{}
}

func (a *atOnce) run(t *testing.T, name string, test func(t *testing.T)) {
	a.room <- struct{}{}
	a.Go(func() {
		defer func() { <-a.room }()
		t.Run(name, test)
	})
}

func wantNoGrowth(t *testing.T, goroutines, files int) {
	t.Helper()
	soon(t, "all that was opened is closed", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

var proves = os.Getenv("PROVE") != ""

// rounds is how often a line breaks.
func rounds() int {
	if proves {
		return 10
	}
	return 1
}

func cutConfig(name string) Config {
	cfg := testConfig()
	cfg.ClientID = strings.NewReplacer("/", "_", " ", "-", "+", "-", "#", "-").Replace(name)
	prefix := "case/" + cfg.ClientID + "/"
	cfg.KeepAlive, cfg.ConnectTimeout, cfg.MaxPause = time.Second, 2*time.Second, time.Second
	if !proves { // beside other tests everything takes its time
		cfg.KeepAlive, cfg.ConnectTimeout = 3*time.Second, 8*time.Second
	}
	cfg.Send = []Route{
		{Topics: []string{"plant/one", "hg/#"}, QoS: 1, Prefix: prefix},
		{Topics: []string{"plant/two"}, QoS: 2, Prefix: prefix},
	}
	cfg.Receive = []Route{{Topics: []string{prefix + "cmd/#"}, QoS: 2, Strip: prefix}}
	return cfg
}

// A cutCase is one link whose line breaks at one place, again and again.
type cutCase struct {
	*breaker
	heard *listener

	id   string
	stop func() // ends the link, and waits for that

	mu       sync.Mutex     // covers commands
	commands map[string]int // by payload: how often they came
}

func (c *cutCase) run(t *testing.T, cfg Config) {
	l, src := c.start(t, cfg)
	for round := range rounds() {
		c.heard.online(t, l)
		broken := c.arm()
		before := l.Stats().Reconnects
		c.feed(t, src, round)
		if !c.at.live {
			l.Reconnect()
		}
		select {
		case <-broken:
		case <-time.After(2 * time.Minute):
			t.Fatal("the line did not break")
		}
		c.wantBack(t, l, before+1)
		c.wantAll(t, src, round)
	}
	c.end(t, l)
}

// start brings the link up until end.
func (c *cutCase) start(t *testing.T, cfg Config) (*Link, *checkedSource) {
	c.id, c.commands = cfg.ClientID, map[string]int{}
	src := newSource(t, nil)
	cfg.Handle = func(_ context.Context, m storequeue.Message) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.commands[string(m.Payload)]++
		if m.QoS < 2 {
			return nil
		}
		return src.queue.Append(context.Background(), m)
	}
	notes, err := src.queue.Reader("came/cloud")
	if err != nil {
		t.Fatal(err)
	}
	cfg.State, cfg.Notes = src.queue, notes
	l, err := NewLink(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	if !c.at.tls {
		l.dial = func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", c.address())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }() // ends with ctx
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%+v", l.Stats())
		}
		c.stop()
	})
	return l, src
}

func (c *cutCase) end(t *testing.T, l *Link) {
	c.stop()
	for round := range rounds() {
		// mosquitto 2.0.11 publishes a message again after its PUBREL if two connections in a row end meanwhile.
		if n := c.commands[fmt.Sprint("once ", round)]; n != 1 && c.at.live {
			t.Errorf("a command at QoS 2 came %d times", n)
		}
	}
	c.heard.judge(t, l)
}

// feed is a round's load: readings up, a command down.
func (c *cutCase) feed(t *testing.T, src *checkedSource, round int) {
	for i := range 20 {
		src.put(t, storequeue.Message{Topic: [...]string{"plant/one", "plant/two"}[i%2], Payload: fmt.Appendf(nil, "%d/%d", round, i)})
	}
	c.heard.command(t, c.id, fmt.Sprint("command ", round), 1)
	c.heard.command(t, c.id, fmt.Sprint("once ", round), 2)
}

func (c *cutCase) wantBack(t *testing.T, l *Link, reconnects uint64) {
	began := time.Now()
	soon(t, "back", func() bool { s := l.Stats(); return s.Reconnects >= reconnects && s.Connected })
	if d := time.Since(began); proves && d > 5*time.Second {
		t.Errorf("back after %v", d)
	}
}

func (c *cutCase) wantAll(t *testing.T, src *checkedSource, round int) {
	soon(t, "all acknowledged", func() bool { return src.Waiting() == 0 })
	soon(t, "the commands", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.commands[fmt.Sprint("command ", round)] > 0 && c.commands[fmt.Sprint("once ", round)] > 0
	})
}

// A listener is a consumer at the cloud that counts what arrives for each link.
type listener struct {
	client *paho.Client

	mu  sync.Mutex          // covers got
	got map[string][]string // payloads by topic
}

func listen(t *testing.T, addr string) *listener {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return listenOn(t, nc)
}

func listenTLS(t *testing.T, addr string, ca *authority) *listener {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{ca.client("listener")}})
	if err != nil {
		t.Fatal(err)
	}
	return listenOn(t, nc)
}

func listenOn(t *testing.T, nc net.Conn) *listener {
	t.Helper()
	l := &listener{got: map[string][]string{}}
	l.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(nc),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			_, body, _ := Unwrap(p.Packet.Payload)
			l.got[p.Packet.Topic] = append(l.got[p.Packet.Topic], string(body))
			return true, nil
		}},
	})
	if _, err := l.client.Connect(t.Context(), &paho.Connect{ClientID: "listener", KeepAlive: 300, CleanStart: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.client.Disconnect(&paho.Disconnect{}) })
	// At QoS 0: what its window of QoS 2 has no room for, mosquitto 2.0.11 sends out of order later.
	_, err := l.client.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "case/+/plant/+"}, {Topic: "case/+/hg/#"}}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *listener) command(t *testing.T, id, text string, qos byte) {
	t.Helper()
	_, err := l.client.Publish(context.WithoutCancel(t.Context()), &paho.Publish{Topic: "case/" + id + "/cmd/do", QoS: qos, Payload: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *listener) on(topic string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got[topic])
}

// online waits until a link has subscribed and said so.
func (l *listener) online(t *testing.T, link *Link) {
	t.Helper()
	topic := "case/" + link.cfg.ClientID + "/hg/gw/state"
	soon(t, "online", func() bool {
		said := l.on(topic)
		return len(said) > 0 && strings.Contains(said[len(said)-1], "online")
	})
}

// judge wants each message of a link, in order, and at QoS 2 once.
func (l *listener) judge(t *testing.T, link *Link) {
	t.Helper()
	for i, name := range []string{"one", "two"} {
		topic := "case/" + link.cfg.ClientID + "/plant/" + name
		var want []string
		for round := range rounds() {
			for n := i; n < 20; n += 2 {
				want = append(want, fmt.Sprintf("%d/%d", round, n))
			}
		}
		soon(t, "what was acknowledged arrives at "+topic, func() bool { return slices.Contains(l.on(topic), want[len(want)-1]) })
		got := l.on(topic)
		if name == "two" && !slices.Equal(got, want) {
			t.Errorf("at QoS 2: %v", got)
		}
		var first []string
		for _, text := range got {
			if !slices.Contains(first, text) {
				first = append(first, text)
			}
		}
		if !slices.Equal(first, want) {
			t.Errorf("at QoS 1: %v", got)
		}
	}
}
