package gateway_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// An Attack lasts for Order.Within. Those that need a login use the users from
// Order.First on.
type Attack struct {
	Order
	Kind string
	Rate int // a second, for those that come from outside
}

const strangers = 64 // addresses that an attack from outside comes from

var attacks = map[string]func(*assault) error{
	elsewhere:       (*assault).elsewhere,
	"connect":       (*assault).connect,
	"half-open TLS": (*assault).halfOpen,
	"bad user":      (*assault).badUser,
	"publish":       (*assault).publish,
	"subscribe":     (*assault).subscribe,
	"retained":      (*assault).retained,
}

type assault struct {
	Attack
	base *tls.Config
	done atomic.Int64 // what got through, as far as it was meant to
	end  time.Time
}

// Attack does it and reports how many times.
func (s *Swarm) Attack(a Attack, r *Report) error {
	base, err := s.prepare(&a.Order)
	if err != nil {
		return err
	}
	as := &assault{Attack: a, base: base, end: time.Now().Add(a.Within)}
	err = attacks[a.Kind](as)
	r.In = int(as.done.Load())
	return err
}

// elsewhere is the attack that never speaks to the gateway: it takes from the
// machine what attackers who share it may take, and nothing else.
const elsewhere = "elsewhere"

func (a *assault) elsewhere() error {
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for time.Now().Before(a.end) {
				sha256.Sum256(make([]byte, 4096))
				a.done.Add(1)
			}
		})
	}
	all.Wait()
	return nil
}

// paced calls f at the attack's rate, from changing addresses, with at most
// 2,000 calls under way.
func (a *assault) paced(f func(conn net.Conn)) error {
	slots := make(chan struct{}, 2000)
	var all sync.WaitGroup
	defer all.Wait()
	began := time.Now()
	for n := 0; time.Now().Before(a.end); n++ {
		if ahead := time.Duration(n)*time.Second/time.Duration(a.Rate) - time.Since(began); ahead > 0 {
			<-time.After(ahead)
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			conn, err := from(1<<16+n%strangers).Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.Port))
			if err != nil {
				return
			}
			conn.(*net.TCPConn).SetLinger(0) // or the ports run out
			defer conn.Close()
			conn.SetDeadline(a.end)
			a.done.Add(1)
			f(conn)
		})
	}
	return nil
}

func (a *assault) connect() error { return a.paced(func(net.Conn) {}) }

// halfOpen sends a ClientHello, which makes the server compute, and nothing more.
func (a *assault) halfOpen() error {
	here, there := net.Pipe()
	go tls.Client(here, a.base).Handshake() // ended by closing here
	hello := make([]byte, 4096)
	n, err := there.Read(hello)
	here.Close()
	if err != nil {
		return err
	}
	return a.paced(func(conn net.Conn) {
		conn.Write(hello[:n])
		buf := make([]byte, 4096)
		for err := error(nil); err == nil; _, err = conn.Read(buf) {
		}
	})
}

func (a *assault) badUser() error {
	return a.paced(func(conn net.Conn) {
		ctx, cancel := context.WithDeadline(context.Background(), a.end)
		defer cancel()
		client.Open(ctx, tls.Client(conn, a.base), client.Options{
			ClientID: "x", CleanStart: true, Username: fmt.Sprint("u-", rand.IntN(1000)), Password: mqtt.Secret("wrong"),
		})
	})
}

const insiders = 4 // clients of an attack with valid logins

// inside runs f for each of a few clients; the time counts from when they are
// logged in.
func (a *assault) inside(f func(ctx context.Context, cl *client.Client, home string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute+a.Within)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for n := a.First; n < a.First+insiders; n++ {
		conn, err := from(n).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.Port))
		if err != nil {
			return err
		}
		name := fmt.Sprint("d-", n)
		cl, err := client.Open(ctx, tls.Client(conn, a.base), client.Options{ClientID: name, CleanStart: true,
			Username: name, Password: mqtt.Secret(a.Password), OnMessage: func(*client.Message) error { return nil }})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all.Go(func() {
			defer conn.Close()
			ctx, cancel := context.WithTimeout(ctx, a.Within)
			defer cancel()
			for ctx.Err() == nil && cl.Err() == nil {
				f(ctx, cl, "plant/"+name+"/")
			}
		})
	}
	return nil
}

func (a *assault) publish() error {
	payload := make([]byte, 100)
	return a.inside(func(_ context.Context, cl *client.Client, home string) {
		cl.PublishAsync(client.Message{Topic: home + "x", Payload: payload, QoS: byte(rand.IntN(2))}, func(error) { a.done.Add(1) })
	})
}

func (a *assault) subscribe() error {
	return a.inside(func(ctx context.Context, cl *client.Client, home string) {
		var subs []mqtt.Subscription
		for range 500 {
			subs = append(subs, mqtt.Subscription{Filter: fmt.Sprint(home, "+/", rand.IntN(1000), "/#"), QoS: byte(rand.IntN(2))})
		}
		subs = append(subs, mqtt.Subscription{Filter: home + "#", QoS: 1})
		if _, err := cl.Subscribe(ctx, subs...); err == nil {
			a.done.Add(1)
		}
	})
}

func (a *assault) retained() error {
	payload := make([]byte, 100)
	return a.inside(func(_ context.Context, cl *client.Client, home string) {
		topic := fmt.Sprint(home, rand.IntN(100), "/", rand.IntN(1000))
		cl.PublishAsync(client.Message{Topic: topic, Payload: payload, QoS: 1, Retain: true}, func(error) { a.done.Add(1) })
	})
}

// Work lets the clients, which have subscribed, send themselves messages with
// QoS 1 at a steady rate, and waits until all have come back.
func (s *Swarm) Work(o Order, r *Report) error {
	s.echoes = make(chan time.Duration, 1<<20)
	each(&o, r, func(ctx context.Context, n int) (int, error) {
		cl, topic := s.client(n), o.topic(n)
		<-time.After(rand.N(workEvery))
		tick := time.NewTicker(workEvery)
		defer tick.Stop()
		var open sync.WaitGroup
		var failed atomic.Value
		sent := 0
		for ; ctx.Err() == nil && cl.Err() == nil; <-tick.C {
			open.Add(1)
			sent++
			cl.PublishAsync(client.Message{Topic: topic, QoS: 1, Payload: []byte(time.Now().Format(time.RFC3339Nano))}, func(err error) {
				if err != nil {
					failed.Store(err)
				}
				open.Done()
			})
		}
		open.Wait()
		if err, ok := failed.Load().(error); ok {
			return sent, err
		}
		return sent, cl.Err()
	})
	r.In = 0
	var took []time.Duration
	for late := time.After(10 * time.Second); len(took) < r.Attempts; {
		select {
		case d := <-s.echoes:
			took = append(took, d)
			continue
		case <-late:
		}
		break
	}
	r.In = len(took)
	r.summarize(took)
	return nil
}

const workEvery = 200 * time.Millisecond
