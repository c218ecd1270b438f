package plugin

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate-io/headgate/plugins/sdk"
	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

// TestMain makes the test binary play the plugins: under the name that it was
// installed by, when it was started as one.
func TestMain(m *testing.M) {
	if os.Getenv(wire.Handshake.MagicCookieKey) == "" {
		if os.Getenv("PLAY_GATEWAY") != "" {
			playGateway()
		}
		os.Exit(m.Run())
	}
	name := filepath.Base(os.Args[0])
	switch play, ok := impostors[name]; {
	case ok:
		play()
	case name == "liar":
		serveLiar()
	default:
		sdk.Serve(name, newProbe)
	}
}

// install puts the test binary into a folder under name.
func install(t testing.TB, name string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if os.Link(exe, path) == nil {
		return path
	}
	raw, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// runtimeDir is short: it holds unix sockets.
func runtimeDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left in the runtime folder: %v, %v", left, err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// newTestAdapter returns an adapter for the plugin called name with settings
// {"do": do}.
func newTestAdapter(t testing.TB, name, do string) *adapter {
	t.Helper()
	settings, err := json.Marshal(probeSettings{Do: do})
	if err != nil {
		t.Fatal(err)
	}
	return newAdapter(Config{
		Path:       install(t, name),
		Device:     "press",
		Settings:   settings,
		RuntimeDir: runtimeDir(t),
		Logger:     slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

func openSession(t testing.TB, a *adapter) southbound.Session {
	t.Helper()
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeSession(t testing.TB, s southbound.Session) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// inner is the session behind the interface.
func inner(s southbound.Session) *session {
	if w, ok := s.(writer); ok {
		return w.session
	}
	return s.(*session)
}

func pidOf(s southbound.Session) int {
	p := inner(s).process
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// values reads until one batch came and returns it by tag.
func values(t testing.TB, s southbound.Session) map[string]any {
	t.Helper()
	batch, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]any)
	for _, r := range batch.Readings {
		m[r.Tag] = r.Value
	}
	return m
}

// pidfd refers to a process so that its end can be waited for, even if the id
// is reused.
func pidfd(t testing.TB, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("open pidfd of %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// waitEnd fails unless the process ends within d.
func waitEnd(t testing.TB, fd int, d time.Duration) {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, max(0, int(time.Until(deadline).Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			t.Fatalf("the process lives on after %v: %v", d, err)
		}
		return
	}
}

// within fails unless f returns within d.
func within(t testing.TB, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s took more than %v", what, d)
	}
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error is %v; want %q in it", err, part)
		}
	}
}

// logBuffer collects what was logged.
type logBuffer struct {
	mu  sync.Mutex // covers buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
