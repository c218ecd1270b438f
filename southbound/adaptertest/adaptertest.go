// Package adaptertest is the adapter contract as a test suite. Every adapter
// passes it, built in or plugin:
//
//	func TestContract(t *testing.T) {
//		device := startDevice(t)
//		adaptertest.Run(t, adaptertest.Config{
//			New:   func(t testing.TB) southbound.Adapter { return newAdapter(t, device.Addr()) },
//			Break: device.Break,
//			Mend:  device.Mend,
//		})
//	}
//
// It needs a real device, or a simulator of one, that can be made unreachable.
// It works in real time, because an adapter may live in another process, and
// waits only for what an adapter must do promptly. It never looks inside an
// adapter: it opens, reads, writes and closes as Device does.
package adaptertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

// prompt is how long an adapter may take to notice a context's end or a Close.
const prompt = time.Second

// Config says how to make an adapter and how to hurt its device.
type Config struct {
	// New returns an adapter for the one healthy device; it is called once a
	// subtest. Whatever it starts it stops with t.Cleanup.
	New func(t testing.TB) southbound.Adapter
	// Break makes the device unreachable, for open sessions too; Mend
	// undoes it. Both return when it is so.
	Break, Mend func()
	// Timeout bounds what a healthy device is given to open or to deliver
	// every group once, and how long a broken one may go unnoticed. Zero
	// is 10 s.
	Timeout time.Duration
	// Written is tags that can be written, and values for each, none the
	// same as the one before, as Read then brings them.
	Written map[string][]any
}

// A check is one clause of the contract; its error says how it was broken.
type check struct {
	name string
	run  func(Config, southbound.Adapter) error
}

func contract() []check {
	return []check{
		{"open_ends_with_context", openEndsWithContext},
		{"open_outlives_its_context", openOutlivesItsContext},
		{"tags_are_declared", tagsAreDeclared},
		{"readings_are_valid", readingsAreValid},
		{"read_ends_with_context", readEndsWithContext},
		{"close_unblocks_read", closeUnblocksRead},
		{"close_releases_goroutines", closeReleasesGoroutines},
		{"broken_device_gives_no_value", brokenGivesNoValue},
		{"open_of_broken_device_fails", openOfBrokenFails},
		{"mended_device_reads_again", mendedReadsAgain},
		{"write_rejects_surely", writeRejectsSurely},
		{"write_arrives", writeArrives},
		{"write_ends_with_context", writeEndsWithContext},
		{"write_of_broken_device_fails", writeOfBrokenFails},
	}
}

// Run proves the contract, a subtest per clause.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if cfg.New == nil || cfg.Break == nil || cfg.Mend == nil {
		t.Fatal("adaptertest.Config needs New, Break and Mend")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	for _, c := range contract() {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(cfg.Mend)
			if err := c.run(cfg, cfg.New(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// open opens a session to a device that must be healthy.
func open(cfg Config, a southbound.Adapter) (southbound.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	s, err := a.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a healthy device: %w", err)
	}
	if s == nil {
		return nil, fmt.Errorf("open returned neither a session nor an error")
	}
	return s, nil
}

// readGood reads until one reading carries a good value.
func readGood(cfg Config, s southbound.Session) error {
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	for {
		b, err := s.Read(ctx)
		if err != nil {
			return fmt.Errorf("read a healthy device: %w", err)
		}
		for _, r := range b.Readings {
			if r.Quality == southbound.Good {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no good reading within %v from a healthy device", cfg.Timeout)
		}
	}
}

// readUntilError reads in a goroutine until Read fails, which ends it.
func readUntilError(ctx context.Context, s southbound.Session) <-chan error {
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Read(ctx); err != nil {
				done <- err
				return
			}
		}
	}()
	return done
}

// within waits for done at most d.
func within(d time.Duration, what string, done <-chan error) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s: nothing happened within %v", what, d)
	}
}
