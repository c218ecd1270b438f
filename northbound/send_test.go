package northbound

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// One message meets one kind of refusal; the others must not notice.
func TestRefusals(t *testing.T) {
	const n, bad = 30, 13
	for _, tc := range []struct {
		code       byte
		times      int // how often the server refuses; 0: for ever
		quarantine bool
	}{
		{0x80, 4, false}, {0x83, 4, false}, {0x88, 4, false}, {0x91, 4, false}, {0x97, 4, false},
		{0x87, 0, true}, {0x90, 0, true}, {0x95, 0, true}, {0x99, 0, true},
		{0x87, 2, false}, {0x99, 1, false},
		{sayPoison, 0, true}, {sayPoison, 2, false}, {dropLine, 4, false},
	} {
		t.Run(fmt.Sprintf("%#x %d times", tc.code, tc.times), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.rtt = 20 * time.Millisecond
				refused := 0
				c.reply = func(_ int, p *packets.Publish) byte {
					if hgID(p) == fmt.Sprint("gw/7/", bad) && (tc.times == 0 || refused < tc.times) {
						refused++
						return tc.code
					}
					return 0
				}
				src := newSource(t, c)
				src.put(t, numbered(n)...)
				cfg := testConfig()
				var quarantined []string
				cfg.Dropped = func(m storequeue.Message, _ Drop, code byte) {
					quarantined = append(quarantined, fmt.Sprintf("%d %s %#x", m.Seq, m.Topic, code))
					src.leaveOut(m.Seq)
				}
				l, stop := start(t, cfg, src, c)
				until(t, "done", func() bool { return src.Acked() == n })
				stop()
				wantPerTopic(t, c, n, bad, tc.quarantine)
				if !tc.quarantine {
					if len(quarantined) > 0 || refused != tc.times {
						t.Errorf("quarantined %v after %d refusals", quarantined, refused)
					}
					return
				}
				code, most := tc.code, maxStrikes
				if code == sayPoison {
					code, most = 0x99, maxStrikes+1 // the first time it was in company
				}
				want := fmt.Sprintf("%d plant/%d %#x", bad, (bad-1)%3, code)
				if !slices.Equal(quarantined, []string{want}) || refused < maxStrikes || refused > most || l.Stats().Quarantined != 1 {
					t.Errorf("quarantined %v after %d refusals, want %s after %d", quarantined, refused, want, maxStrikes)
				}
			})
		})
	}
}

// wantPerTopic checks that each topic's messages arrived, and that the last
// copies of them arrived in order.
func wantPerTopic(t *testing.T, c *cloud, n, bad int, without bool) {
	t.Helper()
	last := map[string]int{} // hg-id → index of its last acknowledged copy
	for i, p := range c.received() {
		last[hgID(p)] = i
	}
	before := map[int]int{}
	for i := 1; i <= n; i++ {
		id := fmt.Sprint("gw/7/", i)
		c.mu.Lock()
		acked := c.acked[id]
		c.mu.Unlock()
		if without && i == bad {
			if acked {
				t.Errorf("message %d was refused and acknowledged", i)
			}
			continue
		}
		if !acked {
			t.Errorf("message %d is missing", i)
		}
		if topic := i % 3; last[id] < before[topic] {
			t.Errorf("the last copy of message %d came before its predecessor's", i)
		} else {
			before[topic] = last[id]
		}
	}
}

// Many poison messages: still not an endless loop, and all others arrive.
func TestEveryTenthRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		c := newCloud(t)
		c.rtt = 20 * time.Millisecond
		c.reply = func(_ int, p *packets.Publish) byte {
			if strings.HasSuffix(string(p.Payload), "0") {
				return 0x99
			}
			return 0
		}
		src := newSource(t, c)
		src.put(t, numbered(n)...)
		cfg := testConfig()
		cfg.Dropped = func(m storequeue.Message, _ Drop, _ byte) { src.leaveOut(m.Seq) }
		l, stop := start(t, cfg, src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == n })
		if st := l.Stats(); st.Quarantined != n/10 || st.Refused[0x99] != 3*n/10 || st.Reconnects != 0 {
			t.Errorf("stats %+v", st)
		}
		if got := len(c.ackedIDs()); got != n-n/10 {
			t.Errorf("%d arrived, want %d", got, n-n/10)
		}
		if got := len(c.received()); got > 5*n {
			t.Errorf("%d PUBLISH for %d messages", got, n)
		}
	})
}

