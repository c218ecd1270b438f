package broker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// samples is one of each packet, those of servers included.
func samples() []mqtt.Packet {
	props := mqtt.Properties{ContentType: "t", ResponseTopic: "r", CorrelationData: []byte{1}, MessageExpiry: 9, HasMessageExpiry: true}
	return []mqtt.Packet{
		&mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("x")},
		&mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("x"), QoS: 1, PacketID: 1, Properties: props},
		&mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("x"), QoS: 2, PacketID: 2, TopicAlias: 3, Retain: true},
		&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: 1}, &mqtt.Ack{Kind: mqtt.PUBREC, PacketID: 1},
		&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 2}, &mqtt.Ack{Kind: mqtt.PUBCOMP, PacketID: 2, Code: mqtt.PacketIdentifierNotFound},
		&mqtt.Subscribe{PacketID: 3, ID: 9, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "$share/g/b"}}},
		&mqtt.Unsubscribe{PacketID: 4, Filters: []string{"a/#"}},
		&mqtt.Suback{PacketID: 3, Codes: []mqtt.ReasonCode{0}}, &mqtt.Unsuback{PacketID: 3, Codes: []mqtt.ReasonCode{0}},
		&mqtt.Connack{}, &mqtt.Pingreq{}, &mqtt.Pingresp{},
		&mqtt.Disconnect{Code: mqtt.DisconnectWithWill, SessionExpiry: 3, HasSessionExpiry: true},
		&mqtt.Auth{Code: mqtt.ReAuthenticate, Method: "m"},
		&mqtt.Connect{Version: mqtt.V5, ClientID: "x", ReceiveMaximum: 1, Will: &mqtt.Will{Topic: "w"}},
	}
}

// Each packet is cut at each byte, as a connection that breaks and as a packet
// that says it ends there, before and after login. The connection is closed,
// nothing else happens, and nothing is left behind.
func TestEveryPacketCutAtEveryByte(t *testing.T) {
	bothVersions(t, func(t *testing.T, v mqtt.Version) {
		before := goleak.IgnoreCurrent()
		h := open(t, Limits{})
		cases := 0
		all := slices.AppendSeq(samples(), maps.Values(withHoles()))
		for _, p := range all {
			b, err := mqtt.Append(nil, v, p)
			if err != nil {
				continue // 3.1.1 has no AUTH
			}
			for cut := 1; cut < len(b); cut++ {
				short := append([]byte{b[0], byte(cut - 1)}, b[1:cut]...) // its own length, whatever follows
				if cut > 1 {
					short = append([]byte{b[0], byte(cut - 2)}, b[2:cut]...)
				}
				for _, part := range [][]byte{b[:cut], short} {
					for _, loggedIn := range []bool{false, true} {
						c := h.dial(v)
						if loggedIn {
							c.connect("alice", "cut")
						}
						c.raw(part)
						c.nc.(*net.TCPConn).CloseWrite()
						c.expectClosed()
						c.nc.Close()
						cases++
					}
				}
			}
		}
		h.login(v, "alice", "good").ping()
		t.Logf("%d cases", cases)
		h.close() // says if something panicked
		goleak.VerifyNone(t, before)
	})
}

// Any sequence of packets, some of them damaged, costs at most the connection
// that it came over.
func TestRandomPackets(t *testing.T) {
	h := open(t, Limits{})
	good := h.login(mqtt.V5, "bob", "good")
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		v := []mqtt.Version{mqtt.V311, mqtt.V5}[seed%2]
		c := h.login(v, "alice", fmt.Sprint("c", seed%5), durable)
		all := samples()
		var b []byte
		for range 30 {
			b, _ = mqtt.Append(b, v, all[rnd.IntN(len(all)-6)]) // mostly what clients may send
		}
		if rnd.IntN(2) == 0 {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
		c.nc.SetWriteDeadline(time.Now().Add(patience))
		c.nc.Write(b) // the server may hang up in the middle
		c.nc.(*net.TCPConn).CloseWrite()
		c.expectClosed()
		good.ping()
	}
}

