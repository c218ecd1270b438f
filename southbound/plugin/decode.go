package plugin

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

// decodeTags holds what a plugin declares against the contract.
func decodeTags(declared []*wire.Tag) ([]southbound.Tag, error) {
	if len(declared) == 0 || len(declared) > wire.MaxTags {
		return nil, fmt.Errorf("%d tags; between 1 and %d are allowed", len(declared), wire.MaxTags)
	}
	seen := make(map[string]bool, len(declared))
	tags := make([]southbound.Tag, len(declared))
	for i, d := range declared {
		tag := southbound.Tag{Name: d.GetName(), Group: d.GetGroup(), Type: d.GetType(), Unit: d.GetUnit()}
		if err := checkTag(tag); err != nil {
			return nil, fmt.Errorf("tag %.64q: %w", tag.Name, err)
		}
		if seen[tag.Name] {
			return nil, fmt.Errorf("tag %.64q is declared twice", tag.Name)
		}
		seen[tag.Name] = true
		tags[i] = tag
	}
	return tags, nil
}

func checkTag(tag southbound.Tag) error {
	for _, text := range []string{tag.Name, tag.Group, tag.Type, tag.Unit} {
		if len(text) > wire.MaxName || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%.64q is not printable text of at most %d bytes", text, wire.MaxName)
		}
	}
	switch {
	case tag.Name == "":
		return errors.New("no name")
	case tag.Type == "":
		return errors.New("no type")
	}
	return southbound.CheckGroup(tag.Group)
}

// decodeBatch holds a batch against the contract and against tags, which it
// follows in order. now is when it arrived: a plugin has no say in that.
func decodeBatch(tags []southbound.Tag, resp *wire.ReadResponse, now time.Time) (southbound.Batch, error) {
	group, readings := resp.GetGroup(), resp.GetReadings()
	if len(readings) == 0 || len(readings) > wire.MaxReadings {
		return southbound.Batch{}, fmt.Errorf("%d readings in group %.64q; between 1 and %d are allowed",
			len(readings), group, wire.MaxReadings)
	}
	batch := southbound.Batch{Group: group, Time: now, Readings: make([]southbound.Reading, len(readings))}
	next := 0 // in tags
	for i, r := range readings {
		for next < len(tags) && tags[next].Name != r.GetTag() {
			next++
		}
		if next == len(tags) {
			return southbound.Batch{}, fmt.Errorf("reading of %.64q, which is not a tag, is repeated or is out of order", r.GetTag())
		}
		if tags[next].Group != group {
			return southbound.Batch{}, fmt.Errorf("reading of %.64q in group %.64q; it belongs to %.64q", r.GetTag(), group, tags[next].Group)
		}
		next++
		reading, err := decodeReading(r, now)
		if err != nil {
			return southbound.Batch{}, fmt.Errorf("reading of %.64q: %w", r.GetTag(), err)
		}
		batch.Readings[i] = reading
	}
	return batch, nil
}

func decodeReading(r *wire.Reading, now time.Time) (southbound.Reading, error) {
	quality, err := wire.DecodeQuality(r.GetQuality())
	if err != nil {
		return southbound.Reading{}, err
	}
	reading := southbound.Reading{Tag: r.GetTag(), Quality: quality, Time: now}
	if ns := r.GetUnixNanoseconds(); ns != 0 {
		reading.Time = time.Unix(0, ns)
	}
	if !quality.HasValue() {
		if r.GetValue() != nil {
			return southbound.Reading{}, fmt.Errorf("quality %s with a value", quality)
		}
		return reading, nil
	}
	reading.Value, err = wire.DecodeValue(r.GetValue())
	return reading, err
}
