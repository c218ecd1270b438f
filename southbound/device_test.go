package southbound

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A step is what one Read of a scripted session does, or, as the first of a
// session, its Open. After the last step everything blocks until ctx ends.
type step func(ctx context.Context) (Batch, error)

// scripted is an adapter that plays steps, in bubbles of time.
type scripted struct {
	tags   []Tag
	steps  []step
	opened []time.Duration // when, since start
	closed int
	start  time.Time
}

func (a *scripted) take(ctx context.Context) (Batch, error) {
	if len(a.steps) == 0 {
		<-ctx.Done()
		return Batch{}, ctx.Err()
	}
	next := a.steps[0]
	a.steps = a.steps[1:]
	return next(ctx)
}

func (a *scripted) Open(ctx context.Context) (Session, error) {
	a.opened = append(a.opened, time.Since(a.start))
	if _, err := a.take(ctx); err != nil {
		return nil, err
	}
	return scriptedSession{a}, nil
}

type scriptedSession struct{ *scripted }

func (s scriptedSession) Tags() []Tag { return s.tags }
func (s scriptedSession) Read(ctx context.Context) (Batch, error) {
	return s.take(ctx)
}
func (s scriptedSession) Close() error { s.closed++; return nil }

func opens(context.Context) (Batch, error) { return Batch{}, nil }

func fails(text string) step {
	return func(context.Context) (Batch, error) { return Batch{}, errors.New(text) }
}

func panics(what any) step {
	return func(context.Context) (Batch, error) { panic(what) }
}

// gives returns a batch of one tag of group "fast" or "slow".
func gives(group, tag string, value any, q Quality) step {
	return func(context.Context) (Batch, error) {
		return Batch{Group: group, Time: time.Now(), Readings: []Reading{{Tag: tag, Value: value, Quality: q}}}, nil
	}
}

func repeat(n int, s ...step) []step {
	var all []step
	for range n {
		all = append(all, s...)
	}
	return all
}

var twoGroups = []Tag{{Name: "temp", Group: "fast", Type: "float64", Unit: "Cel"}, {Name: "flow", Group: "fast", Type: "int16"}, {Name: "model", Group: "slow", Type: "string"}}

type outcome struct {
	published []string // "topic payload", without times and the topic's beginning
	log       string
	stats     Stats
	adapter   *scripted
}

// play runs a device with the steps for a while.
func play(t *testing.T, d time.Duration, refuse func(n int) error, steps ...step) outcome {
	t.Helper()
	var out outcome
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		var log bytes.Buffer
		out.adapter = &scripted{tags: twoGroups, steps: steps, start: time.Now()}
		offered := 0
		device := &Device{Gateway: "gw", ID: "dev", Adapter: out.adapter, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Publish: func(_ context.Context, m Message) error {
				offered++
				if err := refuse(offered); err != nil {
					return err
				}
				out.published = append(out.published, line(m.Topic, m.Payload, m.Retain))
				return nil
			}}
		if err := device.Run(ctx); err != nil {
			t.Error(err)
		}
		out.log, out.stats = log.String(), device.Stats()
	})
	return out
}

func line(topic string, payload []byte, retain bool) string {
	s := strings.TrimPrefix(topic, "hg/gw/dev/") + " " + string(payload)
	for _, key := range []string{`"ts":`, `"since":`} {
		if before, after, ok := strings.Cut(s, key); ok {
			s = before + strings.TrimLeft(after, "0123456789")
		}
	}
	if retain {
		s = "retained " + s
	}
	return s
}

func never(int) error { return nil }

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("published\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const (
	metaLine   = `retained meta {"tags":{"temp":{"type":"float64","unit":"Cel","group":"fast"},"flow":{"type":"int16","group":"fast"},"model":{"type":"string","group":"slow"}}}`
	onlineLine = `retained state {"state":"online",}`
)

