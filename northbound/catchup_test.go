package northbound

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// heard is what a consumer at the cloud makes of what arrived.
func heard(c *cloud) (f Finding, replayed int) {
	a := NewAudit()
	for _, p := range c.received() {
		replay := property(p, propReplay) == "1"
		if replay {
			replayed++
		}
		a.Hear(p.Topic, hgID(p), property(p, propPrev), replay)
	}
	return a.Findings()[0], replayed
}

func property(p *packets.Publish, key string) string {
	for _, u := range p.Properties.User {
		if u.Key == key {
			return u.Value
		}
	}
	return ""
}

// liveConfig is of a link whose lane has a second place.
func liveConfig(src *checkedSource, qos byte) Config {
	cfg := testConfig()
	cfg.Send = []Route{{Topics: []string{"plant/#"}, QoS: qos}}
	cfg.Live = []Live{src.Live()}
	cfg.State = src.queue
	cfg.InFlight = 20
	cfg.MaxPause = 10 * time.Millisecond
	return cfg
}

// With a backlog and with cuts at any step, on which either stream may be in
// flight, everything arrives, each stream is in order, and at QoS 2 nothing comes
// twice.
func TestLiveFirstCutAnywhere(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint("QoS ", qos, " seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { liveFirst(t, qos, seed) })
			})
		}
	}
}

func liveFirst(t *testing.T, qos byte, seed uint64) {
	const waiting, fresh = 400, 100
	rnd := rand.New(rand.NewPCG(seed, 7))
	steps := []step{atConnack, atPublish, atPuback}
	if qos == 2 {
		steps = onceSteps
	}
	c := newCloud(t)
	c.rtt = 30 * time.Millisecond
	c.connack.SessionPresent = true
	var mu sync.Mutex // covers the next three: answers have goroutines of their own
	cuts, at, due := 0, atConnack, 1
	c.cut = func(s step, _ int) bool {
		mu.Lock()
		defer mu.Unlock()
		if s != at || cuts == 12 {
			return false
		}
		if due--; due > 0 {
			return false
		}
		cuts++
		at, due = steps[rnd.IntN(len(steps))], 1+rnd.IntN(40)
		if at == atConnack {
			due = 1
		}
		return true
	}
	src := newSourceIn(t, c, memoryDir(t))
	src.put(t, numbered(waiting)...)
	l, stop := start(t, liveConfig(src, qos), src.Reader, c)
	defer stop()
	for range fresh {
		time.Sleep(20 * time.Millisecond)
		src.put(t, numbered(1)...)
	}
	until(t, "all acknowledged", func() bool { return src.Waiting() == 0 })
	f, replayed := heard(c)
	mu.Lock()
	defer mu.Unlock()
	if f.Missing+f.Disordered+f.Unjudged > 0 || f.Messages-f.Repeats != waiting+fresh {
		t.Errorf("after %d cuts: %+v", cuts, f)
	}
	if replayed < waiting {
		t.Errorf("%d marked as replayed, %d had waited", replayed, waiting)
	}
	if most := uint64(cuts * 20); f.Repeats > most {
		t.Errorf("%d repeats, at most %d were in flight", f.Repeats, most)
	}
	if got := c.delivered(); qos == 2 {
		if slices.Sort(got); len(got) != waiting+fresh || len(slices.Compact(got)) != waiting+fresh {
			t.Errorf("%d delivered, %d of them once", len(got), len(slices.Compact(got)))
		}
	}
	if cuts < 6 || l.Stats().Backlog != 0 {
		t.Errorf("%d cuts, backlog %d", cuts, l.Stats().Backlog)
	}
}

// New messages do not wait for the backlog, nor behind it in the network; both
// get through when there is more of each than the way takes.
func TestNeitherSideStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		var last time.Time // when the way has taken what is on it: 200 messages a second
		late, fresh, replayed := time.Duration(0), 0, 0
		c.reply = func(_ int, p *packets.Publish) byte {
			now := time.Now()
			last = last.Add(5 * time.Millisecond)
			if last.Before(now) {
				last = now
			}
			time.Sleep(time.Until(last))
			if property(p, propReplay) == "1" {
				replayed++
				return 0
			}
			var sent int64
			fmt.Sscan(string(p.Payload), &sent)
			late = max(late, time.Since(time.UnixMilli(sent)))
			fresh++
			return 0
		}
		src := newSource(t, c)
		src.put(t, numbered(3000)...)
		cfg := liveConfig(src, 1)
		cfg.InFlight = 1000
		_, stop := start(t, cfg, src.Reader, c)
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			src.put(t, storequeue.Message{Topic: "plant/1", Payload: fmt.Append(nil, time.Now().UnixMilli())})
		}
		stop()
		if late > 2*time.Second || fresh < 800 || replayed < 800 { // 100 a second came, so 200 may be on their way
			t.Errorf("in 10 s %d new ones came, the latest after %v, and %d that had waited", fresh, late, replayed)
		}
	})
}

// What waited is sent at the rate that is configured, with either order, and what
// is new is not held up by it with live places.
func TestRateOfTheBacklog(t *testing.T) {
	for _, liveFirst := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			bytes := 0
			c.reply = func(_ int, p *packets.Publish) byte {
				if !liveFirst || property(p, propReplay) == "1" {
					bytes += 70 + len(p.Payload) // about
				}
				return 0
			}
			src := newSource(t, c)
			msgs := numbered(1000)
			for i := range msgs {
				msgs[i].Payload = make([]byte, 930)
			}
			src.put(t, msgs...)
			cfg := liveConfig(src, 1)
			cfg.Rate = 20_000
			if !liveFirst {
				cfg.Live = nil
			}
			_, stop := start(t, cfg, src.Reader, c)
			defer stop()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if bytes < 190_000 || bytes > 215_000 {
				t.Errorf("live first %v: %d bytes in 10 s, want about 200,000", liveFirst, bytes)
			}
			src.put(t, storequeue.Message{Topic: "plant/new", Payload: []byte("x")})
			time.Sleep(time.Second)
			synctest.Wait()
			got := c.received()
			came := slices.ContainsFunc(got, func(p *packets.Publish) bool { return p.Topic == "plant/new" })
			if came != liveFirst {
				t.Errorf("live first %v: the new one came: %v", liveFirst, came)
			}
		})
	}
}

