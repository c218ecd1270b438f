package southbound

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A valve is a session that takes commands; what it does with one is said by do.
type valve struct {
	mu    sync.Mutex // covers what follows; nobody looks at it from outside while the device runs
	value any
	do    func(v *valve, cmd Command) error
	late  int // reads until it shows what was written
	shown any
	sent  int
}

func (v *valve) Tags() []Tag { return []Tag{{Name: "valve", Group: "fast", Type: "float64"}} }
func (v *valve) Read(ctx context.Context) (Batch, error) {
	pause(ctx, time.Second)
	if ctx.Err() != nil {
		return Batch{}, ctx.Err()
	}
	return Batch{Group: "fast", Time: time.Now(), Readings: []Reading{v.reading()}}, nil
}
func (v *valve) Close() error { return nil }
func (v *valve) reading() Reading {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.late--; v.late <= 0 {
		v.shown = v.value
	}
	r := Reading{Tag: "valve", Value: v.shown, Quality: Good, Time: time.Now()}
	if v.shown == nil {
		r.Quality = BadTimeout
	}
	return r
}

func (v *valve) Write(_ context.Context, cmd Command) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sent++
	return v.do(v, cmd)
}

// askedValve can be asked beside its schedule.
type askedValve struct{ *valve }

func (v askedValve) Get(context.Context, []string) ([]Reading, error) {
	return []Reading{v.reading()}, nil
}
func (v askedValve) Fit(_ string, value any) (any, error) { return value, nil }

type opener struct{ s Session }

func (o opener) Open(context.Context) (Session, error) { return o.s, nil }

// What becomes of a command, by what the device does with it and shows then.
func TestDeviceWrite(t *testing.T) {
	takes := func(v *valve, cmd Command) error { v.value = cmd.Value; return nil }
	for _, tt := range []struct {
		name   string
		do     func(v *valve, cmd Command) error
		late   int
		limits Writable
		want   Result
		old    any
		new    any
	}{
		{"done", takes, 0, Writable{}, Done, 1.0, 2.0},
		{"shows it late", takes, 3, Writable{}, Done, 1.0, 2.0},
		{"forgets it", func(*valve, Command) error { return nil }, 0, Writable{}, VerifyFailed, 1.0, 1.0},
		{"forgets it, and nobody looks", func(*valve, Command) error { return nil }, 0, Writable{Unverified: true}, Done, 1.0, nil},
		{"refuses", func(*valve, Command) error { return fmt.Errorf("%w: no", ErrRejected) }, 0, Writable{}, Rejected, 1.0, nil},
		{"is too late", func(*valve, Command) error { return fmt.Errorf("%w: %w", ErrRejected, ErrExpired) }, 0, Writable{}, Expired, 1.0, nil},
		{"does it and does not answer", func(v *valve, cmd Command) error { v.value = cmd.Value; return errors.New("no answer") }, 0, Writable{}, Done, 1.0, 2.0},
		{"does not do it and does not answer", func(*valve, Command) error { return errors.New("no answer") }, 0, Writable{}, VerifyFailed, 1.0, 1.0},
		{"is gone then", func(v *valve, _ Command) error { v.value, v.shown = nil, nil; return errors.New("no answer") }, 0, Writable{}, Unknown, 1.0, nil},
		{"panics", func(v *valve, _ Command) error { v.value, v.shown = nil, nil; panic("oh") }, 0, Writable{}, Unknown, 1.0, nil},
		{"interlock", takes, 0, Writable{Interlock: Interlock{"valve", 5.0}}, Rejected, 1.0, nil},
		{"interlock lets it", takes, 0, Writable{Interlock: Interlock{"valve", int64(1)}}, Done, 1.0, 2.0},
	} {
		for _, asked := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.name, " asked ", asked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					v := &valve{value: 1.0, shown: 1.0, do: func(v *valve, cmd Command) error { v.late = tt.late; return tt.do(v, cmd) }}
					var s Session = v
					if asked {
						s = askedValve{v}
					}
					ctx, cancel := context.WithCancel(t.Context())
					d := &Device{Gateway: "gw", ID: "dev", Adapter: opener{s}, Writable: func(string) (Writable, bool) { return tt.limits, true },
						Publish: func(context.Context, Message) error { return nil }}
					done := make(chan error)
					go func() { done <- d.Run(ctx) }()
					time.Sleep(1500 * time.Millisecond)
					told := 0
					o := d.Write(ctx, Command{ID: "1", Tag: "valve", Value: 2.0, Deadline: time.Now().Add(time.Minute)}, func(old any) error {
						told++
						return nil
					})
					cancel()
					<-done
					if o.Result != tt.want || o.Old != tt.old || o.New != tt.new || (o.Reason == "") != (o.Result == Done) {
						t.Errorf("%+v, want %s, from %v to %v", o, tt.want, tt.old, tt.new)
					}
					if v.sent > 1 || v.sent != told {
						t.Errorf("sent %d times, announced %d times", v.sent, told)
					}
				})
			})
		}
	}
}

// What stands in the way is found before anything is sent, and before it is said
// that something is.
func TestDeviceWriteIsRefused(t *testing.T) {
	fifty, ten := 50.0, 10.0
	for _, tt := range []struct {
		name     string
		writable func(string) (Writable, bool)
		cmd      Command
		want     Result
	}{
		{"nobody allows it", nil, Command{Value: 1.0}, Rejected},
		{"another tag", func(tag string) (Writable, bool) { return Writable{}, tag == "other" }, Command{Value: 1.0}, Rejected},
		{"above max", func(string) (Writable, bool) { return Writable{Max: &ten}, true }, Command{Value: 10.5}, Rejected},
		{"below min", func(string) (Writable, bool) { return Writable{Min: &fifty}, true }, Command{Value: int64(49)}, Rejected},
		{"no number", func(string) (Writable, bool) { return Writable{Min: &fifty}, true }, Command{Value: "60"}, Rejected},
		{"between steps", func(string) (Writable, bool) { return Writable{Min: &fifty, Step: 4}, true }, Command{Value: 56.0}, Rejected},
		{"over", func(string) (Writable, bool) { return Writable{}, true }, Command{Value: 1.0, Deadline: time.Unix(1, 0)}, Expired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &valve{value: 1.0, shown: 1.0, do: func(*valve, Command) error { return nil }}
			d := &Device{Gateway: "gw", ID: "dev", Writable: tt.writable}
			d.setCurrent(askedValve{v})
			tt.cmd.Tag = "valve"
			o := d.Write(t.Context(), tt.cmd, func(any) error { t.Error("announced"); return nil })
			if o.Result != tt.want || v.sent != 0 {
				t.Errorf("%+v, sent %d times; want %s", o, v.sent, tt.want)
			}
		})
	}
}

func TestSameValue(t *testing.T) {
	for _, tt := range []struct {
		a, b any
		same bool
	}{
		{uint64(1 << 63), uint64(1<<63 + 1), false}, {uint64(5), int64(5), true}, {int64(-1), uint64(1<<64 - 1), false},
		{int64(1<<53 + 1), int64(1 << 53), false}, {int64(7), 7.0, true}, {7.5, int64(7), false}, {7.5, 7.5, true},
		{true, true, true}, {true, int64(1), false}, {"1", int64(1), false}, {[]byte("a"), []byte("a"), true}, {[]byte("a"), "a", false},
	} {
		if sameValue(tt.a, tt.b) != tt.same || sameValue(tt.b, tt.a) != tt.same {
			t.Errorf("%T %v and %T %v: want same %v", tt.a, tt.a, tt.b, tt.b, tt.same)
		}
	}
}