func TestQueueFull(t *testing.T) {
	h := open(t, Limits{})
	h.close()
	h.disk.MaxSize = 256 << 10
	h.start()
	s := h.login(mqtt.V5, "bob", "s", durable)
	s.subscribe("a", 1)
	c := h.login(mqtt.V5, "alice", "c")
	payload := make([]byte, 8<<10)
	stored := 0
	for {
		c.send(&mqtt.Publish{Topic: []byte("a"), Payload: payload, QoS: 1, PacketID: 1})
		if a := expect[*mqtt.Ack](c); a.Code != mqtt.Success {
			if a.Code != mqtt.QuotaExceeded {
				t.Fatalf("PUBACK %v", a.Code)
			}
			break
		}
		stored++
	}
	c.send(&mqtt.Publish{Topic: []byte("a"), Payload: payload, QoS: 2, PacketID: 2})
	c.expectAck(mqtt.PUBREC, 2, mqtt.QuotaExceeded)
	c.send(&mqtt.Publish{Topic: []byte("a"), Payload: payload, QoS: 2, PacketID: 2}) // it may be tried again
	c.expectAck(mqtt.PUBREC, 2, mqtt.QuotaExceeded)
	old := h.login(mqtt.V311, "alice", "old")
	old.send(&mqtt.Publish{Topic: []byte("a"), Payload: payload, QoS: 1, PacketID: 1})
	old.expectClosed()
	for range stored {
		s.expectMessage(string(payload))
	}
	s.ping()
	if n := h.b.Stats().Refused; n != 4 {
		t.Errorf("%d refusals counted", n)
	}
}

func TestTooManyConnections(t *testing.T) {
	h := open(t, Limits{Connections: 2, Sessions: 2})
	h.login(mqtt.V5, "alice", "a")
	h.login(mqtt.V5, "alice", "b")
	if code := h.dial(mqtt.V5).connect("alice", "c").Code; code != mqtt.QuotaExceeded {
		t.Errorf("CONNACK %v", code)
	}
}

func TestKeepAlive(t *testing.T) {
	h := open(t, Limits{})
	c := h.login(mqtt.V5, "alice", "a", func(r *mqtt.Connect) { r.KeepAlive = 1 })
	began := time.Now()
	if code := c.expectClosed(); code != mqtt.KeepAliveTimeout {
		t.Errorf("got %v", code)
	}
	if d := time.Since(began); d < 1400*time.Millisecond || d > 5*time.Second {
		t.Errorf("closed after %v", d)
	}
	h.login(mqtt.V5, "alice", "a", func(r *mqtt.Connect) { r.KeepAlive = 65535 }).ping() // more than 16 bits of deadline
}

func TestSubscriptionLimit(t *testing.T) {
	h := open(t, Limits{Subscriptions: 2, TopicLevels: 3})
	c := h.login(mqtt.V5, "alice", "a")
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{
		{Filter: "a"}, {Filter: "1/2/3/4"}, {Filter: "$share/g/1/2/3"}, {Filter: "a"}, {Filter: "b"},
	}})
	want := []mqtt.ReasonCode{0, mqtt.TopicFilterInvalid, 0, 0, mqtt.QuotaExceeded}
	if got := expect[*mqtt.Suback](c).Codes; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// panicking has a defect.
type panicking struct{ password }

func (p panicking) Allow(id access.Identity, action access.Action, topic string) bool {
	if topic == "panic" {
		panic("a defect")
	}
	return p.password.Allow(id, action, topic)
}

func TestPanicCostsOneConnection(t *testing.T) {
	h := open(t, Limits{})
	h.b.access = panicking{password{h.gate}}
	good := h.login(mqtt.V5, "bob", "good")
	c := h.login(mqtt.V5, "alice", "a", durable)
	c.send(&mqtt.Publish{Topic: []byte("panic")})
	if code := c.expectClosed(); code != mqtt.UnspecifiedError {
		t.Errorf("got %v", code)
	}
	good.ping()
	h.login(mqtt.V5, "alice", "a", durable).ping()
	if n := h.b.stats.panics.Swap(0); n != 1 {
		t.Errorf("%d panics counted", n)
	}
}
