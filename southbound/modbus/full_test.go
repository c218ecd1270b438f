package modbus

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// While the queue takes nothing, or slowly, a device is polled less, and says so:
// of all beats each was either published or told as missed, and no value is of
// another time than its message.
func TestFullQueueSlowsPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 100 * time.Millisecond
		b := pipeBus(t, func(byte, int) time.Duration { return time.Millisecond })
		a, err := b.Adapter(registersAt(1, interval, 5))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var seq, beats int
		d := &southbound.Device{Gateway: "gw", ID: "dev", Adapter: a, Publish: func(ctx context.Context, m southbound.Message) error {
			now := time.Since(start)
			switch {
			case now > time.Minute && now < 2*time.Minute:
				return errors.New("queue full")
			case now > 3*time.Minute && now < 4*time.Minute:
				time.Sleep(350 * time.Millisecond) // a slow disk
			}
			if !strings.HasSuffix(m.Topic, "/g") {
				return ctx.Err()
			}
			var p struct {
				TS     int64
				Seq    int
				Missed int
				V      map[string]uint64
			}
			if err := json.Unmarshal(m.Payload, &p); err != nil || p.V["5"] != 1005 {
				t.Errorf("%s: %v", m.Payload, err)
			}
			if seq++; p.Seq != seq {
				t.Errorf("message %d after %d", p.Seq, seq-1)
			}
			beats += 1 + p.Missed
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		s := d.Stats()
		if int(s.Published) != seq || beats < 2999 || beats > 3000 || s.Missed < 900 || s.Refused == 0 {
			t.Errorf("%d messages, %d of 3000 beats; %+v", seq, beats, s)
		}
		if got := b.Stats().Overruns; got != s.Missed {
			t.Errorf("the bus counts %d missed polls, the device %d", got, s.Missed)
		}
	})
}
