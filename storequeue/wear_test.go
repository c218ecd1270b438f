package storequeue

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What Stats says was written is what the process handed to the disk.
func TestWrittenIsTrue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q := openTest(t, dir, Config{SegmentSize: 200 << 10})
	r := mustReader(t, q, "x")
	handed := func() (n uint64) {
		b, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Skip(err)
		}
		var read uint64
		fmt.Sscanf(string(b), "rchar: %d\nwchar: %d", &read, &n)
		return n
	}
	handed0, written0 := handed(), q.Stats().Written
	payload := 0
	for i := range 300 {
		m := note(i, r)
		m.Payload = make([]byte, i*7)
		payload += len(m.Payload)
		mustAppend(t, q, m)
	}
	st, real := q.Stats(), handed()-handed0
	said := st.Written - written0
	if said > real || said < real-real/20 { // new segments are not counted
		t.Errorf("%d bytes were written by its count, %d by the system's", said, real)
	}
	if st.Payload != uint64(payload) {
		t.Errorf("%d bytes of payload, not %d", st.Payload, payload)
	}
}

// With Linger the first message of a commit waits for others, but not beyond
// Close.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const linger = 200 * time.Millisecond
		q, err := Open(filepath.Join(t.TempDir(), "queue"), Config{Linger: linger})
		if err != nil {
			t.Fatal(err)
		}
		r := mustReader(t, q, "x")
		began := time.Now()
		var took []time.Duration
		var wg sync.WaitGroup
		submit := func() {
			m := note(1, r)
			wg.Add(1)
			q.Submit(&m, func(_ uint64, err error) {
				if err != nil {
					t.Error(err)
				}
				took = append(took, time.Since(began))
				wg.Done()
			})
		}
		for range 10 {
			submit()
			time.Sleep(linger / 20)
		}
		wg.Wait()
		if took[0] != linger || q.Stats().Commits != 1 {
			t.Errorf("acknowledged after %v, in %d commits", took[0], q.Stats().Commits)
		}
		began = time.Now()
		submit()
		if err := q.Close(); err != nil || time.Since(began) != 0 {
			t.Errorf("closing took %v: %v", time.Since(began), err)
		}
	})
}

// A full commit does not linger.
func TestLingerEndsWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := Open(filepath.Join(t.TempDir(), "queue"), Config{Linger: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		r := mustReader(t, q, "x")
		began := time.Now()
		var wg sync.WaitGroup
		for i := range maxBatch {
			m := note(i, r)
			wg.Add(1)
			q.Submit(&m, func(uint64, error) { wg.Done() })
		}
		wg.Wait()
		if time.Since(began) != 0 {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

// What Linger spares a disk, at ten messages of 100 bytes a second, one each
// 100 ms, while the link is away and while it acknowledges each.
func TestLingerSparesTheDisk(t *testing.T) {
	lingers := []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, time.Second}
	for _, online := range []bool{false, true} {
		var all []float64
		for _, linger := range lingers {
			all = append(all, wearAt(t, linger, online))
		}
		t.Logf("bytes written per payload byte with a linger of %v: %.0f; link online: %v", lingers, all, online)
		if all[0] < 2*all[3] || all[3] < 2*all[4] {
			t.Errorf("a longer linger spares nothing: %.0f", all)
		}
	}
}

func wearAt(t *testing.T, linger time.Duration, online bool) (each float64) {
	synctest.Test(t, func(t *testing.T) {
		q, err := Open(filepath.Join(t.TempDir(), "queue"), Config{Linger: linger})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		r := mustReader(t, q, "x")
		before := q.Stats().Written
		for range 150 {
			m := note(1, r)
			m.Payload = make([]byte, 100)
			q.Submit(&m, func(seq uint64, err error) {
				if err != nil {
					t.Error(err)
				}
			})
			time.Sleep(100 * time.Millisecond)
			if online {
				r.Ack(q.Stats().Last)
			}
		}
		time.Sleep(2 * time.Second)
		st := q.Stats()
		each = float64(st.Written-before) / float64(st.Payload)
	})
	return each
}
