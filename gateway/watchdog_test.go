package gateway_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
)

// A commit that hangs in fdatasync ends the pings that keep systemd from
// restarting the gateway; until then there are some.
func TestHungDiskIsNotFedToTheWatchdog(t *testing.T) {
	s := newSite(t, newCloud(t, ""), "")
	dir, err := os.MkdirTemp("", "hg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	const interval = time.Second
	g := start(t, []string{
		"NOTIFY_SOCKET=" + filepath.Join(dir, "notify"), "RUNTIME_DIRECTORY=" + dir, fmt.Sprintf("WATCHDOG_USEC=%d", interval.Microseconds()),
	}, headgate(t), "run", "--config", s.config)
	ping := func(patience time.Duration) bool { // within patience
		buf := make([]byte, 256)
		sock.SetReadDeadline(time.Now().Add(patience))
		for {
			n, err := sock.Read(buf)
			if err != nil {
				return false
			}
			if strings.Contains(string(buf[:n]), "WATCHDOG=1") {
				return true
			}
		}
	}
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
