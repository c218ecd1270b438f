package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sample = Status{
	Gateway: GatewayStatus{ID: "press-shop-3", Version: "1", Started: time.Unix(1763776800, 0).UTC(), Epoch: 7},
	Queue:   QueueStatus{Last: 42, Bytes: 100, MaxBytes: 1000, Segments: 1, Readers: []ReaderStatus{{Name: "link/cloud", Acked: 40, Waiting: 2}}},
	Links:   []LinkStatus{{Name: "cloud", Connected: true, Server: "c:8883", Waiting: 2, Delivered: 40}},
	Devices: []DeviceStatus{{ID: `odd"name`, State: "online"}, {ID: "pump", State: "offline", Error: "refused"}},
	Clients: ClientStatus{Connected: 1, Sessions: 2, LoginFailures: 3, Denied: 4},
}

// socketDir is short: a socket's path has 107 bytes.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve runs s until the test ends and returns once it answers.
func serve(t *testing.T, s *Server) {
	t.Helper()
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Ready == nil {
		s.Ready = func() error { return nil }
	}
	s.Status = func() Status { return sample }
	s.Clients = func() []Client { return []Client{{ID: "c", Identity: "i", Connected: true, Sent: 5}} }
	s.Latency = &Latency{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err := GetStatus(t.Context(), s.Socket); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestStatusOverTheSocket(t *testing.T) {
	socket := filepath.Join(socketDir(t), "s")
	if _, err := GetStatus(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a gateway: %v, want ErrNotRunning", err)
	}
	serve(t, &Server{Socket: socket})
	got, err := GetStatus(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if got.Gateway != sample.Gateway || got.Queue.Readers[0] != sample.Queue.Readers[0] || got.Devices[1] != sample.Devices[1] || !reflect.DeepEqual(got.Clients, sample.Clients) {
		t.Errorf("got %+v", got)
	}
	fi, err := os.Stat(socket)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", fi.Mode(), err)
	}
	second := &Server{Socket: socket, Logger: slog.New(slog.DiscardHandler)}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("a second gateway: %v", err)
	}
}

func TestSocketOfADeadProcessIsReplaced(t *testing.T) {
	socket := filepath.Join(socketDir(t), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if _, err := GetStatus(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: %v, want ErrNotRunning", err)
	}
	serve(t, &Server{Socket: socket})
}

// Over TCP there is health and nothing that names anybody's business.
func TestHealthOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	sick := errors.New("the disk failed")
	serve(t, &Server{Socket: filepath.Join(socketDir(t), "s"), Address: address, Ready: func() error { return sick }})
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/healthz":   {200, "ok"},
		"/readyz":    {503, "the disk failed"},
		"/metrics":   {200, `headgate_link_waiting_messages{link="cloud"} 2`},
		"/v1/status": {404, ""},
	} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want.code || !strings.Contains(string(body), want.text) {
			t.Errorf("%s: %d %q %v, want %d %q", path, resp.StatusCode, body, err, want.code, want.text)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "rebound.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("asked for another host: %s", resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}

// An address that is taken does not stop the gateway.
func TestTakenAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	serve(t, &Server{Socket: filepath.Join(socketDir(t), "s"), Address: ln.Addr().String()})
}