func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		limit := uint32(1000)
		c.connack.Properties.MaximumPacketSize = &limit
		src := newSource(t, c)
		msgs := numbered(9)
		msgs[4].Payload = make([]byte, 2000)
		src.put(t, msgs...)
		cfg := testConfig()
		cfg.Dropped = func(m storequeue.Message, _ Drop, code byte) {
			if code != 0x95 || m.Seq != 5 {
				t.Errorf("quarantined %d with %#x", m.Seq, code)
			}
			src.leaveOut(m.Seq)
		}
		l, stop := start(t, cfg, src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == 9 })
		if st := l.Stats(); st.Quarantined != 1 || c.dials != 1 || len(c.received()) != 8 {
			t.Errorf("quarantined %d, %d connections, %d PUBLISH; want 1, 1, 8", st.Quarantined, c.dials, len(c.received()))
		}
	})
}

// What we encode is what the MQTT library reads, at every length of the header.
func TestPublicationOnTheWire(t *testing.T) {
	l := &Link{cfg: Config{Match: equal}, idPrefix: "gw/7/", ownPrefix: "gw/"}
	l.routes.Store(&routing{receive: []Route{{Topics: []string{"far/r"}, Strip: "far/"}}})
	now := time.UnixMilli(1763776800000)
	for _, n := range []int{0, 1, 60, 100, 127, 128, 16300, 16384, 70000, 2_100_000} {
		m := storequeue.Message{
			Seq: 1234567890123, Prev: 1234567890100, Topic: "plant/a", Payload: make([]byte, n), Retain: n%2 == 0, Text: true,
			Expires: now.Add(1500 * time.Millisecond), ContentType: "application/json", ResponseTopic: "r", CorrelationData: []byte{0, 1},
			Properties: []storequeue.Property{{Key: "k", Value: "v"}, {Key: propID, Value: "gw/1/1"}, {Key: propID, Value: "other/1/1"}, {Key: "k", Value: "w"}},
		}
		p, err := l.publication(&m, &Route{QoS: 1, Strip: "plant/", Prefix: "sites/"}, now, nil)
		if err != nil {
			t.Fatal(err)
		}
		wire := append(p.appendHead(nil, 77), p.body...)
		if len(wire) != p.size() {
			t.Errorf("payload %d: %d bytes, size says %d", n, len(wire), p.size())
		}
		got, err := packets.ReadPacket(bytes.NewReader(wire))
		if err != nil {
			t.Fatalf("payload %d: %v", n, err)
		}
		g := got.Content.(*packets.Publish)
		if g.Topic != "sites/a" || g.QoS != 1 || g.Retain != m.Retain || g.PacketID != 77 || len(g.Payload) != n {
			t.Errorf("payload %d: got %v", n, g)
		}
		want := &packets.Properties{
			PayloadFormat: new(byte(1)), MessageExpiry: new(uint32(2)), ContentType: "application/json", ResponseTopic: "far/r", CorrelationData: []byte{0, 1},
			User: []packets.User{{Key: propID, Value: "gw/7/1234567890123"}, {Key: propPrev, Value: "1234567890100"}, {Key: "k", Value: "v"}, {Key: propID, Value: "other/1/1"}, {Key: "k", Value: "w"}},
		}
		if !reflect.DeepEqual(g.Properties, want) {
			t.Errorf("payload %d: properties %+v, want %+v", n, g.Properties, want)
		}
	}
}

func equal(filter, topic string) bool { return filter == topic }

