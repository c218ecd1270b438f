package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// A server is the scripted other end of a connection.
type server struct {
	t    *testing.T
	conn net.Conn
	*mqtt.Decoder
}

func (s *server) send(packets ...mqtt.Packet) {
	s.t.Helper()
	for _, p := range packets {
		wire, err := mqtt.Append(nil, mqtt.V5, p)
		if err != nil {
			s.t.Error(err)
		}
		s.conn.Write(wire) // the client may have hung up
	}
}

func (s *server) expect(want mqtt.Type) mqtt.Packet {
	s.t.Helper()
	p, err := s.Read()
	if err != nil || p.Type() != want {
		s.t.Errorf("got %v, %v; want %v", p, err, want)
	}
	return p
}

func connack() *mqtt.Connack {
	return &mqtt.Connack{ReceiveMaximum: math.MaxUint16, MaximumQoS: 2, RetainAvailable: true,
		WildcardAvailable: true, SubscriptionIDs: true, SharedAvailable: true}
}

// open connects a client to a script that starts behind the CONNECT. The script
// has ended when the test ends.
func open(t *testing.T, o Options, script func(*server)) (*Client, error) {
	t.Helper()
	near, far := net.Pipe()
	ended := make(chan struct{})
	go func() { // ends with the script; its end of the pipe is closed below
		defer close(ended)
		s := &server{t, far, mqtt.NewDecoder(far, 0)}
		s.expect(mqtt.CONNECT)
		script(s)
	}()
	c, err := Open(t.Context(), near, o)
	t.Cleanup(func() {
		if far.Close(); c != nil {
			<-c.Done()
		}
		<-ended
	})
	return c, err
}

