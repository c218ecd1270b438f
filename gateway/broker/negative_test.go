package broker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held until the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A CONNECT that is announced and trickles in costs what has arrived, and ends
// at the deadline however often a byte comes.
func TestAnnouncedMemory(t *testing.T) {
	h := open(t, Limits{Connect: time.Second, PreLoginPerIP: 100})
	before := heap()
	var slow []*client
	for i := range 100 {
		c := h.dial(mqtt.V5)
		if c.raw([]byte{0x10, 0xF0, 0x3F}); i%2 > 0 { // 8 KiB
			c.raw([]byte{0, 4, 'M'})
		}
		slow = append(slow, c)
	}
	huge := h.dial(mqtt.V5)
	huge.raw([]byte{0x10, 0xFF, 0xFF, 0xFF, 0x7F})
	huge.expectClosed()
	if grown := heap() - before; grown > 5<<20 {
		t.Errorf("100 sockets cost %d bytes", grown)
	}
	var trickle sync.WaitGroup
	for _, c := range slow {
		trickle.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range 1000 {
				<-tick.C
				if _, err := c.nc.Write([]byte{0}); err != nil {
					return
				}
			}
			t.Error("after 20 s it is still open")
		})
	}
	trickle.Wait()
}

// A will without a topic is none.
func TestEmptyWillTopic(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		h := open(t, Limits{})
		req := greeting(v)
		req.Will = &mqtt.Will{Topic: hole}
		b := bytes.Replace(encode(t, v, req), []byte("\x00\x04"+hole), []byte{0, 0}, 1)
		b[1] -= byte(len(hole))
		c := h.dial(v)
		c.raw(b)
		c.expectNoWelcome("empty will topic")
	})
}

// Somebody else with the client id is refused, and the owner notices nothing.
func TestOwnerStaysConnected(t *testing.T) {
	h := open(t, Limits{})
	a := h.login(mqtt.V5, "alice", "a", durable)
	a.subscribe("secret", 1)
	for _, change := range []func(*mqtt.Connect){durable, func(*mqtt.Connect) {}} {
		if code := h.dial(mqtt.V5).connect("bob", "a", change).Code; code != mqtt.ClientIdentifierNotValid {
			t.Errorf("bob: %v", code)
		}
	}
	h.login(mqtt.V5, "carol", "c").publish("secret", "for alice", 1)
	a.expectMessage("for alice")
	if n := h.b.Stats().Takeovers; n != 0 {
		t.Errorf("%d takeovers", n)
	}
}

// A topic alias stands for a name, and rules are asked about the name.
func TestAliasAfterTheRulesChanged(t *testing.T) {
	h := open(t, Limits{Aliases: 4})
	for _, wrong := range []*mqtt.Publish{{TopicAlias: 1}, {TopicAlias: 5, Topic: []byte("a")}, {}} {
		c := h.login(mqtt.V5, "alice", "a")
		b := encode(t, mqtt.V5, &mqtt.Publish{QoS: 1, PacketID: 1, TopicAlias: 1})
		if wrong.TopicAlias > 0 {
			wrong.QoS, wrong.PacketID = 1, 1
			b = encode(t, mqtt.V5, wrong)
		} else {
			b[len(b)-1] = 0 // alias 0
		}
		c.raw(b)
		if code := c.expectClosed(); code != mqtt.ProtocolError && code != mqtt.TopicAliasInvalid {
			t.Errorf("alias %d: %v", wrong.TopicAlias, code)
		}
	}
	c := h.login(mqtt.V5, "alice", "a")
	alias := func(p *mqtt.Publish) { p.TopicAlias = 1 }
	c.publish("mine", "x", 1, alias)
	c.publish("", "x", 1, alias)
	h.gate.SetRules(rules(t, rule(true, "alice", pub, "other")))
	c.send(&mqtt.Publish{TopicAlias: 1, QoS: 1, PacketID: 7})
	c.expectAck(mqtt.PUBACK, 7, mqtt.NotAuthorized)
}

