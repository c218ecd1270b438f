package gateway_test

import (
	"fmt"
	"os"
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
	k := kills{rounds: rounds, rate: 500, least: 200, spread: 1500}
	_, arrived, repeats := s.killAgain(t, rec, k, func(round int) {
		switch {
		case round%3 == 1 && round < rounds:
			far.stop(t, 10*time.Second)
		case round%3 == 2:
			far = cloud.start(t)
			cloud.watch(t, rec.take)
		}
	})
	rec.mu.Lock()
	replayed := rec.replayed
	rec.mu.Unlock()
	t.Logf("%d of them replayed", replayed)
	if repeats > 0 && qos == 2 {
		t.Errorf("%d messages came more than once", repeats)
	}
	if replayed < 100 || replayed > arrived*9/10 {
		t.Errorf("%d of %d replayed: the test did not test", replayed, arrived)
	}
}
