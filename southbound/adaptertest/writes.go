package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// writer opens a session of an adapter whose tags can be written.
func writer(cfg Config, a southbound.Adapter) (southbound.Session, southbound.Writer, error) {
	s, err := open(cfg, a)
	if err != nil {
		return nil, nil, err
	}
	w, ok := s.(southbound.Writer)
	if !ok {
		return nil, nil, errors.Join(errors.New("Config.Written names tags, and the session is no Writer"), s.Close())
	}
	return s, w, nil
}

// writeArrives writes while Read blocks and waits for Read to bring the value.
func writeArrives(cfg Config, a southbound.Adapter) error {
	if len(cfg.Written) == 0 {
		return nil
	}
	s, w, err := writer(cfg, a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	batches, done := make(chan southbound.Batch), make(chan struct{})
	go func() { // ends with ctx, or a Read that fails
		defer close(done)
		for {
			b, err := s.Read(ctx)
			if err != nil {
				return
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-done
	}()
	for _, tag := range slices.Sorted(maps.Keys(cfg.Written)) {
		for _, value := range cfg.Written[tag] {
			cmd := southbound.Command{ID: "1", Tag: tag, Value: value, Deadline: time.Now().Add(cfg.Timeout)}
			if err := w.Write(ctx, cmd); err != nil {
				return errors.Join(fmt.Errorf("write %s %v: %w", tag, value, err), s.Close())
			}
			if err := awaitValue(cfg, batches, tag, value); err != nil {
				return errors.Join(err, s.Close())
			}
		}
	}
	return s.Close()
}

func awaitValue(cfg Config, batches <-chan southbound.Batch, tag string, value any) error {
	timer := time.NewTimer(cfg.Timeout)
	defer timer.Stop()
	var last any
	for {
		select {
		case b := <-batches:
			for _, r := range b.Readings {
				if r.Tag != tag {
					continue
				}
				if last = r.Value; last == value && r.Quality == southbound.Good {
					return nil
				}
			}
		case <-timer.C:
			return fmt.Errorf("%s was written %v without an error, and is %v after %v", tag, value, last, cfg.Timeout)
		}
	}
}

// writeEndsWithContext wants a command whose context has ended to be rejected.
func writeEndsWithContext(cfg Config, a southbound.Adapter) error {
	for tag, values := range cfg.Written {
		s, w, err := writer(cfg, a)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var wrote error
		ended := make(chan error, 1)
		go func() {
			wrote = w.Write(ctx, southbound.Command{ID: "1", Tag: tag, Value: values[0], Deadline: time.Now().Add(cfg.Timeout)})
			ended <- wrote
		}()
		if err := within(prompt, "write with an ended context", ended); err != nil {
			return err
		}
		if !errors.Is(wrote, southbound.ErrRejected) {
			return errors.Join(fmt.Errorf("write of %s with an ended context gave %v, not ErrRejected", tag, wrote), s.Close())
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// writeOfBrokenFails wants no success from a device that is not there.
func writeOfBrokenFails(cfg Config, a southbound.Adapter) error {
	for tag, values := range cfg.Written {
		s, w, err := writer(cfg, a)
		if err != nil {
			return err
		}
		if err := readGood(cfg, s); err != nil {
			return errors.Join(err, s.Close())
		}
		cfg.Break()
		ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
		err = w.Write(ctx, southbound.Command{ID: "1", Tag: tag, Value: values[0], Deadline: time.Now().Add(cfg.Timeout)})
		cancel()
		_ = s.Close() // of a broken device it may fail
		cfg.Mend()
		if err == nil {
			return fmt.Errorf("write of %s to a broken device gave no error", tag)
		}
	}
	return nil
}
