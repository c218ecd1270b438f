package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/headgate-io/headgate/southbound"
)

const (
	process = "process" // the fast group
	status  = "status"  // the slow one
	slower  = 5         // intervals of process for one of status
)

// allTags is what a simulated device has.
var allTags = []southbound.Tag{
	{Name: "temperature", Group: process, Type: "float64", Unit: "Cel"},
	{Name: "counter", Group: process, Type: "uint64", Unit: "1"},
	{Name: "valve", Group: status, Type: "bool"},
	{Name: "state", Group: status, Type: "string"},
}

// adapter is one simulated device.
type adapter struct {
	interval  time.Duration
	tags      []southbound.Tag
	seed      uint64
	unplugged string // path; empty: never
}

func newAdapter(settings []byte) (southbound.Adapter, error) {
	s := struct {
		Interval  string   `json:"interval"`
		Tags      []string `json:"tags"`
		Seed      uint64   `json:"seed"`
		Unplugged string   `json:"unplugged"`
	}{Interval: "1s"}
	d := json.NewDecoder(bytes.NewReader(settings))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("settings: %s; known are interval, tags, seed and unplugged",
			strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("settings: something follows the object; remove it")
	}
	interval, err := time.ParseDuration(s.Interval)
	if err != nil || interval < 10*time.Millisecond || interval > time.Hour {
		return nil, fmt.Errorf("settings: interval %q; use a duration from 10ms to 1h, as 1s", s.Interval)
	}
	if s.Unplugged != "" && !filepath.IsAbs(s.Unplugged) {
		return nil, fmt.Errorf("settings: unplugged %q; use an absolute path", s.Unplugged)
	}
	tags, err := selectTags(s.Tags)
	if err != nil {
		return nil, err
	}
	return adapter{interval, tags, s.Seed, s.Unplugged}, nil
}

// selectTags keeps the order of allTags.
func selectTags(names []string) ([]southbound.Tag, error) {
	if len(names) == 0 {
		return allTags, nil
	}
	var known, kept []string
	var tags []southbound.Tag
	for _, tag := range allTags {
		known = append(known, tag.Name)
		if slices.Contains(names, tag.Name) {
			tags = append(tags, tag)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("settings: no tag %q; there are %s", name, strings.Join(known, ", "))
		}
		if slices.Contains(kept, name) {
			return nil, fmt.Errorf("settings: tag %q is named twice; remove one", name)
		}
		kept = append(kept, name)
	}
	return tags, nil
}
