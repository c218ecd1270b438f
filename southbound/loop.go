package southbound

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// A loop is one Run of a Device, in one goroutine.
type loop struct {
	device   *Device
	log      *slog.Logger
	topic    string // of the device, with a slash at its end
	reopen   backoff
	seq      uint64
	tags     []Tag           // of the last session
	meta     []byte          // as last published
	groups   map[string]bool // whether the last batch of a group carried a value
	marked   bool            // bad.offline is published and no batch came since
	readings *latest         // of the session
	panics   string          // the last panic whose stack was logged
	buf      []byte
	reports  reporter
	watch    watch
}

func (l *loop) run(ctx context.Context) {
	for {
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		l.lost(ctx, err)
		pause(ctx, l.reopen.next())
	}
}

// session opens one session and publishes what it reads until it fails or ctx
// ends.
func (l *loop) session(ctx context.Context) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := l.close(s); err != nil {
			l.log.Debug("close session", "err", err)
		}
	}()
	l.device.count(func(st *Stats) { st.Sessions++ })
	if err := l.describe(ctx, s); err != nil {
		return err
	}
	l.readings = l.device.setCurrent(s)
	defer l.device.setCurrent(nil)
	l.watch = newWatch(l.device.StaleAfter)
	for {
		b, err := l.await(ctx, s)
		if err != nil {
			return err
		}
		if err := l.publish(ctx, &b); err != nil {
			return err
		}
	}
}

func (l *loop) open(ctx context.Context) (s Session, err error) {
	defer l.survive("open", &err)
	s, err = l.device.Adapter.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if s == nil {
		return nil, fmt.Errorf("open: adapter returned no session; report it to the adapter's author")
	}
	return s, nil
}

func (l *loop) read(ctx context.Context, s Session) (b Batch, err error) {
	defer l.survive("read", &err)
	b, err = s.Read(ctx)
	if err != nil {
		return b, fmt.Errorf("read: %w", err)
	}
	if err := CheckGroup(b.Group); err != nil {
		return b, fmt.Errorf("read: %w", err)
	}
	if b.Time.IsZero() {
		b.Time = time.Now()
	}
	return b, nil
}

func (l *loop) close(s Session) (err error) {
	defer l.survive("close", &err)
	return s.Close()
}

// survive turns a panic of the adapter into an error. The stack is logged once
// for each different panic.
func (l *loop) survive(what string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	*err = fmt.Errorf("%s: adapter panicked: %v; report it to the adapter's author with the log", what, p)
	if text := fmt.Sprint(p); text != l.panics {
		l.panics = text
		l.log.Error("adapter panicked", "in", what, "panic", text, "stack", string(debug.Stack()))
	}
}

// describe publishes the tags of a session if they changed.
func (l *loop) describe(ctx context.Context, s Session) error {
	tags, err := l.list(s)
	if err != nil {
		return err
	}
	l.tags = tags
	l.reports.describe(tags)
	meta := appendMeta(nil, tags)
	if bytes.Equal(meta, l.meta) {
		return nil
	}
	if err := l.deliver(ctx, "meta", meta, true); err != nil {
		return err
	}
	l.meta = meta
	return nil
}

func (l *loop) list(s Session) (tags []Tag, err error) {
	defer l.survive("list tags", &err)
	return s.Tags(), nil
}

// publish hands one batch on and settles the state that follows from it.
func (l *loop) publish(ctx context.Context, b *Batch) error {
	good, bad := settle(b.Readings)
	l.readings.put(b.Readings)
	l.device.count(func(st *Stats) {
		st.Polls++
		st.Missed += uint64(max(0, b.Missed))
		st.Good += uint64(good)
		st.Bad += uint64(bad)
		if good > 0 {
			st.LastGood = b.Time
		}
	})
	if l.device.Late != nil {
		l.device.Late(b.Late)
	}
	if len(b.Readings) == 0 {
		return nil
	}
	l.marked = false
	l.watch.saw(b.Group)
	alive := l.reports.judge(b)
	first := b.Readings[0]
	l.groups[b.Group] = alive
	if l.reports.due(b); len(b.Readings) > 0 {
		if err := l.send(ctx, b); err != nil {
			return err
		}
	}
	if good > 0 {
		l.reopen.reset()
	}
	if alive {
		return l.state(ctx, Online, "")
	}
	for _, alive := range l.groups {
		if alive {
			return nil
		}
	}
	return l.state(ctx, Offline, fmt.Sprintf("no tag can be read, %s is %s", first.Tag, first.Quality))
}

// lost publishes, once for an outage, that nothing of the device is known.
func (l *loop) lost(ctx context.Context, cause error) {
	if l.marked {
		l.log.Debug("device still offline", "err", cause)
		l.device.count(func(st *Stats) { st.LastError = cause.Error() })
		return
	}
	l.log.Warn("device lost, trying again", "err", cause)
	clear(l.groups)
	for _, b := range offlineBatches(l.tags, time.Now()) {
		if l.send(ctx, &b) != nil {
			return
		}
	}
	l.marked = l.state(ctx, Offline, cause.Error()) == nil
}

// offlineBatches returns one batch per group, in the order of the tags.
func offlineBatches(tags []Tag, now time.Time) []Batch {
	var batches []Batch
	at := make(map[string]int)
	for _, tag := range tags {
		if CheckGroup(tag.Group) != nil {
			continue
		}
		i, ok := at[tag.Group]
		if !ok {
			i = len(batches)
			at[tag.Group] = i
			batches = append(batches, Batch{Group: tag.Group, Time: now})
		}
		batches[i].Readings = append(batches[i].Readings, Reading{Tag: tag.Name, Quality: BadOffline, Time: now})
	}
	return batches
}

// state publishes a change of the device's state.
func (l *loop) state(ctx context.Context, state State, problem string) error {
	if l.device.Stats().State == state {
		return nil
	}
	now := time.Now()
	l.device.count(func(st *Stats) {
		st.State, st.Since = state, now
		if problem != "" {
			st.LastError = problem
		}
	})
	if state == Online {
		l.log.Info("device online")
	}
	return l.deliver(ctx, "state", appendState(nil, state, now, problem), true)
}

// send numbers, encodes and delivers a batch, and remembers that.
func (l *loop) send(ctx context.Context, b *Batch) error {
	l.seq++
	if err := l.deliverBatch(ctx, b); err != nil {
		return err
	}
	l.reports.note(b)
	l.device.count(func(st *Stats) { st.Published++ })
	return nil
}
