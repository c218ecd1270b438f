package southbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Result is what a command is answered.
type Result string

// What becomes of a command. Accepted is said before anything is sent, the
// others are its end.
const (
	Accepted     Result = "accepted"
	Done         Result = "done"            // the device holds the value
	VerifyFailed Result = "verify_failed"   // the device took it, and read back it holds another
	Rejected     Result = "rejected"        // the device was not changed
	Expired      Result = "expired"         // the device was not changed, its time was over
	Unknown      Result = "unknown_outcome" // it was sent, and nobody knows whether it was done
)

// An Outcome is the end of a command.
type Outcome struct {
	Result Result
	Reason string // empty when done
	Old    any    // what the device held before; nil: not known
	New    any    // what it held when it was read back; nil: not known
}

// Writable says how a tag may be written.
type Writable struct {
	Min, Max   *float64
	Step       float64 // between two values, from Min or 0; 0: any
	MaxRate    int     // commands in a minute; 0: any
	Interlock  Interlock
	Unverified bool // it cannot be read back, or holds another value by then
}

// An Interlock lets a tag be written only while another has a value.
type Interlock struct {
	Tag    string // empty: none
	Equals any
}

// An Asker is a Session that can be asked beside its schedule. Of one that is
// none, Device takes what Read brought last.
type Asker interface {
	// Get reads tags now. It may be called while Read and Write block.
	Get(ctx context.Context, tags []string) ([]Reading, error)
	// Fit returns a value as the tag will hold it and Read bring it. Its error
	// wraps ErrRejected. It does no I/O.
	Fit(tag string, value any) (any, error)
}

// verifyTries and verifyPause bound how long a device is given to show what was
// written to it; verifyWait, how long a session that cannot be asked may take to
// bring it.
const (
	verifyTries = 5
	verifyPause = 200 * time.Millisecond
	verifyWait  = 10 * time.Second
)

// Write gives the device's tag a value, if all that stands in the way of it
// allows: Writable, the limits and the interlock, the time. sending is called
// once, with what the tag held, right before anything is sent; its error rejects
// the command. Write may be called at any time, from one goroutine at a time.
func (d *Device) Write(ctx context.Context, cmd Command, sending func(old any) error) Outcome {
	w := &writing{device: d, cmd: cmd}
	if err := w.prepare(ctx); err != nil {
		return w.refused(err)
	}
	if err := sending(w.old); err != nil {
		return w.refused(err)
	}
	err := w.send(ctx)
	if errors.Is(err, ErrRejected) {
		return w.refused(err)
	}
	return w.verify(ctx, err)
}

// WriteOnce is Device.Write for a session that has no Device.
func WriteOnce(ctx context.Context, s Session, cmd Command, limits Writable) Outcome {
	d := &Device{Writable: func(string) (Writable, bool) { return limits, true }}
	d.setCurrent(s)
	return d.Write(ctx, cmd, func(any) error { return nil })
}

// A writing is one command on its way.
type writing struct {
	device   *Device
	cmd      Command
	limits   Writable
	writer   Writer
	readings *latest
	asker    Asker // nil: see readings
	old      any
}

func (w *writing) refused(err error) Outcome {
	o := Outcome{Result: Rejected, Reason: reason(err), Old: w.old}
	if errors.Is(err, ErrExpired) || w.late() {
		o.Result = Expired
	}
	return o
}

// reason is an error without what its result says already.
func reason(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), ErrRejected.Error()+": ", ""), "write: ")
}

func (w *writing) late() bool {
	return !w.cmd.Deadline.IsZero() && !time.Now().Before(w.cmd.Deadline)
}

