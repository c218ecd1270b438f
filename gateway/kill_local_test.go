package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// scores compares what publishers were promised with what each subscriber got.
type scores struct {
	mu      sync.Mutex
	sent    map[string]int            // publisher → its newest number; it counts up
	acked   int                       // PUBACK or PUBREC
	resent  map[string]bool           // "publisher/number" that went out more than once with QoS 1
	last    map[string]map[string]int // subscriber → publisher → highest number
	repeats map[[2]byte]int           // QoS published and granted → messages that came again
	arrived int
	faults  []string
}

func (s *scores) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) < 20 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

func (s *scores) promised() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked++
}

// take notes an arrival: numbers come without a gap, and what comes again was
// published again with QoS 1 or is marked as a duplicate at QoS 1.
func (s *scores) take(to *person, p *mqtt.Publish) {
	name, _, _ := strings.Cut(string(p.Payload), " ")
	publisher, number, _ := strings.Cut(name, "/")
	n, err := strconv.Atoi(number)
	published := byte(1)
	if strings.HasPrefix(publisher, "pub2") {
		published = 2
	}
	s.mu.Lock()
	last := s.last[to.id][publisher]
	mayRepeat := p.QoS == 1 && p.Dup || published == 1 && s.resent[name]
	s.last[to.id][publisher] = max(last, n)
	s.arrived++
	if n <= last {
		s.repeats[[2]byte{published, to.qos}]++
	}
	s.mu.Unlock()
	switch {
	case err != nil || p.QoS != min(published, to.qos):
		s.fault("%s got %q with QoS %d", to.id, name, p.QoS)
	case n > last+1:
		s.fault("%s got %s after number %d: lost or out of order", to.id, name, last)
	case n <= last && !mayRepeat:
		s.fault("%s got %s again after number %d: QoS %d, dup %v", to.id, name, last, p.QoS, p.Dup)
	}
}

// missing says what has not arrived of all that was sent.
func (s *scores) missing() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for to, last := range s.last {
		for from, n := range s.sent {
			if last[from] != n {
				out = append(out, fmt.Sprintf("%s has %d of %d from %s", to, last[from], n, from))
			}
		}
	}
	return out
}

// localSite is a gateway without a cloud.
func localSite(t *testing.T) (config, address string) {
	t.Helper()
	config, address = filepath.Join(t.TempDir(), "headgate.yaml"), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	text := fmt.Sprintf(`version: 1
gateway: {id: site-1, data: data}
admin: {address: ""}
broker:
  listeners: [{address: %q, plaintext: true, anonymous_as: local}]
access:
  rules: [{allow: [publish, subscribe], who: local, topics: ["plant/#"]}]
`, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, address
}

// TestKill9Local kills the gateway at random moments under QoS 1 and 2, from
// and to durable sessions of both versions, whose connections break now and
// then as well. Everybody follows the standard when resuming.
func TestKill9Local(t *testing.T) {
	rounds := 4
	if os.Getenv("PROVE") != "" {
		rounds = 200
	}
	config, address := localSite(t)
	sc := &scores{sent: map[string]int{}, resent: map[string]bool{}, last: map[string]map[string]int{}, repeats: map[[2]byte]int{}}
	quit, over := context.WithCancel(context.Background())
	defer over()
	var subscribers, publishers sync.WaitGroup
	defer subscribers.Wait()
	defer over()

	g := startGateway(t, config)
	var pubs []*talker
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for _, qos := range []byte{1, 2} {
			l := &listener{pending: map[uint16]bool{}, ready: make(chan struct{})}
			p := &talker{}
			l.id, p.id = fmt.Sprintf("sub%d-v%d", qos, v), fmt.Sprintf("pub%d-v%d", qos, v)
			for _, who := range []*person{&l.person, &p.person} {
				who.address, who.version, who.qos, who.scores = address, v, qos, sc
			}
			sc.mu.Lock()
			sc.last[l.id] = map[string]int{}
			sc.mu.Unlock()
			subscribers.Go(func() { l.run(quit) })
			<-l.ready
			pubs = append(pubs, p)
		}
	}
	talk, hush := context.WithCancel(quit)
	defer hush()
	for _, p := range pubs {
		publishers.Go(func() { p.run(talk, quit) })
	}
	for round := range rounds {
		select {
		case <-time.After(time.Duration(50+rand.IntN(700)) * time.Millisecond):
		case <-g.done:
			t.Fatalf("round %d: the gateway ended by itself:\n%s", round, g.log(t))
		}
		g.kill()
		g = startGateway(t, config)
	}
	hush()
	awaitNothing(t, "unacknowledged", func() (open []string) {
		for _, p := range pubs {
			open = append(open, p.open()...)
		}
		return open
	})
	awaitNothing(t, "missing", sc.missing)
	over()
	publishers.Wait()
	subscribers.Wait()
	sc.report(t, rounds)
}

func (s *scores) report(t *testing.T, rounds int) {
	for _, f := range s.faults {
		t.Error(f)
	}
	t.Logf("%d kills: %d messages acknowledged, %d delivered, came again by QoS published and granted: %v",
		rounds, s.acked, s.arrived, s.repeats)
	if s.acked < rounds*100 {
		t.Errorf("only %d messages were acknowledged: the test did not test", s.acked)
	}
	if n := s.repeats[[2]byte{2, 2}]; n != 0 {
		t.Errorf("%d QoS 2 messages came again", n)
	}
}

// awaitNothing waits until what says nothing any more.
func awaitNothing(t *testing.T, what string, left func() []string) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		all := left()
		if len(all) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("%s after a minute: %d, %v among them", what, len(all), all[:min(8, len(all))])
			return
		}
	}
}
