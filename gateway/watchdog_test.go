package gateway_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// startNotified starts a gateway that believes in a systemd; told reports
// whether it says want within patience.
func (s *site) startNotified(t *testing.T, env ...string) (g *process, told func(want string, patience time.Duration) bool) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	env = append(env, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "RUNTIME_DIRECTORY="+dir)
	g = start(t, env, headgate(t), "run", "--config", s.config)
	return g, func(want string, patience time.Duration) bool {
		buf := make([]byte, 256)
		sock.SetReadDeadline(time.Now().Add(patience))
		for {
			n, err := sock.Read(buf)
			if err != nil {
				return false
			}
			if strings.Contains(string(buf[:n]), want) {
				return true
			}
		}
	}
}

// systemd hears of a reload that it did not order, and of its end.
func TestHangupIsToldToSystemd(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	g, told := s.startNotified(t)
	if !told("READY=1", 20*time.Second) {
		t.Fatal("not ready")
	}
	g.Process.Signal(syscall.SIGHUP)
	if !told("RELOADING=1", 10*time.Second) || !told("READY=1", 10*time.Second) {
		t.Error("systemd is not told of the reload")
	}
}

// A commit that hangs in fdatasync ends the pings that keep systemd from
// restarting the gateway; until then there are some.
func TestHungDiskIsNotFedToTheWatchdog(t *testing.T) {
	const interval = time.Second
	s := newSite(t, newCloud(t, ""), "")
	g, told := s.startNotified(t, fmt.Sprintf("WATCHDOG_USEC=%d", interval.Microseconds()))
	ping := func(patience time.Duration) bool { return told("WATCHDOG=1", patience) }
	for range 3 {
		if !ping(20 * time.Second) {
			t.Fatal("no ping from a gateway that is well")
		}
	}
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "x", CleanStart: true})
	attach(t, g, "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=60s")
	ctx, cancel := context.WithTimeout(t.Context(), interval) // by then it hangs for too long
	defer cancel()
	if err := cl.Publish(ctx, client.Message{Topic: "plant/a", Payload: []byte("1"), QoS: 1}); err == nil {
		t.Error("acknowledged while the disk hangs")
	}
	for ping(interval / 10) { // what came before
	}
	if ping(4 * interval) {
		t.Error("a ping while the disk hangs")
	}
}
