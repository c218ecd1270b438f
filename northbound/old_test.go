package northbound

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/storequeue"
)

// Each packet that the client library writes is, as 3.1.1, what a strict decoder
// of that version reads; and the other way round.
func TestOld(t *testing.T) {
	expiry, one := uint32(60), byte(1)
	props := &packets.Properties{SessionExpiryInterval: &expiry}
	user := &packets.Properties{User: []packets.User{{Key: "k", Value: "v"}}, PayloadFormat: &one}
	for name, tc := range map[string]struct {
		write func(*bytes.Buffer) error
		want  mqtt.Packet
	}{
		"CONNECT": {func(b *bytes.Buffer) error {
			_, err := (&packets.Connect{
				ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: "gw", KeepAlive: 30, Properties: props,
				WillFlag: true, WillTopic: "w", WillMessage: []byte("off"), WillQOS: 1, WillRetain: true, WillProperties: user,
			}).WriteTo(b)
			return err
		}, &mqtt.Connect{
			Version: mqtt.V311, ClientID: "gw", KeepAlive: 30, SessionExpiry: 0xFFFFFFFF, ReceiveMaximum: 65535, RequestProblem: true,
			Will: &mqtt.Will{Topic: "w", Payload: []byte("off"), QoS: 1, Retain: true},
		}},
		"PUBLISH": {func(b *bytes.Buffer) error {
			_, err := (&packets.Publish{Topic: "a/b", QoS: 1, PacketID: 7, Retain: true, Payload: []byte("x"), Properties: user}).WriteTo(b)
			return err
		}, &mqtt.Publish{Topic: []byte("a/b"), QoS: 1, PacketID: 7, Retain: true, Payload: []byte("x")}},
		"SUBSCRIBE": {func(b *bytes.Buffer) error {
			_, err := (&packets.Subscribe{PacketID: 9, Properties: user, Subscriptions: []packets.SubOptions{
				{Topic: "a/#", QoS: 2, NoLocal: true, RetainHandling: 2}, {Topic: "b", QoS: 1},
			}}).WriteTo(b)
			return err
		}, &mqtt.Subscribe{PacketID: 9, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 2}, {Filter: "b", QoS: 1}}}},
		"UNSUBSCRIBE": {func(b *bytes.Buffer) error {
			_, err := (&packets.Unsubscribe{PacketID: 9, Properties: user, Topics: []string{"a/#", "b"}}).WriteTo(b)
			return err
		}, &mqtt.Unsubscribe{PacketID: 9, Filters: []string{"a/#", "b"}}},
		"PUBREC": {func(b *bytes.Buffer) error {
			_, err := (&packets.Pubrec{PacketID: 9, Properties: user}).WriteTo(b)
			return err
		}, &mqtt.Ack{Kind: mqtt.PUBREC, PacketID: 9}},
		"DISCONNECT": {func(b *bytes.Buffer) error {
			_, err := (&packets.Disconnect{Properties: user}).WriteTo(b)
			return err
		}, &mqtt.Disconnect{}},
	} {
		var b bytes.Buffer
		if err := tc.write(&b); err != nil {
			t.Fatal(err)
		}
		got, err := toOld(b.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := mqtt.Append(nil, mqtt.V311, tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: % x, want % x", name, got, want)
		}
	}
}

