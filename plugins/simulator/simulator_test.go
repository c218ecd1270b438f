package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/southbound/adaptertest"
	"github.com/headgate-io/headgate/southbound/plugin"
)

// TestMain lets the test binary be the plugin.
func TestMain(m *testing.M) {
	if os.Getenv(wire.Handshake.MagicCookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// inProcess returns an adapter that runs the simulator as a plugin.
func inProcess(t testing.TB, settings map[string]any) southbound.Adapter {
	t.Helper()
	raw, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "simulator")
	if err := os.WriteFile(path, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hg") // short: it holds unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return plugin.New(plugin.Config{
		Path: path, Device: "boiler", Settings: raw, RuntimeDir: dir,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

// The adapter contract, held by a plugin through its process.
func TestContract(t *testing.T) {
	unplugged := filepath.Join(t.TempDir(), "unplugged")
	adaptertest.Run(t, adaptertest.Config{
		New: func(t testing.TB) southbound.Adapter {
			return inProcess(t, map[string]any{"interval": "20ms", "unplugged": unplugged})
		},
		Written: map[string][]any{"valve": {true, false}},
		Break: func() {
			if err := os.WriteFile(unplugged, nil, 0o600); err != nil {
				t.Error(err)
			}
		},
		Mend: func() {
			if err := os.Remove(unplugged); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		},
	})
}

func TestCommandThroughTheProcess(t *testing.T) {
	s, err := inProcess(t, map[string]any{"interval": "10ms", "tags": []string{"valve"}}).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := s.(southbound.Writer)
	if err := w.Write(t.Context(), southbound.Command{Tag: "valve", Value: int64(1)}); !errors.Is(err, southbound.ErrRejected) {
		t.Errorf("a number was not rejected: %v", err)
	}
	if err := w.Write(t.Context(), southbound.Command{Tag: "valve", Value: true}); err != nil {
		t.Fatal(err)
	}
	batch, err := s.Read(t.Context())
	if err != nil || batch.Group != status || batch.Readings[0].Value != true {
		t.Errorf("got %+v, %v", batch, err)
	}
}

func TestSettings(t *testing.T) {
	bad := map[string]string{
		`{"intervall":"1s"}`:         `unknown field "intervall"; known are interval`,
		`{"interval":"soon"}`:        `interval "soon"; use a duration from 10ms to 1h`,
		`{"interval":"1ms"}`:         `from 10ms to 1h`,
		`{"interval":"2h"}`:          `from 10ms to 1h`,
		`{"interval":1}`:             `interval`,
		`{"tags":["temp"]}`:          `no tag "temp"; there are temperature, counter, valve, state`,
		`{"tags":["valve","valve"]}`: `tag "valve" is named twice`,
		`{"seed":-1}`:                `seed`,
		`{"unplugged":"here"}`:       `use an absolute path`,
		`{} {}`:                      `something follows`,
		``:                           `settings`,
	}
	for settings, want := range bad {
		if _, err := newAdapter([]byte(settings)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v; want %q in it", settings, err, want)
		}
	}
	for _, settings := range []string{`{}`, `{"interval":"10ms","tags":["state","counter"],"seed":7,"unplugged":"/x"}`} {
		if _, err := newAdapter([]byte(settings)); err != nil {
			t.Errorf("%s: %v", settings, err)
		}
	}
}

func TestSeedDecidesTheNoise(t *testing.T) {
	values := func(seed uint64) (values []any) {
		s, err := adapter{interval: 1, tags: allTags, seed: seed}.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 5 {
			values = append(values, s.(*session).value("temperature", s.(*session).began))
		}
		return values
	}
	if !reflect.DeepEqual(values(7), values(7)) || reflect.DeepEqual(values(7), values(8)) {
		t.Error("the noise does not follow the seed")
	}
}
