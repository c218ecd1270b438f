package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/rpc"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// swarmMode, in the environment, makes this test program a swarm: thousands of
// clients in a process of their own, so that what they cost is not counted as
// the gateway's. It takes orders by net/rpc on its standard input and output.
const swarmMode = "HEADGATE_TEST_SWARM"

// A Swarm is what takes orders. They come one at a time.
type Swarm struct {
	mu      sync.Mutex // covers clients
	clients map[int]*member
	pairs   map[int]tls.Certificate
	echoes  chan time.Duration
	stop    func()
}

type member struct {
	*client.Client
	conn net.Conn
}

// An Order is for the clients First to First+Count-1. Client n is called d-n
// and has an address of its own; with Users, who it is repeats.
type Order struct {
	Port         int
	Users        int // clients n, n+Users, n+2*Users … are one identity; 0: each has its own
	First, Count int
	CA, CAKey    string // PEM files; with CAKey each client has a certificate of its own
	Password     string
	Expiry       uint32 // of the session, seconds
	QoS          byte   // for Subscribe
	Within       time.Duration
}

func (o *Order) identity(n int) string {
	if o.Users > 0 {
		n %= o.Users
	}
	return fmt.Sprint("d-", n)
}

// topic is what client n alone subscribes to and publishes.
func (o *Order) topic(n int) string { return fmt.Sprintf("plant/%s/%d", o.identity(n), n) }

// A Report is how it went.
type Report struct {
	In       int // done what the order says
	Attempts int
	Errors   []string // the first few of what went wrong at the end of Within
	Took     time.Duration
	Median   time.Duration // of one client, from its first attempt to its last
	P99      time.Duration
	Worst    time.Duration
}

func (r Report) String() string {
	short := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	text := fmt.Sprintf("%d, median %v, p99 %v, worst %v", r.In, short(r.Median), short(r.P99), short(r.Worst))
	if r.Attempts > 0 {
		text += fmt.Sprintf(", %d attempts in %v", r.Attempts, short(r.Took))
	}
	return text
}

type stdio struct {
	io.Reader
	io.Writer
}

func (stdio) Close() error { return nil }

// swarm serves until its standard input is closed.
func swarm() {
	s := &Swarm{clients: map[int]*member{}, pairs: map[int]tls.Certificate{}}
	server := rpc.NewServer()
	if err := server.Register(s); err != nil {
		panic(err)
	}
	server.ServeConn(stdio{os.Stdin, os.Stdout})
}

// each runs f for all clients of the order at once and reports on it.
func each(o *Order, r *Report, f func(ctx context.Context, n int) (attempts int, err error)) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Within)
	defer cancel()
	var mu sync.Mutex // covers r and took
	var took []time.Duration
	var all sync.WaitGroup
	began := time.Now()
	for n := o.First; n < o.First+o.Count; n++ {
		all.Go(func() {
			attempts, err := f(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			r.Attempts += attempts
			if err == nil {
				r.In++
				took = append(took, time.Since(began))
			} else if len(r.Errors) < 5 {
				r.Errors = append(r.Errors, err.Error())
			}
		})
	}
	all.Wait()
	r.Took = time.Since(began)
	r.summarize(took)
}

func (r *Report) summarize(took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	r.Median, r.P99, r.Worst = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
}

// Arrive lets all clients connect at the same moment. Who is turned away waits
// up to a second and tries again, later each time, as devices do.
func (s *Swarm) Arrive(o Order, r *Report) error {
	base, err := s.prepare(&o)
	if err != nil {
		return err
	}
	each(&o, r, func(ctx context.Context, n int) (int, error) {
		pause := time.Second
		for attempt := 1; ; attempt++ {
			cl, err := s.dial(ctx, &o, base, n)
			if err == nil {
				s.mu.Lock()
				s.clients[n] = cl
				s.mu.Unlock()
				return attempt, nil
			}
			select {
			case <-time.After(mrand.N(pause)):
			case <-ctx.Done():
				return attempt, err
			}
			pause = min(2*pause, 8*time.Second)
		}
	})
	return nil
}