func TestOutage(t *testing.T) {
	out := play(t, time.Hour, never,
		opens, gives("fast", "temp", 1.5, Good), gives("slow", "model", "x", Good), fails("EOF"),
		fails("refused"), fails("refused"),
		opens, fails("EOF"),
		opens, gives("fast", "temp", 2.5, Good), fails("reset"))
	check(t, out.published, metaLine,
		`fast {,"seq":1,"v":{"temp":1.5}}`, onlineLine,
		`slow {,"seq":2,"v":{"model":"x"}}`,
		`fast {,"seq":3,"v":{"temp":null,"flow":null},"q":{"temp":"bad.offline","flow":"bad.offline"}}`,
		`slow {,"seq":4,"v":{"model":null},"q":{"model":"bad.offline"}}`,
		`retained state {"state":"offline",,"error":"read: EOF"}`,
		`fast {,"seq":5,"v":{"temp":2.5}}`, onlineLine,
		`fast {,"seq":6,"v":{"temp":null,"flow":null},"q":{"temp":"bad.offline","flow":"bad.offline"}}`,
		`slow {,"seq":7,"v":{"model":null},"q":{"model":"bad.offline"}}`,
		`retained state {"state":"offline",,"error":"read: reset"}`)
	if out.adapter.closed != 3 {
		t.Errorf("%d of 3 sessions closed", out.adapter.closed)
	}
	s := out.stats
	if s.State != Offline || s.Sessions != 3 || s.Polls != 3 || s.Published != 7 || s.Good != 3 || s.Bad != 0 || s.LastError != "read: reset" {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(out.log, "level=WARN"); n != 2 {
		t.Errorf("%d warnings for two outages:\n%s", n, out.log)
	}
}

func TestDeviceThatNeverOpens(t *testing.T) {
	out := play(t, 10*time.Minute, never, repeat(1000, fails("no route"))...)
	check(t, out.published, `retained state {"state":"offline",,"error":"open: no route"}`)
	last := time.Duration(0)
	for i, at := range out.adapter.opened {
		ceiling := min(time.Second<<min(i, 10)/2, 5*time.Second)
		if i > 0 && at-last >= ceiling {
			t.Errorf("attempt %d came %v after the one before", i, at-last)
		}
		last = at
	}
	if n := len(out.adapter.opened); n < 150 || n > 400 {
		t.Errorf("%d attempts in 10 minutes", n)
	}
}

func TestBackoffStartsAnewAfterAGoodRead(t *testing.T) {
	out := play(t, 10*time.Minute, never, repeat(100, opens, gives("fast", "temp", 1.0, Good), fails("EOF"))...)
	if took := out.adapter.opened[100]; took > 100*time.Second {
		t.Errorf("100 reconnects after good reads took %v", took)
	}
}

// A device none of whose groups gives a value is offline, connection or not.
func TestStateFollowsTheValues(t *testing.T) {
	out := play(t, time.Minute, never, opens,
		gives("fast", "temp", nil, BadTimeout), gives("slow", "model", "x", Good),
		gives("fast", "temp", nil, BadTimeout), gives("slow", "model", nil, BadTimeout),
		gives("fast", "temp", 1.0, Good), fails("EOF"),
		opens, gives("slow", "model", "x", Good), gives("slow", "model", nil, BadTimeout))
	var states []string
	for _, p := range out.published {
		if strings.HasPrefix(p, "retained state") {
			states = append(states, p)
		}
	}
	check(t, states, `retained state {"state":"offline",,"error":"no tag can be read, temp is bad.timeout"}`, onlineLine,
		`retained state {"state":"offline",,"error":"no tag can be read, model is bad.timeout"}`, onlineLine,
		`retained state {"state":"offline",,"error":"read: EOF"}`, onlineLine,
		`retained state {"state":"offline",,"error":"no tag can be read, model is bad.timeout"}`)
}

func TestPanicIsAnErrorOfTheSession(t *testing.T) {
	out := play(t, time.Hour, never,
		panics("no map"), panics("no map"), opens, gives("fast", "temp", 1.0, Good), panics(errors.New("index")), opens, gives("fast", "temp", 2.0, Good))
	if out.stats.State != Online || out.stats.Polls != 2 {
		t.Errorf("%+v", out.stats)
	}
	if n := strings.Count(out.log, "stack="); n != 2 {
		t.Errorf("%d stacks for two different panics:\n%s", n, out.log)
	}
	if !strings.Contains(out.stats.LastError, "adapter panicked: index") {
		t.Errorf("last error %q", out.stats.LastError)
	}
}

// While nothing is accepted, the batch is kept and nothing is read; then the
// sequence goes on without a hole.
func TestRefusedBatchIsKept(t *testing.T) {
	refuse := func(n int) error {
		if n >= 3 && n < 50 {
			return errors.New("queue full")
		}
		return nil
	}
	out := play(t, time.Hour, refuse, append([]step{opens},
		gives("fast", "temp", 1.0, Good), gives("fast", "temp", 2.0, Good), gives("fast", "temp", 3.0, Good))...)
	check(t, out.published, metaLine, `fast {,"seq":1,"v":{"temp":1}}`, onlineLine,
		`fast {,"seq":2,"v":{"temp":2}}`, `fast {,"seq":3,"v":{"temp":3}}`)
	if out.stats.Refused != 47 {
		t.Errorf("%d refusals counted, want 47", out.stats.Refused)
	}
	if n := strings.Count(out.log, "publish refused"); n != 1 {
		t.Errorf("%d log lines for one reason:\n%s", n, out.log)
	}
}

func TestContextEndsWhileNothingIsAccepted(t *testing.T) {
	out := play(t, time.Minute, func(int) error { return errors.New("queue full") }, opens)
	if len(out.published) != 0 || out.adapter.closed != 1 {
		t.Errorf("published %v, closed %d", out.published, out.adapter.closed)
	}
}

func TestAdapterThatBreaksTheContract(t *testing.T) {
	out := play(t, time.Hour, never, opens, gives("a/b", "temp", 1.0, Good), opens, gives("state", "temp", 1.0, Good), opens,
		func(context.Context) (Batch, error) { return Batch{Group: "fast"}, nil },
		func(context.Context) (Batch, error) {
			return Batch{Group: "fast", Readings: []Reading{{Tag: "temp", Value: 1.0, Quality: Good}}}, nil
		})
	for _, p := range out.published {
		if strings.HasPrefix(p, "a/b") || strings.HasPrefix(p, "state") {
			t.Errorf("published %s", p)
		}
	}
	if out.stats.State != Online || out.stats.LastGood.IsZero() {
		t.Errorf("%+v", out.stats)
	}
}

func TestMetaOnlyWhenChanged(t *testing.T) {
	var a *scripted
	grow := func(context.Context) (Batch, error) {
		a.tags = append(a.tags[:1:1], Tag{Name: "level", Group: "fast", Type: "int16", Unit: "m"})
		return Batch{}, nil
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		a = &scripted{tags: twoGroups[:1], steps: []step{opens, fails("EOF"), opens, fails("EOF"), grow, fails("EOF")}}
		metas := 0
		device := &Device{Gateway: "gw", ID: "dev", Adapter: a, Logger: slog.New(slog.DiscardHandler),
			Publish: func(_ context.Context, m Message) error {
				if m.Topic == "hg/gw/dev/meta" && m.Retain {
					metas++
				}
				return nil
			}}
		if err := device.Run(ctx); err != nil || metas != 2 {
			t.Errorf("%d times, %v", metas, err)
		}
	})
}

func TestRunRefusesWhatIsNoTopicLevel(t *testing.T) {
	for _, id := range []string{"", "a/b", "+", "#", "a\x00", "\xff"} {
		for _, d := range []*Device{{Gateway: id, ID: "dev"}, {Gateway: "gw", ID: id}} {
			if err := d.Run(t.Context()); err == nil {
				t.Errorf("gateway %q, device %q ran", d.Gateway, d.ID)
			}
		}
	}
}