// prepare asks everything that can be asked without a change to the device.
func (w *writing) prepare(ctx context.Context) error {
	var ok bool
	if w.device.Writable != nil {
		w.limits, ok = w.device.Writable(w.cmd.Tag)
	}
	if !ok {
		return fmt.Errorf("tag %.64q may not be written; see access and writes in the configuration", w.cmd.Tag)
	}
	s, readings := w.device.current()
	if s == nil {
		return errors.New("the device is offline")
	}
	if w.writer, ok = s.(Writer); !ok {
		return errors.New("the device takes no commands")
	}
	w.asker, _ = s.(Asker)
	w.readings = readings
	if w.asker != nil {
		fit, err := w.asker.Fit(w.cmd.Tag, w.cmd.Value)
		if err != nil {
			return err
		}
		w.cmd.Value = fit
	}
	if err := w.limits.check(w.cmd.Value); err != nil {
		return err
	}
	if w.late() {
		return ErrExpired
	}
	if err := w.look(ctx); err != nil {
		return err
	}
	if w.late() {
		return ErrExpired
	}
	return w.device.rates.take(w.cmd.Tag, w.limits.MaxRate, time.Now())
}

// look reads what the tag holds and whether the interlock lets it be written.
func (w *writing) look(ctx context.Context) error {
	tags := []string{w.cmd.Tag}
	lock := w.limits.Interlock
	if lock.Tag != "" && lock.Tag != w.cmd.Tag {
		tags = append(tags, lock.Tag)
	}
	readings, err := w.get(ctx, tags)
	if err != nil {
		return fmt.Errorf("the device cannot be read: %w", err)
	}
	for _, r := range readings {
		if r.Tag == w.cmd.Tag && r.Quality.HasValue() {
			w.old = r.Value
		}
	}
	if lock.Tag == "" {
		return nil
	}
	i := slices.IndexFunc(readings, func(r Reading) bool { return r.Tag == lock.Tag })
	switch {
	case i < 0 || readings[i].Quality != Good:
		return fmt.Errorf("interlock: tag %s is not known", lock.Tag)
	case !sameValue(readings[i].Value, lock.Equals):
		return fmt.Errorf("interlock: tag %s is %v, not %v", lock.Tag, readings[i].Value, lock.Equals)
	}
	return nil
}

func (w *writing) get(ctx context.Context, tags []string) (all []Reading, err error) {
	if w.asker == nil {
		return w.readings.get(tags), nil
	}
	defer w.survive(&err)
	return w.asker.Get(ctx, tags)
}

func (w *writing) send(ctx context.Context) (err error) {
	defer w.survive(&err)
	return w.writer.Write(ctx, w.cmd)
}

