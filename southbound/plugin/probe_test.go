package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// probe is a plugin that reports what it sees of its process, or misbehaves.
type probe struct{ do string }

type probeSettings struct {
	Do string `json:"do"`
}

type probeSession struct {
	do     string
	closed chan struct{}
}

func newProbe(settings []byte) (southbound.Adapter, error) {
	var s probeSettings
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, err
	}
	if s.Do == "refuse settings" {
		return nil, errors.New("do: nobody does that")
	}
	return probe{s.Do}, nil
}

func (p probe) Open(ctx context.Context) (southbound.Session, error) {
	switch p.do {
	case "open fails":
		return nil, errors.New("no route to press\x1b[2J")
	case "open hangs":
		select {}
	}
	return &probeSession{do: p.do, closed: make(chan struct{})}, nil
}

func (s *probeSession) Tags() []southbound.Tag {
	return []southbound.Tag{
		{Name: "pid", Group: "process", Type: "int64"},
		{Name: "environ", Group: "process", Type: "string"},
		{Name: "descriptors", Group: "process", Type: "string"},
		{Name: "child", Group: "process", Type: "int64"},
		{Name: "sensor", Group: "process", Type: "float64"},
	}
}

func (s *probeSession) Read(ctx context.Context) (southbound.Batch, error) {
	child, err := s.act(ctx)
	if err != nil {
		return southbound.Batch{}, err
	}
	var open []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		open = append(open, target)
	}
	good := func(tag string, value any) southbound.Reading {
		return southbound.Reading{Tag: tag, Value: value, Quality: southbound.Good, Time: time.Now()}
	}
	return southbound.Batch{Group: "process", Readings: []southbound.Reading{
		good("pid", int64(os.Getpid())),
		good("environ", strings.Join(os.Environ(), "\n")),
		good("descriptors", strings.Join(open, "\n")),
		good("child", child),
		{Tag: "sensor", Quality: southbound.BadSensor},
	}}, nil
}

// act does what the settings ask for before a Read.
func (s *probeSession) act(ctx context.Context) (child int64, err error) {
	switch s.do {
	case "block":
		slog.Info("blocking")
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.closed:
			return 0, errors.New("closed")
		}
	case "hang":
		select {}
	case "exit":
		fmt.Fprintln(os.Stderr, "the bearing is hot")
		os.Exit(3)
	case "panic":
		panic("the bearing is cold")
	case "bad log":
		fmt.Fprintln(os.Stderr, `{"@level":1}`)
		fmt.Fprintln(os.Stderr, `{"@message":{},"@timestamp":[],"level":"ERROR+99999"}`)
		slog.Warn("still here", "pressure", 3)
	case "flood":
		os.Stderr.Write(bytes.Repeat([]byte("x"), 10<<20))
	case "print":
		fmt.Print(strings.Repeat("on stdout\n", 100_000))
	case "child":
		return s.spawn(false)
	case "runaway child":
		return s.spawn(true)
	}
	return 0, nil
}

// spawn starts a child that holds the plugin's stderr, in a session of its own
// if it is to run away.
func (s *probeSession) spawn(away bool) (int64, error) {
	cmd := exec.Command("/bin/sleep", "30")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: away}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return int64(cmd.Process.Pid), nil
}

func (s *probeSession) Write(ctx context.Context, cmd southbound.Command) error {
	switch cmd.Tag {
	case "pid":
		return fmt.Errorf("pid is read only: %w", southbound.ErrRejected)
	case "sensor":
		return errors.New("no answer")
	case "child":
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *probeSession) Close() error {
	if s.do == "close hangs" {
		select {}
	}
	close(s.closed)
	return nil
}
