package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

func openEndsWithContext(cfg Config, a southbound.Adapter) error {
	opened := make(chan error, 1)
	var s southbound.Session
	var err error
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s, err = a.Open(ctx)
		opened <- err
	}()
	if err := within(prompt, "open with an ended context", opened); err != nil {
		return err
	}
	if err == nil {
		return errors.Join(errors.New("open with an ended context returned a session"), s.Close())
	}
	return nil
}

func openOutlivesItsContext(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a) // open's context ends before it returns
	if err != nil {
		return err
	}
	return errors.Join(readGood(cfg, s), s.Close())
}

func readEndsWithContext(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := readGood(cfg, s); err != nil {
		return errors.Join(err, s.Close())
	}
	done := readUntilError(ctx, s)
	cancel()
	return errors.Join(within(prompt, "read after its context ended", done), s.Close())
}

func closeUnblocksRead(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	if err := readGood(cfg, s); err != nil {
		return errors.Join(err, s.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := readUntilError(ctx, s)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	if err := within(prompt, "close while read blocks", closed); err != nil {
		return err
	}
	return within(prompt, "read after close", done)
}

func closeReleasesGoroutines(cfg Config, a southbound.Adapter) error {
	const rounds = 5
	cycle := func() error {
		s, err := open(cfg, a)
		if err != nil {
			return err
		}
		return errors.Join(readGood(cfg, s), s.Close())
	}
	// The first session may start what all sessions of the adapter share.
	if err := cycle(); err != nil {
		return err
	}
	before := settled(0)
	for range rounds {
		if err := cycle(); err != nil {
			return err
		}
	}
	if after := settled(before); after > before {
		return fmt.Errorf("%d goroutines after %d sessions, %d before", after, rounds, before)
	}
	return nil
}

// settled counts goroutines until there are at most limit, or, after a second,
// as many as there are.
func settled(limit int) int {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(time.Second)
	n := runtime.NumGoroutine()
	for n > limit && time.Now().Before(deadline) {
		<-tick.C
		n = runtime.NumGoroutine()
	}
	return n
}

func writeRejectsSurely(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	defer s.Close()
	w, ok := s.(southbound.Writer)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	unknown := southbound.Command{ID: "1", Tag: "no such tag", Value: int64(1), Deadline: time.Now().Add(cfg.Timeout)}
	if err := w.Write(ctx, unknown); !errors.Is(err, southbound.ErrRejected) {
		return fmt.Errorf("write of an unknown tag gave %v, not ErrRejected", err)
	}
	for _, tag := range s.Tags() {
		late := southbound.Command{ID: "2", Tag: tag.Name, Value: int64(1), Deadline: time.Now().Add(-time.Second)}
		if err := w.Write(ctx, late); !errors.Is(err, southbound.ErrRejected) {
			return fmt.Errorf("write of %s after its deadline gave %v, not ErrRejected", tag.Name, err)
		}
	}
	return nil
}
