package plugin

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate-io/headgate/southbound"
)

func TestKilledPluginEndsReadAndOpensAgain(t *testing.T) {
	a := newTestAdapter(t, "probe", "block")
	s := openSession(t, a)
	failed := make(chan error, 1)
	go func() {
		_, err := s.Read(t.Context())
		failed <- err
	}()
	if err := unix.Kill(pidOf(s), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, "read after the plugin's death", func() {
		wantError(t, <-failed, "read plugin probe", "signal: killed")
	})
	closeSession(t, s)
	closeSession(t, openSession(t, a))
	noChildren(t)
}

func TestReadErrors(t *testing.T) {
	tests := []struct {
		plugin, do string
		want       []string
	}{
		{"probe", "exit", []string{"read plugin probe", "exit status 3", "the bearing is hot"}},
		{"probe", "panic", []string{"read plugin probe", "exit status 2", "panic: the bearing is cold"}},
		{"liar", "not a number", []string{"plugin liar breaks the contract", `"a"`, "NaN"}},
		{"liar", "unknown tag", []string{"plugin liar breaks the contract", `"z"`, "not a tag"}},
		{"liar", "too large", []string{"plugin liar breaks the contract", "larger than 4194304"}},
		{"liar", "not UTF-8", []string{"read plugin liar", "UTF-8"}},
	}
	for _, test := range tests {
		t.Run(test.plugin+" "+test.do, func(t *testing.T) {
			s := openSession(t, newTestAdapter(t, test.plugin, test.do))
			_, err := s.Read(t.Context())
			wantError(t, err, test.want...)
			if err := inner(s).process.end(); err != nil { // a liar cannot close
				t.Error(err)
			}
			closeSession(t, s)
			noChildren(t)
		})
	}
}

func TestStoppedPluginIsNoticed(t *testing.T) {
	a := newTestAdapter(t, "probe", "block")
	a.patience.ping, a.patience.pong = 50*time.Millisecond, 500*time.Millisecond
	s := openSession(t, a)
	if err := unix.Kill(pidOf(s), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "read of a stopped plugin", func() {
		_, err := s.Read(t.Context())
		wantError(t, err, "did not answer a health check")
	})
	closeSession(t, s)
	noChildren(t)
}

func TestReadThatHangs(t *testing.T) {
	s := openSession(t, newTestAdapter(t, "probe", "hang"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	within(t, time.Second, "read after its context ended", func() {
		if _, err := s.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
	})
	within(t, time.Second, "close while the plugin hangs in Read", func() { closeSession(t, s) })
	noChildren(t)
}

func TestCloseThatHangs(t *testing.T) {
	a := newTestAdapter(t, "probe", "close hangs")
	a.patience.close = 100 * time.Millisecond
	s := openSession(t, a)
	within(t, time.Second, "close", func() {
		wantError(t, s.Close(), "no answer within 100ms; it was killed")
	})
	noChildren(t)
}

func TestOutputDoesNoHarm(t *testing.T) {
	tests := []struct{ do, want string }{
		{"bad log", `msg="still here"`},
		{"flood", "msg=xxxx"},
		{"print", `msg="on stdout"`},
	}
	for _, test := range tests {
		t.Run(test.do, func(t *testing.T) {
			var log logBuffer
			a := newTestAdapter(t, "probe", test.do)
			a.logger = log.logger()
			s := openSession(t, a)
			for range 3 {
				values(t, s)
			}
			closeSession(t, s)
			if got := log.String(); !strings.Contains(got, test.want) || len(got) > 64<<10 {
				t.Errorf("%d bytes of log without %s:\n%.2000s", len(got), test.want, got)
			}
		})
	}
}

func TestCloseTakesChildrenAlong(t *testing.T) {
	s := openSession(t, newTestAdapter(t, "probe", "child"))
	fd := pidfd(t, int(values(t, s)["child"].(int64)))
	closeSession(t, s)
	waitEnd(t, fd, time.Second)
}

// A child in a session of its own escapes the kill and keeps the pipes open.
func TestCloseDoesNotWaitForRunaways(t *testing.T) {
	s := openSession(t, newTestAdapter(t, "probe", "runaway child"))
	child := int(values(t, s)["child"].(int64))
	defer unix.Kill(child, unix.SIGKILL)
	within(t, 2*time.Second, "close", func() { closeSession(t, s) })
}

func TestWrite(t *testing.T) {
	s := openSession(t, newTestAdapter(t, "probe", "block"))
	defer closeSession(t, s)
	w := s.(southbound.Writer)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name     string
		cmd      southbound.Command
		rejected bool
		want     string // empty: no error
	}{
		{"accepted", southbound.Command{Tag: "environ", Value: "x"}, false, ""},
		{"rejected", southbound.Command{Tag: "pid", Value: int64(1)}, true, "read only"},
		{"unknown outcome", southbound.Command{Tag: "sensor", Value: 1.5}, false, "no answer"},
		{"unknown tag", southbound.Command{Tag: "nothing", Value: 1.5}, true, "no such tag"},
		{"no value", southbound.Command{Tag: "sensor"}, true, "type <nil>"},
		{"late", southbound.Command{Tag: "environ", Value: "x", Deadline: time.Now()}, true, "deadline"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := w.Write(t.Context(), test.cmd)
			if test.want == "" && err != nil {
				t.Error(err)
			}
			if test.want != "" {
				wantError(t, err, test.want)
			}
			if errors.Is(err, southbound.ErrRejected) != test.rejected {
				t.Errorf("rejected is %v: %v", !test.rejected, err)
			}
		})
	}
	err := w.Write(ended, southbound.Command{Tag: "environ", Value: "x"})
	wantError(t, err, "canceled")
	if !errors.Is(err, southbound.ErrRejected) {
		t.Errorf("a command that never left: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = w.Write(ctx, southbound.Command{Tag: "child", Value: int64(1)})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, southbound.ErrRejected) {
		t.Errorf("write that hangs: %v", err)
	}
}

func TestReadOnlyPluginIsNoWriter(t *testing.T) {
	s := openSession(t, newTestAdapter(t, "liar", ""))
	if _, ok := s.(southbound.Writer); ok {
		t.Error("a plugin that takes no commands is a Writer")
	}
	wantError(t, s.Close(), "not implemented")
}

func TestNothingGrows(t *testing.T) {
	a := newTestAdapter(t, "probe", "")
	cycle := func() {
		s := openSession(t, a)
		values(t, s)
		closeSession(t, s)
	}
	cycle()
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	for range 20 {
		cycle()
	}
	noChildren(t)
	// grpc and go-plugin end their goroutines in their own time.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
		<-tick.C
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines after 20 sessions, %d before", n, goroutines)
	}
	if n := openDescriptors(t); n > descriptors {
		t.Errorf("%d descriptors after 20 sessions, %d before", n, descriptors)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