func (s *Swarm) dial(ctx context.Context, o *Order, base *tls.Config, n int) (*member, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := from(n).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", o.Port))
	if err != nil {
		return nil, err
	}
	conf := base
	if pair, ok := s.pairs[n]; ok && o.CAKey != "" {
		conf = base.Clone()
		conf.Certificates = []tls.Certificate{pair}
	}
	name := fmt.Sprint("d-", n)
	opt := client.Options{ClientID: name, CleanStart: o.Expiry == 0, SessionExpiry: o.Expiry, KeepAlive: 10 * time.Minute, OnMessage: s.echo}
	if o.Password != "" {
		opt.Username, opt.Password = o.identity(n), mqtt.Secret(o.Password)
	}
	cl, err := client.Open(ctx, tls.Client(conn, conf), opt)
	return &member{cl, conn}, err
}

// from dials from an address that no other client has.
func from(n int) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(1+n>>16), byte(n>>8), byte(n))}}
}

// prepare makes the certificates, so that their making is not measured.
func (s *Swarm) prepare(o *Order) (*tls.Config, error) {
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, err
	}
	base := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}
	base.RootCAs.AppendCertsFromPEM(pem)
	if o.CAKey == "" {
		return base, nil
	}
	ca, err := tls.LoadX509KeyPair(o.CA, o.CAKey)
	if err != nil {
		return nil, err
	}
	for n := o.First; n < o.First+o.Count; n++ {
		if _, ok := s.pairs[n]; ok {
			continue
		}
		if s.pairs[n], err = issue(&ca, n); err != nil {
			return nil, err
		}
	}
	return base, nil
}

// issue is pki.Issue without the disk.
func issue(ca *tls.Certificate, n int) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(n) + 1<<60),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{{Scheme: "urn", Opaque: fmt.Sprint("headgate:client:d-", n)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func (s *Swarm) client(n int) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients[n]
}

// Subscribe lets each client subscribe to its topic.
func (s *Swarm) Subscribe(o Order, r *Report) error {
	each(&o, r, func(ctx context.Context, n int) (int, error) {
		codes, err := s.client(n).Subscribe(ctx, mqtt.Subscription{Filter: o.topic(n), QoS: o.QoS})
		if err == nil && codes[0].Failed() {
			err = fmt.Errorf("subscribe: %v", codes[0])
		}
		return 1, err
	})
	return nil
}

// Cut takes the network away from them.
func (s *Swarm) Cut(o Order, r *Report) error {
	for n := o.First; n < o.First+o.Count; n++ {
		if cl := s.clients[n]; cl != nil {
			cl.conn.Close()
			<-cl.Done()
			delete(s.clients, n)
			r.In++
		}
	}
	return nil
}

// Wait lets time pass.
func (s *Swarm) Wait(o Order, _ *Report) error {
	<-time.After(o.Within)
	return nil
}

// Stay connects and says nothing, until the gateway hangs up.
func (s *Swarm) Stay(o Order, r *Report) error {
	each(&o, r, func(ctx context.Context, n int) (int, error) {
		conn, err := from(n).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", o.Port))
		if err != nil {
			return 1, err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		conn.SetReadDeadline(deadline)
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			return 1, err
		}
		return 1, nil
	})
	return nil
}

const echoEvery = 20 * time.Millisecond

// Listen lets the clients, which have subscribed, send themselves a message
// every now and then, from now until Hear.
func (s *Swarm) Listen(o Order, _ *Report) error {
	ctx, cancel := context.WithCancel(context.Background())
	var talking sync.WaitGroup
	s.echoes = make(chan time.Duration, 1<<20)
	s.stop = func() { cancel(); talking.Wait() }
	for n := o.First; n < o.First+o.Count; n++ {
		cl := s.client(n)
		talking.Go(func() { // until s.stop
			tick := time.NewTicker(echoEvery)
			defer tick.Stop()
			topic := o.topic(n)
			for {
				select {
				case <-tick.C:
					cl.PublishAsync(client.Message{Topic: topic, Payload: []byte(time.Now().Format(time.RFC3339Nano))}, func(error) {})
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return nil
}

func (s *Swarm) echo(m *client.Message) error {
	if sent, err := time.Parse(time.RFC3339Nano, string(m.Payload)); err == nil {
		s.echoes <- time.Since(sent)
	}
	return nil
}

// Hear ends Listen: how long the messages took.
func (s *Swarm) Hear(o Order, r *Report) error {
	s.stop()
	var took []time.Duration
	for range len(s.echoes) {
		took = append(took, <-s.echoes)
	}
	r.In = len(took)
	r.summarize(took)
	return nil
}