func TestBadConnacks(t *testing.T) {
	for want, answer := range map[string]mqtt.Packet{
		"answers CONNECT with PINGRESP": &mqtt.Pingresp{},
		"resumes a session":             &mqtt.Connack{SessionPresent: true},
		"server busy: later":            &mqtt.Connack{Code: mqtt.ServerBusy, ReasonString: "later"},
	} {
		_, err := open(t, Options{CleanStart: true}, func(s *server) { s.send(answer) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(gone, near, Options{CleanStart: true}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBadServers(t *testing.T) {
	publish := func(change func(*mqtt.Publish)) *mqtt.Publish {
		p := &mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: 1}
		change(p)
		return p
	}
	for want, packets := range map[string][]mqtt.Packet{
		"sent SUBACK for 7":       {&mqtt.Suback{PacketID: 7, Codes: []mqtt.ReasonCode{0}}},
		"sent PUBACK for 7":       {&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: 7}},
		"sent PUBREC for 7":       {&mqtt.Ack{Kind: mqtt.PUBREC, PacketID: 7}},
		"sent SUBSCRIBE":          {&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a"}}}},
		"sent CONNACK":            {connack()},
		"topic alias":             {publish(func(p *mqtt.Publish) { p.TopicAlias = 1 })},
		"exceeds the receive max": {publish(func(*mqtt.Publish) {}), publish(func(p *mqtt.Publish) { p.PacketID = 2 })},
		"session taken over":      {&mqtt.Disconnect{Code: mqtt.SessionTakenOver}},
	} {
		t.Run(want, func(t *testing.T) {
			c, err := open(t, Options{CleanStart: true, ReceiveMaximum: 1}, func(s *server) {
				s.send(connack())
				go s.send(packets...) // ends with the pipe
				for {
					if _, err := s.Read(); err != nil {
						return
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if <-c.Done(); c.Err() == nil || !strings.Contains(c.Err().Error(), want) {
				t.Errorf("%v; want %q", c.Err(), want)
			}
		})
	}
}

func TestReceiveMaximumOfTheServerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := connack()
		limited.ReceiveMaximum = 2
		more := make(chan struct{})
		c, err := open(t, Options{CleanStart: true}, func(s *server) {
			s.send(limited)
			s.expect(mqtt.PUBLISH)
			s.expect(mqtt.PUBLISH)
			<-more
			s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: 1})
			s.expect(mqtt.PUBLISH)
			s.send(&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: 3, Code: mqtt.QuotaExceeded},
				&mqtt.Ack{Kind: mqtt.PUBACK, PacketID: 2})
		})
		if err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 3)
		for range 2 {
			c.PublishAsync(Message{Topic: "a", QoS: 1}, func(err error) { results <- err })
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Publish(short, Message{Topic: "a", QoS: 1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("third message: %v", err)
		}
		close(more)
		var refused *RefusedError
		if err := c.Publish(t.Context(), Message{Topic: "a", QoS: 1}); !errors.As(err, &refused) || refused.Code != mqtt.QuotaExceeded {
			t.Error(err)
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestQoS2IsHandedOnOnce(t *testing.T) {
	calls := 0
	c, err := open(t, Options{CleanStart: true, OnMessage: func(*Message) error { calls++; return nil }}, func(s *server) {
		p := &mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: 5}
		s.send(connack(), p)
		s.expect(mqtt.PUBREC)
		p.Dup = true
		s.send(p)
		s.expect(mqtt.PUBREC)
		for _, want := range []mqtt.ReasonCode{mqtt.Success, mqtt.PacketIdentifierNotFound} {
			s.send(&mqtt.Ack{Kind: mqtt.PUBREL, PacketID: 5})
			if a, ok := s.expect(mqtt.PUBCOMP).(*mqtt.Ack); ok && a.Code != want {
				s.t.Errorf("PUBCOMP says %v, want %v", a.Code, want)
			}
		}
		s.conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	if <-c.Done(); calls != 1 {
		t.Errorf("OnMessage was called %d times", calls)
	}
}

func TestSilentServerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := open(t, Options{CleanStart: true, KeepAlive: time.Minute}, func(s *server) {
			s.send(connack())
			s.expect(mqtt.PINGREQ)
			s.send(&mqtt.Pingresp{})
			s.expect(mqtt.PINGREQ)
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-c.Done()
		if took := time.Since(start); took != 2*time.Minute+pingTimeout || !strings.Contains(c.Err().Error(), "ping") {
			t.Errorf("after %v: %v", took, c.Err())
		}
	})
}

func TestWaitersFailWithTheConnection(t *testing.T) {
	c, err := open(t, Options{CleanStart: true}, func(s *server) {
		s.send(connack())
		for range 3 {
			if _, err := s.Read(); err != nil {
				s.t.Error(err)
			}
		}
		s.conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	go func() { results <- c.Publish(t.Context(), Message{Topic: "a", QoS: 2}) }()
	go func() { _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a"}); results <- err }()
	go func() { _, err := c.Unsubscribe(t.Context(), "a"); results <- err }()
	for range 3 {
		if err := <-results; err == nil {
			t.Error("a lost exchange counts as done")
		}
	}
	<-c.Done()
	if err := c.Publish(t.Context(), Message{Topic: "a"}); err == nil || c.Disconnect() == nil {
		t.Error("the connection is gone")
	}
}

func TestServerLimitsAreKept(t *testing.T) {
	small := connack()
	small.MaximumPacket, small.MaximumQoS, small.RetainAvailable = 20, 1, false
	c, err := open(t, Options{CleanStart: true}, func(s *server) {
		s.send(small)
		if p, err := s.Read(); err == nil {
			s.t.Errorf("client sent %+v", p)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []Message{
		{Topic: "a", Payload: make([]byte, 20), QoS: 1}, {Topic: "a", Payload: make([]byte, 20)},
		{Topic: "a", QoS: 2}, {Topic: "a", Retain: true}, {Topic: "a/#"}, {Topic: ""},
		{Topic: "a", QoS: 1, Properties: mqtt.Properties{ContentType: "\xff"}},
	} {
		if err := c.Publish(t.Context(), m); err == nil {
			t.Errorf("%+v was sent", m)
		}
	}
	if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "a#"}); err == nil {
		t.Error("filter a# was sent")
	}
	if len(c.window) != 0 {
		t.Error("refused messages keep their place in flight")
	}
}

func TestTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() { // ends with its two connections
		defer close(served)
		for range 2 {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s := &server{t, conn, mqtt.NewDecoder(conn, 0)}
			if _, err := s.Read(); err == nil {
				s.send(connack())
				s.expect(mqtt.DISCONNECT)
			}
			conn.Close()
		}
	}()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	o := Options{Address: l.Addr().String(), TLS: &tls.Config{RootCAs: trusted}, CleanStart: true}
	dial(t, o).Disconnect()
	o.TLS = &tls.Config{}
	var unknown x509.UnknownAuthorityError
	if _, err := Dial(t.Context(), o); !errors.As(err, &unknown) {
		t.Errorf("server of an unknown authority: %v", err)
	}
	<-served
}
