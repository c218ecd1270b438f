package southbound

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reported polls one tag once a second and returns in which seconds, from the
// first poll on, it was published and as what.
func reported(t *testing.T, d *Device, tag Tag, readings ...Reading) (at []int, messages []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		tag.Name, tag.Group = "x", "fast"
		a := &scripted{tags: []Tag{tag}, start: start, steps: []step{opens}}
		for i, r := range readings {
			a.steps = append(a.steps, func(ctx context.Context) (Batch, error) {
				pause(ctx, time.Until(start.Add(time.Duration(i)*time.Second)))
				r.Tag = "x"
				if !r.Time.IsZero() {
					r.Time = start.Add(r.Time.Sub(noon))
				}
				return Batch{Group: "fast", Time: time.Now(), Readings: []Reading{r}}, nil
			})
		}
		d.Gateway, d.ID, d.Adapter, d.Logger = "gw", "dev", a, slog.New(slog.DiscardHandler)
		d.Publish = func(_ context.Context, m Message) error {
			if m.Topic == "hg/gw/dev/fast" {
				at = append(at, int(time.Since(start)/time.Second))
				messages = append(messages, line(m.Topic, m.Payload, m.Retain))
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(len(readings))*time.Second)
		defer cancel()
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return at, messages
}

func good(values ...any) (all []Reading) {
	for _, v := range values {
		all = append(all, Reading{Value: v, Quality: Good})
	}
	return all
}

func TestReports(t *testing.T) {
	change := Report{When: Change}
	same := slices.Repeat(good(1.0), 20)
	for _, tt := range []struct {
		name     string
		tag      Tag
		readings []Reading
		want     []int
	}{
		{"numbers always", Tag{Type: "int16"}, good(int64(1), int64(1), int64(1)), []int{0, 1, 2}},
		{"truth at a change", Tag{Type: "bool"}, good(true, true, false, false, true), []int{0, 2, 4}},
		{"text at a change", Tag{Type: "string"}, good("a", "a", "b"), []int{0, 2}},
		{"text always", Tag{Type: "string", Report: Report{When: Always}}, good("a", "a"), []int{0, 1}},
		{"bytes at a change", Tag{Type: "bytes", Report: change}, good([]byte{1}, []byte{1}, []byte{2}, "x"), []int{0, 2, 3}},
		{"change", Tag{Report: change}, good(1.0, 1.0, 1.5, 1.5, 1.0), []int{0, 2, 4}},
		{"large integers whole", Tag{Report: change}, good(uint64(1<<63), uint64(1<<63+1)), []int{0, 1}},
		{"deadband", Tag{Report: Report{Deadband: 0.5}}, good(1.0, 1.5, 1.6, 1.1, 1.0, 1.05), []int{0, 2, 4}},
		{"deadband of integers", Tag{Report: Report{Deadband: 2}}, good(int64(0), int64(2), int64(3), uint64(3)), []int{0, 2}},
		{"percent of the range", Tag{Range: Range{0, 200}, Report: Report{DeadbandPercent: 1}}, good(10.0, 12.0, 12.1, 14.0), []int{0, 2}},
		{"percent without range", Tag{Report: Report{DeadbandPercent: 1}}, good(10.0, 10.0, 10.1), []int{0, 2}},
		{"heartbeat", Tag{Report: Report{When: ChangeHeartbeat, Heartbeat: 5 * time.Second}}, same, []int{0, 5, 10, 15}},
		{"no heartbeat", Tag{Report: Report{When: Change, Heartbeat: 5 * time.Second}}, same, []int{0}},
		{"heartbeat after a change", Tag{Report: Report{When: ChangeHeartbeat, Heartbeat: 3 * time.Second}}, good(1.0, 1.0, 2.0, 2.0, 2.0, 2.0), []int{0, 2, 5}},
		{"not too often", Tag{Report: Report{When: Always, MinInterval: 4 * time.Second}}, same[:10], []int{0, 4, 8}},
		{"a change waits", Tag{Report: Report{When: Change, MinInterval: 3 * time.Second}}, good(1.0, 2.0, 2.0, 2.0, 2.0), []int{0, 3}},
		{"a change that was none in the end", Tag{Report: Report{When: Change, MinInterval: 3 * time.Second}}, good(1.0, 2.0, 1.0, 1.0), []int{0}},
		{"quality at once", Tag{Report: Report{When: Change, MinInterval: time.Minute}},
			[]Reading{{Value: 1.0, Quality: Good}, {Quality: BadTimeout}, {Quality: BadTimeout}, {Value: 1.0, Quality: Good}, {Value: 1.0, Quality: UncertainClock}}, []int{0, 1, 3, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if at, messages := reported(t, new(Device), tt.tag, tt.readings...); !slices.Equal(at, tt.want) {
				t.Errorf("published at %v, want %v:\n%s", at, tt.want, strings.Join(messages, "\n"))
			}
		})
	}
}

func TestDevicesRuleIsForTagsWithoutOne(t *testing.T) {
	d := &Device{Report: Report{When: Change}}
	if at, _ := reported(t, d, Tag{}, good(1.0, 1.0)...); len(at) != 1 {
		t.Errorf("published at %v", at)
	}
	if at, _ := reported(t, d, Tag{Report: Report{When: Always}}, good(1.0, 1.0)...); len(at) != 2 {
		t.Errorf("published at %v", at)
	}
}

func TestQualityOfReadings(t *testing.T) {
	timeout := Reading{Quality: BadTimeout}
	for _, tt := range []struct {
		name     string
		device   *Device
		tag      Tag
		readings []Reading
		want     []string
	}{
		{"range", &Device{}, Tag{Range: Range{0, 10}}, good(10.0, 10.1, int64(-1), "x"),
			[]string{`fast {,"seq":1,"v":{"x":10}}`, `fast {,"seq":2,"v":{"x":10.1},"q":{"x":"uncertain.range"}}`,
				`fast {,"seq":3,"v":{"x":-1},"q":{"x":"uncertain.range"}}`, `fast {,"seq":4,"v":{"x":"x"}}`}},
		{"the device's own time", &Device{StaleAfter: map[string]time.Duration{"fast": 3 * time.Second}}, Tag{},
			[]Reading{{Value: 1.0, Quality: Good, Time: noon}, {Value: 1.0, Quality: Good, Time: noon.Add(999 * time.Millisecond)},
				{Value: 1.0, Quality: Good, Time: noon.Add(-2 * time.Second)}},
			[]string{`fast {,"seq":1,"v":{"x":1}}`, `fast {,"seq":2,"v":{"x":1}}`,
				`fast {,"seq":3,"v":{"x":1},"q":{"x":"uncertain.stale"},"t":{"x":946684798000}}`}},
		{"bad at once", &Device{}, Tag{}, append(good(1.0), timeout),
			[]string{`fast {,"seq":1,"v":{"x":1}}`, `fast {,"seq":2,"v":{"x":null},"q":{"x":"bad.timeout"}}`}},
		{"lazy errors", &Device{LazyErrors: 2}, Tag{}, append(good(1.0), timeout, timeout, timeout, timeout, Reading{Value: 2.0, Quality: Good}, timeout),
			[]string{`fast {,"seq":1,"v":{"x":1}}`,
				`fast {,"seq":2,"v":{"x":1},"q":{"x":"uncertain.stale"},"t":{"x":946684800000}}`,
				`fast {,"seq":3,"v":{"x":1},"q":{"x":"uncertain.stale"},"t":{"x":946684800000}}`,
				`fast {,"seq":4,"v":{"x":null},"q":{"x":"bad.timeout"}}`, `fast {,"seq":5,"v":{"x":null},"q":{"x":"bad.timeout"}}`,
				`fast {,"seq":6,"v":{"x":2}}`, `fast {,"seq":7,"v":{"x":2},"q":{"x":"uncertain.stale"},"t":{"x":946684805000}}`}},
		{"nothing known", &Device{LazyErrors: 2}, Tag{}, []Reading{timeout},
			[]string{`fast {,"seq":1,"v":{"x":null},"q":{"x":"bad.timeout"}}`}},
		{"what the device says lasts", &Device{LazyErrors: 2}, Tag{}, append(good(1.0), Reading{Quality: BadSensor}, timeout),
			[]string{`fast {,"seq":1,"v":{"x":1}}`, `fast {,"seq":2,"v":{"x":null},"q":{"x":"bad.sensor"}}`, `fast {,"seq":3,"v":{"x":null},"q":{"x":"bad.timeout"}}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, got := reported(t, tt.device, tt.tag, tt.readings...)
			check(t, got, tt.want...)
		})
	}
}

// A group that brings nothing for too long is marked once, and good again when
// it is read.
func TestStaleAfter(t *testing.T) {
	long := func(ctx context.Context) (Batch, error) {
		pause(ctx, 10*time.Minute)
		return gives("fast", "temp", 3.0, Good)(ctx)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		a := &scripted{tags: twoGroups, steps: []step{opens, gives("fast", "temp", 1.5, Good), gives("slow", "model", "a", Good), long}, start: time.Now()}
		var got []string
		d := &Device{Gateway: "gw", ID: "dev", Adapter: a, Logger: slog.New(slog.DiscardHandler), StaleAfter: map[string]time.Duration{"fast": 3 * time.Second},
			Publish: func(_ context.Context, m Message) error {
				if !m.Retain {
					got = append(got, time.Since(a.start).String()+" "+line(m.Topic, m.Payload, m.Retain))
				}
				return nil
			}}
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		check(t, got, `0s fast {,"seq":1,"v":{"temp":1.5}}`, `0s slow {,"seq":2,"v":{"model":"a"}}`,
			`3s fast {,"seq":3,"v":{"temp":1.5},"q":{"temp":"uncertain.stale"},"t":{"temp":946684800000}}`,
			`10m0s fast {,"seq":4,"v":{"temp":3}}`,
			`10m3s fast {,"seq":5,"v":{"temp":3},"q":{"temp":"uncertain.stale"},"t":{"temp":946685400000}}`)
	})
}

// Each tag has a topic of its own; all of a poll are offered together, and no
// later one before they are accepted.
func TestTagTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		tags := []Tag{{Name: "temp", Group: "fast", Type: "int16", Unit: "Cel"}, {Name: "a/b+#", Group: "fast", Type: "int16"}}
		poll := func(value int64) step {
			return func(context.Context) (Batch, error) {
				return Batch{Group: "fast", Time: time.Now(), Readings: []Reading{{Tag: "temp", Value: value, Quality: Good}, {Tag: "a/b+#", Value: value, Quality: Good}}}, nil
			}
		}
		a := &scripted{tags: tags, steps: []step{opens, poll(1), poll(2)}, start: time.Now()}
		var mu sync.Mutex
		var got []string
		refused := 0
		d := &Device{Gateway: "gw", ID: "dev", Adapter: a, Logger: slog.New(slog.DiscardHandler), TagTopic: "acme/dev/{group}/{tag}", RetainTag: true,
			Publish: func(_ context.Context, m Message) error {
				mu.Lock()
				defer mu.Unlock()
				if strings.HasSuffix(m.Topic, "/temp") && refused < 3 {
					refused++
					return context.DeadlineExceeded
				}
				if strings.HasPrefix(m.Topic, "acme/") {
					var p struct {
						Tag   string
						Value int
						Seq   int
					}
					if err := json.Unmarshal(m.Payload, &p); err != nil || !m.Retain {
						t.Errorf("%s: %v", m.Payload, err)
					}
					got = append(got, m.Topic+" "+p.Tag+" "+string(rune('0'+p.Value))+" "+string(rune('0'+p.Seq)))
				}
				return nil
			}}
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		check(t, got[:2], "acme/dev/fast/a_b__ a/b+# 1 1", "acme/dev/fast/temp temp 1 1")
		slices.Sort(got[2:])
		check(t, got[2:], "acme/dev/fast/a_b__ a/b+# 2 2", "acme/dev/fast/temp temp 2 2")
	})
}