// survive turns a panic of the adapter into an error.
func (w *writing) survive(err *error) {
	p := recover()
	if p == nil {
		return
	}
	*err = fmt.Errorf("adapter panicked: %v; report it to the adapter's author with the log", p)
	w.device.logger().Error("adapter panicked", "in", "write", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// verify reads back what was written. sent is how sending it ended: if that is
// not known, what the device holds decides.
func (w *writing) verify(ctx context.Context, sent error) Outcome {
	o := Outcome{Result: Done, Old: w.old}
	if sent != nil {
		o.Result, o.Reason = Unknown, reason(sent)
	}
	if w.limits.Unverified && !w.cmd.Verify {
		return o
	}
	wrote := time.Now()
	r, ok := w.readBack(ctx, wrote)
	switch {
	case ok:
		return Outcome{Result: Done, Old: w.old, New: r.Value}
	case r.Quality.HasValue():
		o.Result, o.New = VerifyFailed, r.Value
		o.Reason = strings.TrimPrefix(o.Reason+fmt.Sprintf("; the device holds %v", r.Value), "; ")
	case sent == nil:
		o.Result, o.Reason = VerifyFailed, "the device took it, and it could not be read back: "+r.Quality.String()
	}
	return o
}

// readBack returns the last reading of the tag and whether it is what was
// written.
func (w *writing) readBack(ctx context.Context, wrote time.Time) (r Reading, ok bool) {
	if w.asker == nil {
		ctx, cancel := context.WithTimeout(ctx, verifyWait)
		defer cancel()
		return w.readings.await(ctx, w.cmd.Tag, func(r Reading) bool {
			return r.Time.After(wrote) && r.Quality.HasValue() && sameValue(r.Value, w.cmd.Value)
		})
	}
	for try := range verifyTries {
		if try > 0 {
			pause(ctx, verifyPause)
		}
		readings, err := w.get(ctx, []string{w.cmd.Tag})
		if err != nil || len(readings) == 0 {
			continue
		}
		if r = readings[0]; r.Quality.HasValue() && sameValue(r.Value, w.cmd.Value) {
			return r, true
		}
	}
	return r, false
}

// check holds a value against the limits.
func (w *Writable) check(value any) error {
	v, isNumber := number(value)
	switch {
	case w.Min == nil && w.Max == nil && w.Step == 0:
		return nil
	case !isNumber:
		return fmt.Errorf("%.64q is no number, and the tag has limits", fmt.Sprint(value))
	case w.Min != nil && v < *w.Min:
		return fmt.Errorf("%v is below min %v", v, *w.Min)
	case w.Max != nil && v > *w.Max:
		return fmt.Errorf("%v is above max %v", v, *w.Max)
	case w.Step == 0:
		return nil
	}
	base := 0.0
	if w.Min != nil {
		base = *w.Min
	}
	steps := (v - base) / w.Step
	if math.Abs(steps-math.Round(steps)) > 1e-6 {
		return fmt.Errorf("%v is not a multiple of step %v, counted from %v", v, w.Step, base)
	}
	return nil
}

// number is a value as a number, if it is one.
func number(value any) (float64, bool) {
	switch v := value.(type) {
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// sameValue compares values of readings; numbers, whatever their type, and whole
// ones to the last digit.
func sameValue(a, b any) bool {
	octets, isBytes := a.([]byte)
	others, both := b.([]byte)
	if isBytes || both {
		return isBytes && both && bytes.Equal(octets, others)
	}
	switch v := a.(type) {
	case int64:
		if u, ok := b.(uint64); ok {
			return v >= 0 && uint64(v) == u
		}
	case uint64:
		if i, ok := b.(int64); ok {
			return i >= 0 && uint64(i) == v
		}
	}
	_, isFloat := a.(float64)
	_, also := b.(float64)
	if isFloat == also {
		return a == b
	}
	x, isNumber := number(a)
	y, isToo := number(b)
	return isNumber && isToo && x == y
}

// rates counts the commands of each tag in the last minute.
type rates map[string][]time.Time

// take counts one more, unless it is one too many.
func (r *rates) take(tag string, most int, now time.Time) error {
	if most == 0 {
		return nil
	}
	recent := slices.DeleteFunc((*r)[tag], func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if *r == nil {
		*r = rates{}
	}
	(*r)[tag] = recent
	if len(recent) >= most {
		return fmt.Errorf("more than max_rate: %d commands in a minute", most)
	}
	(*r)[tag] = append(recent, now)
	return nil
}

// latest is what a session brought last, of each tag.
type latest struct {
	mu       sync.Mutex // covers what follows
	readings map[string]Reading
	news     chan struct{} // closed with the next batch
}

func newLatest() *latest { return &latest{readings: map[string]Reading{}, news: make(chan struct{})} }

func (l *latest) put(readings []Reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range readings {
		l.readings[r.Tag] = r
	}
	close(l.news)
	l.news = make(chan struct{})
}

func (l *latest) get(tags []string) (all []Reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tag := range tags {
		if r, ok := l.readings[tag]; ok {
			all = append(all, r)
		}
	}
	return all
}

// await returns the first reading of a tag that will do, or, when ctx ends, the
// last there is.
func (l *latest) await(ctx context.Context, tag string, will func(Reading) bool) (r Reading, ok bool) {
	for {
		l.mu.Lock()
		r, news := l.readings[tag], l.news
		l.mu.Unlock()
		if will(r) {
			return r, true
		}
		select {
		case <-news:
		case <-ctx.Done():
			return r, false
		}
	}
}