// Rules that tightened, routes that went and age take stored messages out.
func TestLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		src := newSource(t, c)
		src.put(t,
			storequeue.Message{Topic: "plant/open", Payload: []byte("1")},
			storequeue.Message{Topic: "plant/closed", Payload: []byte("2")},
			storequeue.Message{Topic: "plant/secret", Payload: []byte("3")},
			storequeue.Message{Topic: "plant/old", Payload: []byte("4"), Expires: time.Now().Add(-time.Second)},
			storequeue.Message{Topic: "plant/open", Payload: []byte("5")},
		)
		for seq := range uint64(3) {
			src.leaveOut(seq + 2)
		}
		cfg := testConfig()
		cfg.Leaves = func(topic string) bool { return topic != "plant/closed" }
		l, stop := start(t, cfg, src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == 5 })
		if st := l.Stats(); st.Skipped != 2 || st.Expired != 1 || st.Sent != 2 || st.Acked != 2 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestPropertiesTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		src := newSource(t, c)
		src.put(t, storequeue.Message{
			Topic: "plant/a", Payload: []byte("{}"), Retain: true, Text: true,
			ContentType: "application/json", ResponseTopic: "answers/1", CorrelationData: []byte{1, 2},
			Expires: time.Now().Add(90500 * time.Millisecond),
			Properties: []storequeue.Property{
				{Key: "b", Value: "1"}, {Key: "hg-id", Value: "gw/forged"}, {Key: "b", Value: "2"}, {Key: "hg-id", Value: "other/1/2"},
			},
		})
		_, stop := start(t, testConfig(), src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == 1 })
		p := c.received()[0]
		if p.Topic != "sites/gw/plant/a" || p.QoS != 1 || !p.Retain || string(p.Payload) != "{}" {
			t.Errorf("got %v", p)
		}
		pp := p.Properties
		if pp.ContentType != "application/json" || pp.ResponseTopic != "answers/1" || string(pp.CorrelationData) != "\x01\x02" ||
			*pp.PayloadFormat != 1 || *pp.MessageExpiry != 91 {
			t.Errorf("got %v", pp)
		}
		want := []packets.User{{Key: "hg-id", Value: "gw/7/1"}, {Key: "hg-prev", Value: "0"}, {Key: "b", Value: "1"}, {Key: "b", Value: "2"}, {Key: "hg-id", Value: "other/1/2"}}
		if !slices.Equal(pp.User, want) {
			t.Errorf("user properties %v, want %v", pp.User, want)
		}
	})
}

// What another gateway took keeps the identity it got there.
func TestOriginTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		src := newSource(t, c)
		src.put(t, storequeue.Message{
			Topic: "plant/a", Payload: []byte("{}"), Origin: "far/9/77",
			Properties: []storequeue.Property{{Key: "hg-id", Value: "gw/forged"}, {Key: "b", Value: "1"}},
		})
		src.leaveOut(1)
		_, stop := start(t, testConfig(), src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == 1 })
		want := []packets.User{{Key: "hg-id", Value: "far/9/77"}, {Key: "hg-prev", Value: "0"}, {Key: "b", Value: "1"}}
		if got := c.received()[0].Properties.User; !slices.Equal(got, want) {
			t.Errorf("user properties %v, want %v", got, want)
		}
	})
}

// A QoS 0 route needs no answers, and keeps its place among others.
func TestQoS0Route(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		src := newSource(t, nil)
		src.put(t, numbered(1000)...)
		cfg := testConfig()
		cfg.Send = []Route{{Topics: []string{"plant/0"}, QoS: 0}, {Topics: []string{"plant/#"}, QoS: 1}}
		l, stop := start(t, cfg, src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == 1000 })
		if st := l.Stats(); st.Acked != 1000 || st.Sent != 1000 {
			t.Errorf("stats %+v", st)
		}
		count := map[byte]int{}
		for _, p := range c.received() {
			count[p.QoS]++
		}
		if !maps.Equal(count, map[byte]int{0: 334, 1: 666}) {
			t.Errorf("messages by QoS: %v", count)
		}
	})
}

