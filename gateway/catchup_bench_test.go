package gateway_test

import (
	wire "encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// BenchmarkCatchUp is what a link does after an outage with a backlog: 100,000
// messages, a million with PROVE=1, or as many as BACKLOG says. Run it with
// -benchtime 1x -timeout 60m. With PROVE=1 it fails where a bound is not held.
func BenchmarkCatchUp(b *testing.B) {
	n := 100_000
	prove := os.Getenv("PROVE") != ""
	if prove {
		n = 1_000_000
	}
	if text := os.Getenv("BACKLOG"); text != "" {
		n, _ = strconv.Atoi(text)
	}
	rates := map[string]float64{}
	for _, c := range catchers {
		b.Run(c.name, func(b *testing.B) {
			if c.name == "mosquitto-1000" && n > 200_000 {
				b.Skip("it gets slower with what it holds, and takes an hour")
			}
			for b.Loop() {
				rates[c.name] = c.drain(b, n)
				b.ReportMetric(rates[c.name], "msg/s")
			}
		})
	}
	var late []time.Duration
	b.Run("live_first", func(b *testing.B) {
		for b.Loop() {
			late = liveBesideBacklog(b, n)
			b.ReportMetric(float64(worst(late).Milliseconds()), "ms-p99-of-the-worst-second")
		}
	})
	ours, bound := rates["headgate"], rates["headgate-100ms"]/10_000
	fmt.Printf("\n%d messages of %d bytes that waited, over mutual TLS:\n", n, benchPayload)
	for _, c := range catchers {
		fmt.Printf("  %-15s %8.0f msg/s   headgate is %5.2f times that\n", c.name, rates[c.name], ours/rates[c.name])
	}
	fmt.Printf("  at 100 ms with 1,000 in flight: %.0f %% of window / round trip\n", 100*bound)
	fmt.Printf("  live_first, 100 msg/s beside it: p99 of the first second %v, of the worst of %d %v\n", first(late), len(late), worst(late))
	if prove && (ours < 2*rates["mosquitto"] || bound < 0.8 || worst(late) > 2*time.Second) {
		b.Error("a bound is not held")
	}
}

func first(all []time.Duration) time.Duration { return slices.Concat(all, []time.Duration{0})[0] }
func worst(all []time.Duration) time.Duration {
	return slices.Max(slices.Concat(all, []time.Duration{0}))
}

// catchers have a backlog for a cloud that was away, and send it in order.
var catchers = []struct {
	name  string
	drain func(testing.TB, int) float64 // messages a second
}{
	{"headgate", func(t testing.TB, n int) float64 { return drainGateway(t, n, 0) }},
	{"headgate-100ms", func(t testing.TB, n int) float64 { return drainGateway(t, n, 50*time.Millisecond) }},
	{"mosquitto", func(t testing.TB, n int) float64 { return drainBridge(t, n, "") }},
	{"mosquitto-1000", func(t testing.TB, n int) float64 { return drainBridge(t, n, "max_inflight_messages 1000") }},
}

// drainGateway fills a gateway without a cloud, and starts it again with one.
func drainGateway(t testing.TB, n int, oneWay time.Duration) float64 {
	cloud := newCloud(t, "")
	near := *cloud
	if oneWay > 0 {
		near.port = farAway(t, cloud.port, oneWay)
	}
	s := newSite(t, &near, "")
	g := startGateway(t, s.config)
	fill(t, s.plain, n)
	g.stop(t, 10*time.Second)
	cloud.start(t)
	all := newPassage(n)
	cloud.watch(t, all.take)
	startGateway(t, s.config)
	return all.rate(t)
}

func drainBridge(t testing.TB, n int, more string) float64 {
	cloud := newCloud(t, "")
	port := startBridge(t, cloud, "max_queued_bytes 0\n"+more, "restart_timeout 1 1")
	fill(t, port, n)
	all := newPassage(n)
	cloud.start(t)
	cloud.watch(t, all.take)
	return all.rate(t)
}

// fill publishes n messages, and returns once all are acknowledged.
func fill(t testing.TB, port, n int) {
	l := newLoad(t, port, shape{publishers: 4, qos: 1, messages: n, window: 20})
	l.run()
	l.close()
}

// A passage is messages of plant/ that come to the cloud, until there are so many.
type passage struct {
	want int
	done chan struct{}

	mu          sync.Mutex // covers the fields below
	n           int
	begin, from time.Time // when the first came, and the one that ends the first fifth
	end         time.Time
}

func newPassage(n int) *passage { return &passage{want: n, done: make(chan struct{})} }

func (a *passage) take(m *client.Message) {
	if !strings.Contains(m.Topic, "/plant/line-") {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.n++; a.n {
	case 1:
		a.begin = time.Now()
	case a.want / 5:
		a.from = time.Now()
	case a.want:
		a.end = time.Now()
		close(a.done)
	}
}

// rate is of the last four fifths: windows open slowly over a long way.
func (a *passage) rate(t testing.TB) float64 {
	t.Helper()
	select {
	case <-a.done:
	case <-time.After(20 * time.Minute):
		t.Fatalf("only %d of %d arrived", a.n, a.want)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return float64(a.want-a.want/5) / a.end.Sub(a.from).Seconds()
}

// liveBesideBacklog publishes 100 messages a second from the first moment of a
// link that has a backlog until that is through, and returns the p99 of what
// they took, by second.
func liveBesideBacklog(t testing.TB, n int) (p99 []time.Duration) {
	cloud := newCloud(t, "")
	s := newSite(t, cloud, "    catch_up: {order: live_first}\n")
	g := startGateway(t, s.config)
	fill(t, s.plain, n)
	g.stop(t, 10*time.Second)
	cloud.start(t)
	all := newPassage(n)
	up, once := make(chan struct{}), sync.Once{}
	var seconds [][]time.Duration
	cloud.watch(t, func(m *client.Message) {
		all.take(m)
		once.Do(func() { close(up) })
		if len(m.Payload) == 16 && strings.HasSuffix(m.Topic, "/plant/live") {
			sent := time.Unix(0, int64(wire.BigEndian.Uint64(m.Payload)))
			second := int(wire.BigEndian.Uint64(m.Payload[8:]))
			for len(seconds) <= second {
				seconds = append(seconds, nil)
			}
			seconds[second] = append(seconds[second], time.Since(sent))
		}
	})
	startGateway(t, s.config)
	live := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "live", CleanStart: true})
	select {
	case <-up:
	case <-time.After(time.Minute):
		t.Fatal("the link does not come up")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began, through := time.Now(), false; !through; {
		select {
		case now := <-tick.C:
			payload := wire.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
			payload = wire.BigEndian.AppendUint64(payload, uint64(now.Sub(began)/time.Second))
			live.PublishAsync(client.Message{Topic: "plant/live", Payload: payload, QoS: 1}, func(err error) {
				if err != nil {
					t.Error(err)
				}
			})
		case <-all.done:
			through = true
		case <-time.After(20 * time.Minute):
			t.Fatal("the backlog does not get through")
		}
	}
	for _, took := range seconds {
		slices.Sort(took)
		if len(took) > 0 {
			p99 = append(p99, took[len(took)*99/100])
		}
	}
	return p99
}

// farAway is a port from which connections go to another, with a delay each way.
func farAway(t testing.TB, port int, oneWay time.Duration) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with ln
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				near.Close()
				continue
			}
			go delay(far, near, oneWay) // both end with either connection
			go delay(near, far, oneWay)
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// delay copies, each byte later by d.
func delay(to io.WriteCloser, from io.ReadCloser, d time.Duration) {
	type part struct {
		due   time.Time
		bytes []byte
	}
	way := make(chan part, 1<<14)
	go func() { // ends with from
		defer close(way)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			way <- part{time.Now().Add(d), b[:n]}
		}
	}()
	for p := range way {
		<-time.After(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
}
