package storequeue

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var raceEnabled bool // race_test.go

// A backlog costs disk, not memory: while it grows, waits and drains, and the
// disk comes back. The next start does not read it.
func TestBacklogMemory(t *testing.T) {
	n, most := 600_000, 40
	if os.Getenv("PROVE") != "" {
		n, most = 10_000_000, 80
	}
	t.Run("plain", func(t *testing.T) { backlogMemory(t, n, most) })
	t.Run("encrypted", func(t *testing.T) { backlogMemory(t, n, most, "STOREQUEUE_ENCRYPT=1") })
}

func backlogMemory(t *testing.T, n, most int, env ...string) {
	dir := filepath.Join(t.TempDir(), "queue")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "STOREQUEUE_BACKLOG="+dir, fmt.Sprint("STOREQUEUE_MESSAGES=", n)), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	for lines, began := bufio.NewScanner(out), time.Now(); lines.Scan(); began = time.Now() {
		phase, facts, _ := strings.Cut(lines.Text(), " ")
		now, peak := resident(t, cmd.Process.Pid)
		t.Logf("%-9s %7.1f s, resident %d MB, at most %d MB %s", phase, time.Since(began).Seconds(), now>>10, peak>>10, facts)
		var disk, opened int
		fmt.Sscanf(facts, "disk=%d opened=%d", &disk, &opened)
		switch {
		case phase == "error":
			t.Fatal(facts)
		case peak>>10 > most && !raceEnabled:
			t.Errorf("%s: %d MB of memory, at most %d are allowed", phase, peak>>10, most)
		case phase == "opened" && opened > 2000:
			t.Errorf("opening took %d ms", opened)
		case phase == "drained" && disk >= 100<<20:
			t.Errorf("%d bytes of disk are left in use", disk)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", cmd.Process.Pid), []byte("5"), 0); err != nil { // the peak begins anew
			t.Logf("peaks are of all phases so far: %v", err)
		}
		fmt.Fprintln(in)
	}
}

// resident is what a process has in memory, and had at most, in kB, pages of
// mapped files included.
func resident(t *testing.T, pid int) (now, peak int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &now)
		fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	return now, peak
}

// backlogChild fills a queue, opens it again and drains it, and after each of
// these waits for a line.
func backlogChild(dir string) error {
	n, err := strconv.Atoi(os.Getenv("STOREQUEUE_MESSAGES"))
	if err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	say := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		in.ReadString('\n')
	}
	cfg := Config{MaxSize: 64 << 30}
	if os.Getenv("STOREQUEUE_ENCRYPT") != "" {
		cfg.Encrypt, cfg.Key = true, NewKey()
	}
	q, err := Open(dir, cfg)
	if err != nil {
		return err
	}
	r, err := q.Reader("link/cloud")
	if err != nil {
		return err
	}
	say("begun")
	if err := fill(q, r, n); err != nil {
		return err
	}
	say("filled disk=%d", diskUsed(dir))
	if err := q.Close(); err != nil {
		return err
	}
	began := time.Now()
	if q, err = Open(dir, cfg); err != nil {
		return err
	}
	if r, err = q.Reader("link/cloud"); err != nil {
		return err
	}
	say("opened disk=%d opened=%d", diskUsed(dir), time.Since(began).Milliseconds())
	if err := drain(q, r, n); err != nil {
		return err
	}
	say("drained disk=%d", diskUsed(dir))
	return q.Close()
}

// fill appends n messages of 200 bytes, 1,000 in flight.
func fill(q *Queue, r *Reader, n int) error {
	m := note(1, r)
	m.Payload = make([]byte, 200)
	window, failed := make(chan struct{}, 1000), make(chan error, 1)
	for range n {
		window <- struct{}{}
		q.Submit(&m, func(_ uint64, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
			<-window
		})
	}
	for range cap(window) {
		window <- struct{}{}
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// drain reads and acknowledges n messages, and waits until the disk has come
// back.
func drain(q *Queue, r *Reader, n int) error {
	for after := r.Acked(); n > 0; {
		msgs, err := r.Next(context.Background(), after, 1000)
		if err != nil {
			return err
		}
		n -= len(msgs)
		after = msgs[len(msgs)-1].Seq
		r.Ack(after)
	}
	for tick := time.Tick(flushEvery); q.Stats().Segments > 1; {
		<-tick
	}
	return nil
}

// diskUsed is what the files in a folder take on disk.
func diskUsed(dir string) (n int64) {
	filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && syscall.Stat(path, &st) == nil {
			n += st.Blocks * 512
		}
		return nil
	})
	return n
}
