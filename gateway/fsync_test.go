package gateway_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
)

// attach starts strace on a live gateway and returns where it writes.
func attach(t *testing.T, g *process, args ...string) string {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	p := start(t, nil, "strace", append(args, "-f", "-y", "-s", "4", "-o", trace, "-p", fmt.Sprint(g.Process.Pid))...)
	log, err := os.Open(p.out.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(p.log(t), "attached") {
		select {
		case <-p.done:
			t.Fatalf("strace ended:\n%s", p.log(t))
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("strace did not attach:\n%s", p.log(t))
		}
	}
	return trace
}

// While fdatasync blocks, nothing is acknowledged; and in the trace of a live
// gateway the PUBACK is written after the commit's fdatasync.
func TestNoPubackBeforeFsync(t *testing.T) {
	cloud := newCloud(t, "") // stays off: its traffic would be in the trace
	s := newSite(t, cloud, "")
	g := startGateway(t, s.config)
	cl := dial(t, client.Options{Address: fmt.Sprintf("127.0.0.1:%d", s.plain), ClientID: "x", CleanStart: true, Version: mqtt.V5})
	message := client.Message{Topic: "plant/a", Payload: []byte("1"), QoS: 1}
	if err := cl.Publish(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	const delay = 700 * time.Millisecond
	trace := attach(t, g, "-e", "trace=fdatasync,write", "-e", fmt.Sprintf("inject=fdatasync:delay_enter=%d", delay.Microseconds()))
	began := time.Now()
	if err := cl.Publish(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("PUBACK after %v, but the fdatasync of the commit took %v", took, delay)
	}
	checkTrace(t, trace)
}

var (
	syncStarted = regexp.MustCompile(`^(\d+) +fdatasync\(\d+<[^>]*/seg-[^>]*>( <unfinished|\) += 0)`)
	syncEnded   = regexp.MustCompile(`^(\d+) +<\.\.\. fdatasync resumed>.*= 0`)
	puback      = regexp.MustCompile(`write\(\d+<(TCP|socket)[^>]*>, "@\\`)
)

// checkTrace wants an fdatasync of a segment to have ended before the first
// PUBACK ("@", 0x40) is written.
func checkTrace(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ended := 0
	open := map[string]bool{} // threads inside fdatasync of a segment
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if m := syncStarted.FindStringSubmatch(line); m != nil {
			if strings.Contains(m[2], "unfinished") {
				open[m[1]] = true
			} else {
				ended++
			}
		}
		if m := syncEnded.FindStringSubmatch(line); m != nil && open[m[1]] {
			delete(open, m[1])
			ended++
		}
		if puback.MatchString(line) {
			if ended < 1 || len(open) > 0 {
				t.Errorf("PUBACK is written after %d fdatasyncs, %d still under way", ended, len(open))
			}
			t.Logf("PUBACK after %d fdatasyncs of the segment", ended)
			return
		}
	}
	text, _ := os.ReadFile(path)
	t.Errorf("no PUBACK in the trace:\n%s", text)
}

// What a killed gateway left to the system's cache is on disk before the next
// one relies on it.
func TestStartSyncsWhatItReads(t *testing.T) {
	config, _ := localSite(t)
	startGateway(t, config).kill()
	trace := filepath.Join(t.TempDir(), "trace")
	startGateway(t, config, "strace", "-D", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", trace).kill()
	for _, file := range []string{"queue/seg-0000000000000001.db", "queue/state.db"} {
		synced := regexp.MustCompile(`fsync\(\d+<[^>]*` + regexp.QuoteMeta(file) + `>\) *= 0`)
		waitFor(t, func() bool { // strace ends a moment later
			text, err := os.ReadFile(trace)
			return err == nil && synced.Match(text)
		})
	}
}