// After a short outage, of which no more is left than fits into a window, there
// is one stream, in order and without marks; but not in a new process, which does
// not know what was sent before.
func TestShortOutageStaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		lines := make(chan *cloudConn, 9)
		c.hello = func(cc *cloudConn) { lines <- cc }
		src := newSource(t, c)
		cfg := liveConfig(src, 1)
		l, stop := start(t, cfg, src.Reader, c)
		until(t, "up", func() bool { return l.Stats().Connected })
		src.put(t, numbered(5)...)
		until(t, "first ones", func() bool { return src.Waiting() == 0 })
		c.mu.Lock()
		c.down = true
		c.mu.Unlock()
		(<-lines).Close()
		src.put(t, numbered(15)...)
		time.Sleep(time.Second)
		c.mu.Lock()
		c.down = false
		c.mu.Unlock()
		until(t, "the rest", func() bool { return src.Waiting() == 0 })
		stop()
		if _, replayed := heard(c); replayed != 0 {
			t.Errorf("%d marked", replayed)
		}
		wantInOrder(t, c, 20)
		src.put(t, numbered(3)...)
		_, stop = start(t, cfg, src.Reader, c)
		defer stop()
		until(t, "all", func() bool { return src.Waiting() == 0 })
		if _, replayed := heard(c); replayed != 3 {
			t.Errorf("%d marked, want 3", replayed)
		}
	})
}

// The lanes' order holds within each of the two streams.
func TestPriorityLanesFirstInBothStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.rtt = time.Millisecond
		src := newSource(t, c)
		alarms, err := src.queue.Reader("link:cloud/alarms")
		if err != nil {
			t.Fatal(err)
		}
		put := func(r *storequeue.Reader, topic string, n int) {
			for range n {
				m := storequeue.Message{Topic: topic, For: []storequeue.Mark{{Reader: r.ID(), QoS: 1}}}
				if err := src.queue.Append(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(src.Reader, "plant/old", 300)
		put(alarms, "plant/alarm/old", 100)
		cfg := liveConfig(src, 1)
		cfg.Live = []Live{alarms.Live(), src.Live()}
		cfg.InFlight = 1
		l, err := NewLink(cfg, alarms, src.Reader)
		if err != nil {
			t.Fatal(err)
		}
		l.dial = c.dial
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }() // ends with ctx
		time.Sleep(20 * time.Millisecond)
		put(src.Reader, "plant/new", 50)
		put(alarms, "plant/alarm/new", 50)
		until(t, "all acknowledged", func() bool { return src.Waiting()+alarms.Waiting() == 0 })
		cancel()
		<-ended
		c.done.Wait()
		mean := map[string]float64{}
		got := c.received()
		for i, p := range got {
			mean[p.Topic] += float64(i)
		}
		for topic, n := range map[string]float64{"plant/old": 300, "plant/alarm/old": 100, "plant/new": 50, "plant/alarm/new": 50} {
			mean[topic] /= n
		}
		if len(got) != 500 || mean["plant/alarm/new"] > mean["plant/new"] || mean["plant/new"] > mean["plant/old"] || mean["plant/alarm/old"] > mean["plant/old"] {
			t.Errorf("%d came, mean places %v", len(got), mean)
		}
	})
}

// A link that comes and goes while a long backlog is on its way keeps what is
// new going: neither packet ids nor what is remembered of each outage run out.
func TestManyOutagesWithABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiting, outages = 300, 150
		c := newCloud(t)
		c.connack.SessionPresent = true
		lines := make(chan *cloudConn, outages+1)
		c.hello = func(cc *cloudConn) { lines <- cc }
		src := newSourceIn(t, c, memoryDir(t))
		src.put(t, numbered(waiting)...)
		cfg := liveConfig(src, 2)
		cfg.Rate = 500
		l, stop := start(t, cfg, src.Reader, c)
		defer stop()
		for i := range outages {
			line := <-lines
			src.put(t, storequeue.Message{Topic: "plant/new", Payload: []byte("x")}, storequeue.Message{Topic: "plant/new", Payload: []byte("y")})
			until(t, fmt.Sprint("new ones, outage ", i), func() bool { return cfg.Live[0].Waiting() == 0 })
			line.Close()
			time.Sleep(time.Millisecond)
			if err := src.queue.Append(t.Context(), make([]storequeue.Message, blockSize+10)...); err != nil { // others'
				t.Fatal(err)
			}
			src.put(t, storequeue.Message{Topic: "plant/1", Payload: []byte("z")}) // while it is down, or just up again
		}
		until(t, "all acknowledged", func() bool { return src.Waiting() == 0 })
		f, _ := heard(c)
		if f.Missing+f.Disordered > 0 || f.Messages-f.Repeats != waiting+3*outages {
			t.Errorf("%+v", f)
		}
		if len(c.delivered()) != waiting+3*outages {
			t.Errorf("%d delivered", len(c.delivered()))
		}
		if n := l.Stats().Reconnects; n < outages-1 {
			t.Errorf("%d reconnects", n)
		}
	})
}