func TestFromOld(t *testing.T) {
	for _, old := range []mqtt.Packet{
		&mqtt.Connack{SessionPresent: true}, &mqtt.Connack{Code: mqtt.NotAuthorized},
		&mqtt.Publish{Topic: []byte("a/b"), QoS: 2, PacketID: 7, Payload: bytes.Repeat([]byte("x"), 123)},
		&mqtt.Publish{Topic: []byte("a/b")},
		&mqtt.Suback{PacketID: 3, Codes: []mqtt.ReasonCode{1, 0x80}}, &mqtt.Unsuback{PacketID: 3},
		&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 5}, &mqtt.Pingresp{},
	} {
		b, err := mqtt.Append(nil, mqtt.V311, old)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fromOld(b)
		if err != nil {
			t.Fatal(err)
		}
		p, err := packets.ReadPacket(bytes.NewReader(got))
		if err != nil {
			t.Errorf("%v: % x: %v", old.Type(), got, err)
			continue
		}
		switch c := p.Content.(type) {
		case *packets.Connack:
			if want := old.(*mqtt.Connack); c.SessionPresent != want.SessionPresent || c.ReasonCode != byte(want.Code) {
				t.Errorf("%+v of %+v", c, old)
			}
		case *packets.Publish:
			if want := old.(*mqtt.Publish); c.Topic != string(want.Topic) || !bytes.Equal(c.Payload, want.Payload) || c.PacketID != want.PacketID {
				t.Errorf("%+v of %+v", c, old)
			}
		case *packets.Suback:
			if !bytes.Equal(c.Reasons, []byte{1, 0x80}) {
				t.Errorf("%+v of %+v", c, old)
			}
		}
	}
}

// Whatever arrives, nothing panics, and nothing is read past its end.
func FuzzOld(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 1})
	f.Add([]byte{0x32, 9, 0, 3, 'a', '/', 'b', 0, 7, 'x', 'y'})
	f.Add([]byte{0x82, 4, 0, 9, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		_, size := split(p)
		for _, translate := range []func([]byte) ([]byte, error){toOld, fromOld} {
			if out, err := translate(p); err == nil && len(out) > len(p)+5 && !size.bad {
				t.Errorf("% x became % x", p, out)
			}
		}
	})
}

func TestEnvelope(t *testing.T) {
	l := &Link{cfg: Config{Enveloped: true}, idPrefix: "gw/7/", ownPrefix: "gw/"}
	for _, tc := range []struct{ payload, want string }{
		{`{"v":{"temp":71.30}}`, `{"hg-id":"gw/7/12","hg-prev":11,"hg-via":["b/1/5"],"payload":{"v":{"temp":71.30}}}`},
		{"\x00\xff", `{"hg-id":"gw/7/12","hg-prev":11,"hg-via":["b/1/5"],"base64":"AP8="}`},
		{"", `{"hg-id":"gw/7/12","hg-prev":11,"hg-via":["b/1/5"]}`},
	} {
		p := publication{body: []byte(tc.payload)}
		m := storequeue.Message{Seq: 12, Prev: 11, Properties: []storequeue.Property{{Key: propID, Value: "gw/7/3"}, {Key: propID, Value: "b/1/5"}}}
		if err := l.wrap(&p, &m, false); err != nil {
			t.Fatal(err)
		}
		if string(p.body) != tc.want {
			t.Errorf("%q became %s, want %s", tc.payload, p.body, tc.want)
		}
		e, body, ok := Unwrap(p.body)
		if !ok || string(body) != tc.payload || e.ID != "gw/7/12" || e.Prev != 11 {
			t.Errorf("%s was opened to %+v, %q", p.body, e, body)
		}
	}
	p := publication{retain: true}
	if err := l.wrap(&p, &storequeue.Message{}, false); err != nil || len(p.body) > 0 {
		t.Errorf("a message that clears what is retained became %s", p.body)
	}
	for _, other := range []string{"", "{}", `{"hg-id":""}`, "[1]", `{"hg-id":5}`, `{"hg-id":"a"`} {
		if _, body, ok := Unwrap([]byte(other)); ok || string(body) != other {
			t.Errorf("%q passes for an envelope", other)
		}
	}
}

