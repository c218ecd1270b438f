package storequeue

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// smallDisk is a file system of 64 MB for the test alone: ext4 in a file, or in
// memory where there are no loop devices.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small disk")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput()
	if err == nil {
		out, err = exec.Command("mount", "-o", "loop", image, at).CombinedOutput()
	}
	if err != nil {
		t.Logf("no ext4 in a file: %v: %s", err, out)
		if err := syscall.Mount("none", at, "tmpfs", 0, "size=64m"); err != nil {
			t.Skipf("nothing can be mounted here: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return at
}

// A publisher is told of each message whether it was stored.
type publisher struct {
	q             *Queue
	r             *Reader
	window        chan struct{}
	mu            sync.Mutex // covers the fields below
	sent, refused int
	kept          []uint64 // numbers of acknowledged messages, in order
	wrong         error
}

func (p *publisher) publish(n int) {
	for range n {
		p.window <- struct{}{}
		p.mu.Lock()
		number := uint64(p.sent)
		p.sent++
		p.mu.Unlock()
		m := note(0, p.r)
		m.Payload = append(strconv.AppendUint(nil, number, 10), make([]byte, 500)...)
		p.q.Submit(&m, func(_ uint64, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case err == nil:
				p.kept = append(p.kept, number)
			case errors.Is(err, ErrFull):
				p.refused++
			default:
				p.wrong = err
			}
			<-p.window
		})
	}
	for range cap(p.window) {
		p.window <- struct{}{}
	}
	for range cap(p.window) {
		<-p.window
	}
}

// untilFull publishes until the disk takes no more, and on.
func (p *publisher) untilFull(t *testing.T) {
	t.Helper()
	for before := p.refused; p.refused < before+500; {
		if p.publish(500); p.sent > 1_000_000 {
			t.Fatal("the disk does not fill")
		}
	}
}

// resumes waits until a message is stored again.
func (p *publisher) resumes(t *testing.T, what string) {
	t.Helper()
	began, before := time.Now(), len(p.kept)
	for tick := time.Tick(10 * time.Millisecond); len(p.kept) == before; <-tick {
		if p.publish(1); time.Since(began) > 5*time.Second {
			t.Fatalf("%s: refused for 5 s after there was room", what)
		}
	}
	t.Logf("%s: goes on after %v", what, time.Since(began).Round(time.Millisecond))
}

// A full disk, whoever filled it, stops nothing: messages are refused, counted,
// and taken again when there is room. Nothing that was acknowledged is lost.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t)
	rounds := 1
	if os.Getenv("PROVE") != "" {
		rounds = 10
	}
	dir, cfg := filepath.Join(disk, "queue"), Config{SegmentSize: 4 << 20}
	q, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &publisher{q: q, r: mustReader(t, q, "link/cloud"), window: make(chan struct{}, 64)}
	seen := 0
	for range rounds {
		p.untilFull(t) // by us: room comes back when it is read
		seen += p.drain(t, seen)
		p.resumes(t, "filled by the queue")
		fillDisk(t, filepath.Join(disk, "foreign"))
		p.untilFull(t)
		if err := os.Remove(filepath.Join(disk, "foreign")); err != nil {
			t.Fatal(err)
		}
		p.resumes(t, "filled by a foreign file")
		fillDisk(t, filepath.Join(disk, "foreign"))
		p.untilFull(t)
		if err := q.Close(); err != nil { // and opened on a full disk
			t.Fatal(err)
		}
		cfg.MustExist = true
		if q, err = Open(dir, cfg); err != nil {
			t.Fatal(err)
		}
		p.q, p.r = q, mustReader(t, q, "link/cloud")
		seen += p.drain(t, seen)
		if err := os.Remove(filepath.Join(disk, "foreign")); err != nil {
			t.Fatal(err)
		}
	}
	if p.wrong != nil || q.Err() != nil || len(p.kept)+p.refused != p.sent || seen != len(p.kept) {
		t.Errorf("%d acknowledged and %d refused of %d sent, %d came out; %v, %v", len(p.kept), p.refused, p.sent, seen, p.wrong, q.Err())
	}
	t.Logf("%d acknowledged and %d refused of %d sent", len(p.kept), p.refused, p.sent)
	if err := errors.Join(q.Check(), q.Close()); err != nil {
		t.Error(err)
	}
}

// A disk so small that all lies in the newest segment gives room back as well,
// when it was read and for a reader that drops its oldest.
func TestSmallDiskFull(t *testing.T) {
	disk := smallDisk(t)
	if err := os.WriteFile(filepath.Join(disk, "foreign"), make([]byte, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	q := openTest(t, filepath.Join(disk, "queue"), Config{MinFree: 4 << 20})
	p := &publisher{q: q, r: mustReader(t, q, "link/cloud"), window: make(chan struct{}, 64)}
	p.untilFull(t)
	if n := q.Stats().Segments; n != 1 {
		t.Fatalf("%d segments", n)
	}
	takes := func(what string) {
		t.Helper()
		const n = 5000
		before := len(p.kept)
		if p.publish(n); len(p.kept)-before != n {
			t.Errorf("%s: %d of %d are taken", what, len(p.kept)-before, n)
		}
	}
	p.drain(t, 0)
	takes("drained")
	p.untilFull(t)
	p.r.Limit(Limits{WhenFull: DropOldest})
	takes("may drop")
	if lost, waiting := stats(t, q, "link/cloud").Lost[ReasonFull], p.r.Waiting(); lost == 0 || waiting < lost/2 {
		t.Errorf("%d were dropped, %d wait", lost, waiting)
	}
	if p.wrong != nil || q.Err() != nil {
		t.Errorf("%v, %v", p.wrong, q.Err())
	}
	if err := q.Check(); err != nil {
		t.Error(err)
	}
}

// drain reads what is there, which begins with the acknowledged message number
// seen, and returns how many it was.
func (p *publisher) drain(t *testing.T, seen int) (n int) {
	t.Helper()
	for {
		msgs, err := p.r.Poll(p.r.Acked(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(msgs) == 0 {
			return n
		}
		for _, m := range msgs {
			text := strings.TrimRight(string(m.Payload), "\x00")
			if want := p.kept[seen+n]; text != strconv.FormatUint(want, 10) {
				t.Fatalf("message %s comes out, where %d was to come", text, want)
			}
			n++
		}
		p.r.Ack(msgs[len(msgs)-1].Seq)
	}
}

// fillDisk writes a file until nothing more goes.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
	f.Sync()
}