func TestStateAndWill(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			src := newSource(t, c)
			cfg := testConfig()
			cfg.Leaves = func(string) bool { return allowed }
			l, stop := start(t, cfg, src, c)
			defer stop()
			until(t, "connected", func() bool { return l.Stats().Connected })
			p := c.connects[0]
			if p.WillFlag != allowed || len(c.states) > 0 != allowed {
				t.Fatalf("allowed %v: will %v, states %v", allowed, p.WillFlag, c.states)
			}
			if !allowed {
				return
			}
			if p.WillTopic != "sites/gw/hg/gw/state" || string(p.WillMessage) != `{"state":"offline"}` || !p.WillRetain || p.WillQOS != 1 {
				t.Errorf("will %s %s", p.WillTopic, p.WillMessage)
			}
			if want := fmt.Sprintf(`{"state":"online","since":%d}`, time.Now().UnixMilli()); c.states[0] != want {
				t.Errorf("state %s, want %s", c.states[0], want)
			}
		})
	}
}

// A server that answers pings and nothing else is left.
func TestNoAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.rtt = 10 * time.Hour
		src := newSource(t, c)
		src.put(t, numbered(3)...)
		l, stop := start(t, testConfig(), src, c)
		defer stop()
		time.Sleep(2 * time.Minute)
		if st := l.Stats(); st.Reconnects == 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestSourceFailureEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		src := newSource(t, c)
		l, err := NewLink(testConfig(), src)
		if err != nil {
			t.Fatal(err)
		}
		l.dial = c.dial
		ended := make(chan error, 1)
		go func() { ended <- l.Run(t.Context()) }() // ends with the queue
		until(t, "connected", func() bool { return l.Stats().Connected })
		src.queue.Close()
		if err := <-ended; !errors.Is(err, storequeue.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		c.done.Wait()
	})
}

func TestWants(t *testing.T) {
	l, err := NewLink(Config{
		Servers: []string{"a:1"}, ClientID: "x", Leaves: func(string) bool { return true }, TLS: testConfig().TLS, Match: match,
		Send: []Route{
			{Topics: []string{"plant/#"}, Except: []string{"plant/debug/#"}, QoS: 2, Strip: "plant/", Prefix: "p/"},
			{Topics: []string{"plant/debug/fatal"}, QoS: 0},
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		topic string
		qos   byte
		ok    bool
	}{{"plant/a", 2, true}, {"plant/debug/x", 0, false}, {"plant/debug/fatal", 0, true}, {"other", 0, false}} {
		if qos, ok := l.Wants(tc.topic); qos != tc.qos || ok != tc.ok {
			t.Errorf("Wants(%s) = %d, %v", tc.topic, qos, ok)
		}
	}
	var sink atomic.Bool
	if n := testing.AllocsPerRun(100, func() { _, ok := l.Wants("plant/debug/x"); sink.Store(ok) }); n > 0 {
		t.Errorf("Wants allocates %v times", n)
	}
	if got := l.replyTopic(l.routes.Load().send, "p/x"); got != "plant/x" {
		t.Errorf("an answer for p/x goes to %s here", got)
	}
}

// A cloud whose access list is wrong refuses everything. It is asked less and
// less often, so that hardly anything is taken out of the way for it; when the
// list is right, all the rest arrives.
func TestWrongAccessListAtTheCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		c := newCloud(t)
		c.rtt = 5 * time.Millisecond
		began, served := time.Now(), 0
		c.reply = func(_ int, p *packets.Publish) byte {
			served++
			if served > 100 && time.Since(began) < 10*time.Minute {
				return 0x87
			}
			return 0
		}
		src := newSource(t, c)
		src.put(t, numbered(n)...)
		cfg := testConfig()
		dropped := 0
		cfg.Dropped = func(m storequeue.Message, why Drop, code byte) {
			dropped++
			src.leaveOut(m.Seq)
		}
		l, stop := start(t, cfg, src, c)
		defer stop()
		until(t, "done", func() bool { return src.Acked() == n })
		if took := time.Since(began); took < 10*time.Minute || took > 13*time.Minute {
			t.Errorf("done after %v", took)
		}
		if st := l.Stats(); dropped > 50 || st.Quarantined != uint64(dropped) || len(c.ackedIDs()) != n-dropped {
			t.Errorf("%d dropped, %d taken, stats %+v", dropped, len(c.ackedIDs()), st)
		}
	})
}
