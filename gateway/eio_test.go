package gateway_test

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// The disk fails in the middle of publishing: the gateway acknowledges nothing
// more, ends within a second without asking the disk again, and the next one
// has every acknowledged message.
func TestDiskError(t *testing.T) {
	for _, call := range []string{"fdatasync", "pwrite64"} {
		t.Run(call, func(t *testing.T) { testDiskError(t, call) })
	}
}

func testDiskError(t *testing.T, call string) {
	config, address := localSite(t)
	g := startGateway(t, config)
	got := make(chan int, 100_000)
	hear := client.Options{Address: address, ClientID: "reader", SessionExpiry: 3600, Version: mqtt.V5, OnMessage: func(m *client.Message) error {
		n, err := strconv.Atoi(string(m.Payload))
		got <- n
		return err
	}}
	dial(t, hear, "plant/#").Disconnect() // what comes waits on disk
	trace := attach(t, g, "-ttt", "-e", "signal=none", "-e", "trace=fsync,fdatasync,pwrite64", "-e", fmt.Sprintf("inject=%s:error=EIO:when=50+", call))
	cl := dial(t, client.Options{Address: address, ClientID: "writer", CleanStart: true, Version: mqtt.V5})
	var acked atomic.Int64
	for n := 0; ; n++ {
		if n == 100_000 {
			t.Fatal("the disk does not fail")
		}
		if err := cl.Publish(t.Context(), client.Message{Topic: "plant/a", Payload: fmt.Append(nil, n), QoS: 1}); err != nil {
			break
		}
		acked.Add(1)
	}
	select {
	case <-g.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the gateway goes on")
	}
	if code := g.ProcessState.ExitCode(); code == 0 || !strings.Contains(g.log(t), "the disk failed") {
		t.Errorf("exit code %d", code)
	}
	checkAfterError(t, trace)

	startGateway(t, config)
	dial(t, hear)
	for want := range int(acked.Load()) {
		select {
		case n := <-got:
			if n != want {
				t.Fatalf("%d came, where %d was to come", n, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d were acknowledged, %d came", acked.Load(), want)
		}
	}
	t.Logf("%d acknowledged, all there", acked.Load())
}

var traced = regexp.MustCompile(`^(\d+) +([\d.]+) (.*)`)

// checkAfterError wants the process to end within a second of the first error,
// and no file to be synced after its sync failed.
func checkAfterError(t *testing.T, trace string) {
	t.Helper()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var failed, ended float64
	refused, begun := map[string]bool{}, map[string]string{} // files; by thread, what it syncs
	sync := regexp.MustCompile(`^f(?:data)?sync\((\d+<[^>]*>)`)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := traced.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		thread, what := m[1], m[3]
		if ended, err = strconv.ParseFloat(m[2], 64); err != nil {
			t.Fatal(err)
		}
		bad := strings.HasSuffix(what, "(INJECTED)")
		if bad && failed == 0 {
			failed = ended
		}
		if s := sync.FindStringSubmatch(what); s != nil {
			if begun[thread] = s[1]; refused[s[1]] {
				t.Errorf("synced again: %s", what)
			}
		}
		if bad && strings.Contains(what, "sync") {
			refused[begun[thread]] = true
		}
	}
	if failed == 0 || ended-failed > 1 {
		t.Errorf("the process ends %.3f s after the error", ended-failed)
	}
	t.Logf("the process ends %.3f s after the error", ended-failed)
}
