package gateway

import (
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/northbound"
)

func TestCatchUpStatus(t *testing.T) {
	now := time.Now()
	up := northbound.Stats{Connected: true, Since: now.Add(-20 * time.Second), BacklogAtUp: 1000}
	for name, tt := range map[string]struct {
		left, of uint64
		down     bool
		want     *admin.CatchUpStatus
	}{
		"on its way":      {800, 1000, false, &admin.CatchUpStatus{Left: 800, Of: 1000, PerSecond: 10, ETA: 80}},
		"grows":           {1500, 1000, false, &admin.CatchUpStatus{Left: 1500, Of: 1500, ETA: -1}},
		"done":            {0, 1000, false, nil},
		"the link is off": {800, 1000, true, nil},
	} {
		s := up
		s.Backlog, s.BacklogAtUp, s.Connected = tt.left, tt.of, !tt.down
		got := catchUp(&s, now)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