// A server that closes the connection over one message, without a word: the
// message is put into quarantine after a few connections, once others went
// through, and nothing else is lost, or out of order.
func TestPoisonWithoutAWord(t *testing.T) {
	for _, at := range []int{0, 57} {
		eachQoS(t, func(t *testing.T, qos byte) {
			c := newCloud(t)
			c.connack.SessionPresent = true
			c.rtt = 10 * time.Millisecond
			s := newSite(100, 1)
			poison := fmt.Sprint("gw/7/", s.msgs[at].Seq)
			c.reply = func(_ int, p *packets.Publish) byte {
				if hgID(p) == poison {
					return dropLine
				}
				return 0
			}
			l := s.start()
			cfg := onceConfig()
			cfg.InFlight, cfg.State, cfg.Send[0].QoS, cfg.MaxPause = 1000, l, qos, 0
			var dropped []uint64
			cfg.Dropped = func(m storequeue.Message, why Drop, code byte) {
				if dropped = append(dropped, m.Seq); why != Refused || code != packets.PubackUnspecifiedError {
					t.Errorf("%v %#x", why, code)
				}
			}
			_, stop := start(t, cfg, l, c)
			until(t, "done", s.done)
			stop()
			if !slices.Equal(dropped, []uint64{s.msgs[at].Seq}) || len(c.connects) > 20 {
				t.Errorf("dropped %v over %d connections", dropped, len(c.connects))
			}
			taken := map[string]bool{}
			for _, id := range append(c.ackedIDs(), c.delivered()...) {
				taken[id] = true
			}
			if want := len(s.msgs) - 1; len(taken)-len(c.delivered()) > want || len(taken) < want {
				t.Errorf("%d arrived, want %d", len(taken), want)
			}
		})
	}
}

// A server, or a line, that ends every connection: nothing is given up.
func TestNoPoisonOnABadLine(t *testing.T) {
	for _, good := range []int{0, 3} { // connections that do well among ten
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			c.connack.SessionPresent = true
			c.rtt = 10 * time.Millisecond
			s := newSite(100, 1)
			bad := true
			c.reply = func(int, *packets.Publish) byte {
				c.mu.Lock()
				defer c.mu.Unlock()
				if bad && len(c.connects)%10 >= good {
					return dropLine
				}
				return 0
			}
			l := s.start()
			cfg := onceConfig()
			cfg.State, cfg.Send[0].QoS, cfg.MaxPause = l, 1, 0
			cfg.Dropped = func(m storequeue.Message, _ Drop, _ byte) { t.Errorf("message %d was given up", m.Seq) }
			_, stop := start(t, cfg, l, c)
			defer stop()
			time.Sleep(time.Hour)
			c.mu.Lock()
			bad = false
			c.mu.Unlock()
			until(t, "done", s.done)
		})
	}
}

// MQTT 3.1.1 at mosquitto: what a link sends arrives without properties; a
// command comes in, and a message that runs in a circle does not.
func TestOldMosquitto(t *testing.T) {
	ca := newAuthority(t, "Our CA")
	addr := startMosquitto(t, ca)
	client := ca.client("gw")
	cfg := receiveConfig()
	cfg.Old = true
	cfg.Servers, cfg.TLS = []string{addr}, clientTLS(ca, &client)
	handled := make(chan storequeue.Message, 10)
	cfg.Handle = func(_ context.Context, m storequeue.Message) error { handled <- m; return nil }
	src := newSource(t, nil)
	src.put(t, numbered(300)...)
	heard := listenTLS(t, addr, ca)
	cfg.Send[0].Prefix = "case/old/"
	stop := run(t, cfg, src)
	soon(t, "all", func() bool { return len(heard.on("case/old/plant/0")) == 100 })
	if got := heard.on("case/old/plant/0"); got[99] != "298" {
		t.Errorf("the payload was changed: %v", got[99])
	}
	stop()
	soon(t, "offline", func() bool {
		s := heard.on("case/old/hg/gw/state")
		return len(s) > 0 && strings.Contains(s[len(s)-1], "offline")
	})
}

// A server that speaks 3.1.1 only says so to a link at MQTT 5, in words.
func TestServerIsOlder(t *testing.T) {
	c := &connackError{code: packets.ConnackUnsupportedProtocolVersion}
	synctest.Test(t, func(t *testing.T) {
		cl := newCloud(t)
		cl.older = true
		l, stop := start(t, testConfig(), newSource(t, cl), cl)
		defer stop()
		until(t, "told", func() bool { return strings.Contains(l.Stats().LastError, c.Error()) })
	})
}
