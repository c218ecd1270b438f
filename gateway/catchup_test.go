package gateway_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

// The gateway is killed at random moments while it sends new messages beside a
// backlog, and the cloud goes away and comes back: what was acknowledged arrives,
// each of the two streams in order, and at QoS 2 once.
func TestKill9LiveFirst(t *testing.T) {
	for _, qos := range []int{1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) { killLiveFirst(t, qos) })
	}
}

func killLiveFirst(t *testing.T, qos int) {
	rounds := 7
	if os.Getenv("PROVE") != "" {
		rounds = 60
	}
	cloud := newCloud(t, "persistence true\npersistence_location "+t.TempDir()+"/\n")
	far := cloud.start(t)
	s := newSite(t, cloud, "    catch_up: {order: live_first}\n")
	if qos == 2 {
		s.sendAtQoS2(t)
	}
	rec := newRecord()
	cloud.watch(t, rec.take)
	ctx, cancel := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for i := range 4 {
		publishers.Go(func() {
			publish(ctx, fmt.Sprintf("127.0.0.1:%d", s.plain), fmt.Sprintf("press-%d", i), 500, rec)
		})
	}
	for round := range rounds {
		g := startGateway(t, s.config)
		switch round % 3 {
		case 1:
			far.stop(t, 10*time.Second)
		case 2:
			far = cloud.start(t)
			cloud.watch(t, rec.take)
		}
		select {
		case <-time.After(time.Duration(200+rand.IntN(1500)) * time.Millisecond):
		case <-g.done:
			t.Fatalf("round %d: the gateway ended by itself:\n%s", round, g.log(t))
		}
		g.kill()
	}
	cancel()
	publishers.Wait()
	startGateway(t, s.config)
	drained(t, rec, time.Minute)
	for _, f := range rec.faults {
		t.Error(f)
	}
	acked, arrived, repeats := rec.counts()
	rec.mu.Lock()
	replayed := rec.replayed
	rec.mu.Unlock()
	t.Logf("%d rounds: %d acknowledged, %d arrived, %d of them replayed, %d repeats", rounds, acked, arrived, replayed, repeats)
	if repeats > 0 && qos == 2 {
		t.Errorf("%d messages came more than once", repeats)
	}
	if acked < rounds*100 || replayed < 100 || replayed > arrived*9/10 {
		t.Errorf("%d acknowledged, %d of %d replayed: the test did not test", acked, replayed, arrived)
	}
}
