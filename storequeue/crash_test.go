package storequeue

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// child appends for ever, prints what was acknowledged, and acknowledges some
// of it as a reader. It is killed by its parent.
func child(dir string) {
	q, err := Open(dir, Config{SegmentSize: 32 << 10})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	r, err := q.Reader("link/cloud")
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	n := int(q.Stats().Last)
	for i := 0; ; i++ {
		m := note(n+i+1, r)
		m.Payload = append(m.Payload, make([]byte, 100)...)
		q.Submit(&m, func(seq uint64, err error) {
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			os.Stdout.WriteString(strconv.FormatUint(seq, 10) + "\n")
			if seq%100 == 0 {
				r.Ack(seq - 50)
			}
		})
	}
}

// Killed at any moment, everything acknowledged is there on the next start, in
// order, and nothing is skipped.
func TestKill9(t *testing.T) {
	rounds := 15
	if os.Getenv("PROVE") != "" {
		rounds = 300
	}
	dir := filepath.Join(t.TempDir(), "queue")
	acked := uint64(0)
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STOREQUEUE_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for killAfter := rand.IntN(3000); lines.Scan(); killAfter-- {
			if killAfter == 0 {
				cmd.Process.Kill()
			}
			seq, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("round %d: child says %q", round, lines.Text())
			}
			if seq <= acked {
				t.Fatalf("round %d: sequence %d after %d was acknowledged", round, seq, acked)
			}
			acked = seq
		}
		cmd.Wait()
		checkAfterCrash(t, dir, acked)
	}
	t.Logf("%d rounds, %d messages", rounds, acked)
}

func checkAfterCrash(t *testing.T, dir string, acked uint64) {
	t.Helper()
	q, err := Open(dir, Config{MustExist: acked > 0, SegmentSize: 32 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	if last := q.Stats().Last; last < acked {
		t.Fatalf("log ends at %d, but %d was acknowledged", last, acked)
	}
	r := mustReader(t, q, "link/cloud")
	for at := r.Acked(); ; {
		msgs := take(t, r, at, 1000)
		if len(msgs) == 0 {
			if at < acked {
				t.Fatalf("reader ends at %d, but %d was acknowledged", at, acked)
			}
			return
		}
		for _, m := range msgs {
			if want := strconv.FormatUint(at+1, 10); m.Seq != at+1 || string(m.Payload[:len(want)]) != want {
				t.Fatalf("after %d comes %d with %q", at, m.Seq, m.Payload[:8])
			}
			at = m.Seq
		}
	}
}