// Names that begin with '$' are no names for clients, whatever '#' allows, and
// "$share" is spelt in one way.
func TestInternalNames(t *testing.T) {
	h := open(t, Limits{})
	h.gate.SetRules(rules(t, rule(true, "*", both, "#")))
	c := h.login(mqtt.V5, "alice", "a")
	for _, f := range []string{"$foo", "$SYSx", "$", "$SYS/#", "$SHARE/g/#", "$ShArE/g/x", "$share/g/$SYS/#", "$queue/x"} {
		c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: f}}})
		if a := expect[*mqtt.Suback](c); !a.Codes[0].Failed() {
			t.Errorf("%q is granted", f)
		}
		c.send(&mqtt.Publish{Topic: []byte(strings.NewReplacer("#", "x").Replace(f)), QoS: 1, PacketID: 1})
		c.expectAck(mqtt.PUBACK, 1, mqtt.NotAuthorized)
	}
	for _, f := range []string{"$share", "$share/", "$share/g", "$share//x", "$share/g/", "$share/g+/x", "$share/#/x"} {
		c := h.login(mqtt.V5, "alice", "b")
		b := encode(t, mqtt.V5, &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: strings.Repeat("~", len(f))}}})
		c.raw(bytes.Replace(b, bytes.Repeat([]byte("~"), len(f)), []byte(f), 1))
		if p, err := c.read(); err == nil {
			if a, ok := p.(*mqtt.Suback); ok && !a.Codes[0].Failed() {
				t.Errorf("%q is granted", f)
			}
		}
	}
	c.subscribe("#", 0)
	c.subscribe("$share/g/#", 0)
	h.b.handOutToAll("$SYS/broker/x")
	c.ping()
}

// handOutToAll is what the broker itself would publish.
func (b *Broker) handOutToAll(topic string) {
	p := b.newPublication()
	p.msg.Topic, p.msg.Payload = topic, []byte("x")
	b.route(p)
}

// Every number of seconds is a keep alive, 0 and the largest too.
func TestKeepAliveOfAnyLength(t *testing.T) {
	h := open(t, Limits{})
	for _, seconds := range []uint16{0, 43_690, 43_691, 65_535} {
		h.login(mqtt.V5, "alice", fmt.Sprint(seconds), func(r *mqtt.Connect) { r.KeepAlive = seconds }).ping()
	}
}

// No two sessions share a key, whatever separators their names have.
func TestSessionKeysDiffer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const signs = "a/%2F+#.$é "
	name := func() string {
		var b strings.Builder
		for range rnd.IntN(5) {
			b.WriteRune([]rune(signs)[rnd.IntN(11)])
		}
		return b.String()
	}
	seen := map[string][2]string{}
	for range 200_000 {
		s := &session{owner: name(), clientID: name()}
		who := [2]string{s.owner, s.clientID}
		if first, ok := seen[s.key()]; ok && first != who {
			t.Fatalf("%q and %q share the key %s", first, who, s.key())
		}
		seen[s.key()] = who
	}
}

// Names that mean something elsewhere mean nothing here.
func TestMagicNames(t *testing.T) {
	h := open(t, Limits{})
	names := []string{"__proto__", "constructor", "..", ".", "con", "NUL", "retained", "session", "sessions", "null", "{}", "%2F", "*", "${x}"}
	for _, n := range names {
		c := h.login(mqtt.V5, "alice", n, durable)
		c.subscribe("to/"+n, 1)
		c.publish("kept/"+n, n, 1, retain)
		c.nc.Close()
		h.untilFree(n)
	}
	p := h.login(mqtt.V5, "bob", "p")
	for _, n := range names {
		p.publish("to/"+n, n, 1)
	}
	h.restart()
	for _, n := range names {
		c := h.login(mqtt.V5, "alice", n, durable)
		c.expectMessage(n)
		c.subscribe("kept/"+n, 0)
		c.expectMessage(n)
	}
}

