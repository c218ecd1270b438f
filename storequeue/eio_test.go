package storequeue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A write, sync or rename fails once: the queue says so, acknowledges nothing
// that is not on disk, and does not ask the same file again, which would call
// lost pages written. What is left, whether the disk has what the cache shows or
// the least of it, opens and holds what was acknowledged.
func TestDiskErrors(t *testing.T) {
	cases := 1 // of each call
	if os.Getenv("PROVE") != "" {
		cases = 10
	}
	calls := []string{"fdatasync", "pwrite64", "fsync", "ftruncate", "rename,renameat,renameat2"}
	seed := rand.Uint64() >> 1
	fmt.Sscan(os.Getenv("CUT_SEED"), &seed)
	t.Logf("CUT_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 4))
	for _, name := range calls {
		hit := 0
		for tries := 0; hit < cases; tries++ {
			if tries > 10*cases {
				t.Fatalf("%s was never to fail", name)
			}
			when := 1 + rnd.IntN(20) // of each thread's own
			c := newCutter(t, rnd.Uint64()>>1)
			c.inject = []string{"-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", name, when)}
			c.fresh()
			c.record(60)
			struck, err := c.afterError()
			if err != nil {
				t.Fatalf("CUT_SEED=%d: number %d of %s: %v", seed, when, name, err)
			}
			if struck {
				hit++
			}
		}
		t.Logf("%s: failed in %d runs", name, hit)
	}
}

// afterError judges a run in which a call failed.
func (c *cutter) afterError() (struck bool, err error) {
	c.t.Helper()
	d, l := c.first, c.before
	byLine := map[int][]*systemCall{}
	for i := range c.calls {
		k := &c.calls[i]
		byLine[k.began] = append(byLine[k.began], k)
		struck = struck || k.forged && k.ret < 0
	}
	failed := map[any]bool{} // files and folders whose sync failed
	c.play(d, l, func(line int) {
		for _, k := range byLine[line] {
			if k.name != "fsync" && k.name != "fdatasync" || d.fds[k.number(0)] == nil {
				continue
			}
			o := d.fds[k.number(0)]
			file := any(o.file)
			if o.file == nil {
				file = o.path
			}
			if failed[file] {
				err = errors.Join(err, fmt.Errorf("%s: synced again after its sync failed", filepath.Base(o.path)))
			}
			failed[file] = failed[file] || k.ret < 0
		}
	})
	if !struck || err != nil {
		return struck, err
	}
	for n := range 4 {
		dir := filepath.Join(memoryDir(c.t), "state")
		if err := errors.Join(os.Mkdir(dir, 0o700), d.crash(c.rnd, dir, n == 0)); err != nil {
			return true, err
		}
		if err := l.check(filepath.Join(dir, "queue")); err != nil {
			return true, fmt.Errorf("of what may be on disk (%d): %w", n, err)
		}
	}
	if err := l.check(filepath.Join(c.root, "queue")); err != nil {
		return true, fmt.Errorf("of what the cache shows: %w", err)
	}
	return true, nil
}
