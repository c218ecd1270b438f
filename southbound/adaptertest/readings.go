package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/headgate-io/headgate/southbound"
)

func tagsAreDeclared(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	defer s.Close()
	tags := s.Tags()
	if len(tags) == 0 {
		return errors.New("no tags")
	}
	seen := make(map[string]bool)
	for _, tag := range tags {
		switch {
		case tag.Name == "" || !utf8.ValidString(tag.Name):
			return fmt.Errorf("tag name %q is empty or not UTF-8", tag.Name)
		case tag.Type == "":
			return fmt.Errorf("tag %s has no type", tag.Name)
		case seen[tag.Name]:
			return fmt.Errorf("tag %s is declared twice", tag.Name)
		}
		if err := southbound.CheckGroup(tag.Group); err != nil {
			return fmt.Errorf("tag %s: %w", tag.Name, err)
		}
		seen[tag.Name] = true
	}
	if !slices.Equal(tags, s.Tags()) {
		return errors.New("two calls of Tags differ")
	}
	return nil
}

func readingsAreValid(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	missing := make(map[string]bool)
	tags := s.Tags()
	for _, tag := range tags {
		missing[tag.Name] = true
	}
	good := false
	for len(missing) > 0 {
		b, err := s.Read(ctx)
		if err != nil {
			return fmt.Errorf("read a healthy device, %d tags still missing: %w", len(missing), err)
		}
		if err := validBatch(tags, b); err != nil {
			return err
		}
		for _, r := range b.Readings {
			delete(missing, r.Tag)
			good = good || r.Quality == southbound.Good
		}
		if ctx.Err() != nil && len(missing) > 0 {
			return fmt.Errorf("%d tags missing after %v", len(missing), cfg.Timeout)
		}
	}
	if !good {
		return errors.New("a healthy device gave no good reading")
	}
	return nil
}

// validBatch holds a batch against the tags of its session.
func validBatch(tags []southbound.Tag, b southbound.Batch) error {
	if err := southbound.CheckGroup(b.Group); err != nil {
		return err
	}
	if b.Time.IsZero() {
		return fmt.Errorf("group %s: batch without time", b.Group)
	}
	if len(b.Readings) == 0 {
		return fmt.Errorf("group %s: batch without readings", b.Group)
	}
	last := -1
	for _, r := range b.Readings {
		at := slices.IndexFunc(tags, func(tag southbound.Tag) bool { return tag.Name == r.Tag })
		switch {
		case at < 0:
			return fmt.Errorf("reading of %s, which Tags does not list", r.Tag)
		case tags[at].Group != b.Group:
			return fmt.Errorf("reading of %s in group %s; Tags says %s", r.Tag, b.Group, tags[at].Group)
		case at <= last:
			return fmt.Errorf("reading of %s is repeated or out of the order of Tags", r.Tag)
		}
		last = at
		if err := validReading(r); err != nil {
			return err
		}
	}
	return nil
}

func validReading(r southbound.Reading) error {
	if _, err := southbound.ParseQuality(r.Quality.String()); err != nil {
		return fmt.Errorf("reading of %s: %w", r.Tag, err)
	}
	if r.Time.IsZero() {
		return fmt.Errorf("reading of %s has no time", r.Tag)
	}
	if !r.Quality.HasValue() {
		if r.Value != nil {
			return fmt.Errorf("reading of %s is %s and carries the value %v", r.Tag, r.Quality, r.Value)
		}
		return nil
	}
	switch v := r.Value.(type) {
	case bool, int64, uint64, []byte:
		return nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("reading of %s is %s and %v", r.Tag, r.Quality, v)
		}
		return nil
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("reading of %s is not UTF-8: %q", r.Tag, v)
		}
		return nil
	default:
		return fmt.Errorf("reading of %s is %s with a value of type %T", r.Tag, r.Quality, r.Value)
	}
}

func brokenGivesNoValue(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := readGood(cfg, s); err != nil {
		return err
	}
	return breakAndRead(cfg, s)
}

// breakAndRead breaks the device and reads until the session notices: an
// error, or a batch without any value. A batch from before the break may
// still be on its way.
func breakAndRead(cfg Config, s southbound.Session) error {
	cfg.Break()
	broken := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	for {
		b, err := s.Read(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("a broken device was not noticed within %v", cfg.Timeout)
		}
		if err != nil {
			return nil
		}
		values := 0
		for _, r := range b.Readings {
			if !r.Quality.HasValue() && r.Value == nil {
				continue
			}
			values++
			if r.Time.After(broken) {
				return fmt.Errorf("a broken device gave %s = %v, quality %s", r.Tag, r.Value, r.Quality)
			}
		}
		if values == 0 {
			return nil
		}
	}
}

func openOfBrokenFails(cfg Config, a southbound.Adapter) error {
	const patience = 2 * time.Second
	cfg.Break()
	opened := make(chan error, 1)
	var s southbound.Session
	var err error
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s, err = a.Open(ctx)
		opened <- err
	}()
	if err := within(patience+prompt, "open of a broken device", opened); err != nil {
		return err
	}
	if err == nil {
		return errors.Join(errors.New("open of a broken device returned a session"), s.Close())
	}
	return nil
}

func mendedReadsAgain(cfg Config, a southbound.Adapter) error {
	s, err := open(cfg, a)
	if err != nil {
		return err
	}
	if err := errors.Join(readGood(cfg, s), breakAndRead(cfg, s)); err != nil {
		return errors.Join(err, s.Close())
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("close a session to a broken device: %w", err)
	}
	cfg.Mend()
	s, err = open(cfg, a)
	if err != nil {
		return fmt.Errorf("after mending: %w", err)
	}
	return errors.Join(readGood(cfg, s), s.Close())
}
