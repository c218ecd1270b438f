package storequeue

import (
	"testing"
	"testing/synctest"
	"time"
)

// Those who were just answered are waited for, if there are many of them, and
// not for long.
func TestCrowd(t *testing.T) {
	for name, tt := range map[string]struct {
		waiting, answered, come int
		took                    time.Duration
		want                    int
		after                   time.Duration
	}{
		"they come":                    {10, 40, 40, 2 * time.Millisecond, 50, 100 * time.Microsecond},
		"some come":                    {10, 40, 30, 2 * time.Millisecond, 40, 500 * time.Microsecond},
		"nobody comes":                 {10, 40, 0, 2 * time.Millisecond, 10, 500 * time.Microsecond},
		"nobody comes to a slow disk":  {10, 40, 0, time.Second, 10, graceMost},
		"too few to be waited for":     {10, leastCrowd - 1, 0, time.Second, 10, 0},
		"nothing was committed before": {10, 0, 0, time.Second, 10, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &Queue{}
				q.filling.init()
				submit := func(n int) {
					for range n {
						q.Submit(&Message{Topic: "t"}, nil)
					}
				}
				submit(tt.waiting)
				q.filling.expect(tt.answered, tt.took)
				began := time.Now()
				time.AfterFunc(100*time.Microsecond, func() { submit(tt.come) })
				got := len(q.filling.next(&batch{}, 0).entries)
				if after := time.Since(began); got != tt.want || after != tt.after {
					t.Errorf("%d after %v, want %d after %v", got, after, tt.want, tt.after)
				}
				time.Sleep(time.Second) // until AfterFunc has run
			})
		})
	}
}