// What a client says reaches the log on one line, and as text.
func TestLogLinesAreNotForged(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	path := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	h.config.Logger = slog.New(slog.NewTextHandler(out, nil))
	h.start()
	h.gate.SetRules(rules(t, rule(true, "alice", pub, "mine")))
	const forged = "x\r\ntime=2026-01-01T00:00:00Z level=ERROR msg=forged\x1b[2J\x07"
	c := h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Publish{Topic: []byte(forged), QoS: 1, PacketID: 1})
	c.read() // refused in whatever way
	c = h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: forged}}})
	c.read()
	h.dial(mqtt.V5).connect("alice", forged)
	h.dial(mqtt.V5).connect(forged, "b")
	c = h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Disconnect{Code: mqtt.UnspecifiedError, ReasonString: forged})
	c.expectClosed()
	h.close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) == 0 {
		t.Error("nothing was logged")
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "time=") || strings.HasPrefix(line, "time=2026-01-01") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\r\n\x1b\x07") {
			t.Errorf("line %q", line)
		}
	}
}

// kinds of CONNECT, each with what remains to be said.
func connects(t *testing.T) [][]byte {
	change := func(f func(*mqtt.Connect)) []byte {
		r := greeting(mqtt.V5)
		f(r)
		return encode(t, mqtt.V5, r)
	}
	whole := change(func(*mqtt.Connect) {})
	return [][]byte{
		whole, encode(t, mqtt.V311, greeting(mqtt.V311)),
		change(func(r *mqtt.Connect) { r.Password = []byte("wrong") }),
		change(func(r *mqtt.Connect) { r.UsernameFlag, r.PasswordFlag, r.Username, r.Password = false, false, "", nil }),
		change(func(r *mqtt.Connect) { r.ClientID = "" }),
		change(func(r *mqtt.Connect) { r.ClientID = "\x01" }),
		change(func(r *mqtt.Connect) { r.Will = &mqtt.Will{Topic: "$SYS/x", Payload: []byte("x")} }),
		change(func(r *mqtt.Connect) { r.Will = &mqtt.Will{Topic: "will", Payload: []byte("x")} }),
		change(func(r *mqtt.Connect) { r.AuthMethod = "x" }),
		whole[:len(whole)/2], {0x10, 0xFF, 0xFF, 0xFF, 0x7F}, []byte("GET / HTTP/1.1\r\n\r\n"),
	}
}

// dialUnkept is for more connections than a test should remember.
func (h *house) dialUnkept() *client {
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Error(err)
		runtime.Goexit()
	}
	return newClient(h.t, nc, mqtt.V5)
}

// untilEmpty waits until no connection is left.
func (h *house) untilEmpty() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for len(h.b.connections()) > 0 {
		if !wait(ctx, time.Millisecond) {
			h.t.Fatal("connections are left")
		}
	}
}

// Connections come and go and leave nothing behind, whatever becomes of them.
func TestConnectionsLeaveNothing(t *testing.T) {
	total, most := 3_000, int64(64) // bytes each: few enough to see a session, a map entry or a buffer
	if os.Getenv("PROVE") != "" {
		total, most = 1_000_000, 1
	}
	h := open(t, Limits{PreLoginPerIP: 64})
	kinds := connects(t)
	run := func(n int) {
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := w; i < n; i += 4 {
					c := h.dialUnkept()
					c.nc.SetDeadline(time.Now().Add(patience))
					c.nc.Write(kinds[i%len(kinds)])
					c.nc.(*net.TCPConn).CloseWrite() // half a packet ends here
					c.dec.Read()
					c.nc.Close()
				}
			})
		}
		all.Wait()
		h.untilEmpty()
	}
	run(1_000)
	before := heap()
	run(total)
	if grown := heap() - before; grown > most*int64(total)+64<<10 {
		t.Errorf("%d connections left %d bytes", total, grown)
	}
}
