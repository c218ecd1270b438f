package storequeue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A real run is recorded, and the power is cut at any moment of it: of what no
// sync has made certain, any pages, sectors, sizes and names are lost. Whatever
// is left opens, holds what was acknowledged, in order, and nothing else. Each
// run begins with what a cut has left of the one before. CUT_SEED repeats a run,
// CUT_RUNS makes more or fewer of them.
func TestCutStates(t *testing.T) {
	runs, states, steps := 2, 150, 60
	if os.Getenv("PROVE") != "" {
		runs, states, steps = 40, 500, 150
	}
	fmt.Sscan(os.Getenv("CUT_RUNS"), &runs)
	seed := rand.Uint64() >> 1
	fmt.Sscan(os.Getenv("CUT_SEED"), &seed)
	t.Logf("CUT_SEED=%d", seed)
	c := newCutter(t, seed)
	for run := range runs {
		if run%8 == 0 { // the first creation again
			c.fresh()
		}
		c.record(steps)
		c.cut(states, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
		if t.Failed() {
			t.Fatalf("CUT_SEED=%d, run %d", seed, run)
		}
	}
	t.Logf("%d states, %.0f a second; %d messages acknowledged; in the runs, %v", c.tried, float64(c.tried)/c.took.Seconds(), c.acked, c.saw)
	for _, what := range []string{"segments made", "segments written anew", "files removed", "copies of the state", "other master keys"} {
		if c.saw[what] == 0 && runs > 2 {
			t.Errorf("no run had %s: %v", what, c.saw)
		}
	}
}

// Mistakes that must be found, in the states in which they matter: right behind
// an acknowledgement.
func TestCutMutants(t *testing.T) {
	if os.Getenv("PROVE") == "" {
		t.Skip("PROVE=1 runs it")
	}
	runs, states := 1, 100
	for name, mutant := range map[string]func(*cutter){
		"no fdatasync":             func(c *cutter) { c.inject = []string{"-e", "inject=fdatasync:retval=0"} },
		"no fsync of folders":      func(c *cutter) { c.deaf = true },
		"acknowledged when queued": func(c *cutter) { c.env = []string{"STOREQUEUE_EARLY=1"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCutter(t, rand.Uint64()>>1)
			mutant(c)
			c.env = append(c.env, "STOREQUEUE_PLAIN=1") // many lost pages of encrypted segments are searched for minutes
			c.behindAcks = true
			found := 0
			for range runs {
				c.fresh()
				c.record(60)
				c.cut(states, func(err error) {
					if err != nil {
						found++
					}
				})
			}
			t.Logf("found in %d of %d states", found, c.tried)
			if found*10 < c.tried*9 {
				t.Errorf("found in %d of %d states only", found, c.tried)
			}
		})
	}
}

// A cutter records runs of one queue and cuts the power.
type cutter struct {
	t    *testing.T
	rnd  *rand.Rand
	root string // folder of the queue's folder, in memory where that can be had
	run  uint64
	env  []string

	inject     []string // to strace
	deaf       bool     // syncs of folders do nothing
	behindAcks bool     // cut there only, and lose all that is not certain

	calls  []systemCall
	before *ledger // of this run
	first  *disk

	tried, acked int
	saw          map[string]int // what happened in the runs
	took         time.Duration
}

func newCutter(t *testing.T, seed uint64) *cutter {
	return &cutter{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), run: seed, saw: map[string]int{}}
}

// memoryDir is a folder that is gone after the test, in memory if possible:
// what a real disk does to the files is not wanted here.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "storequeue")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (c *cutter) fresh() {
	c.root, c.before = memoryDir(c.t), newLedger()
}

// record runs a child on what is in the folder.
func (c *cutter) record(steps int) {
	c.t.Helper()
	var err error
	if c.first, err = newDisk(c.root); err != nil {
		c.t.Fatal(err)
	}
	c.first.shared = memoryDir(c.t)
	c.run++
	c.calls = strace(c.t, append(c.env, "STOREQUEUE_CUT="+filepath.Join(c.root, "queue"),
		fmt.Sprint("STOREQUEUE_RUN=", c.run), fmt.Sprint("STOREQUEUE_KEY=", c.before.keys[0]), fmt.Sprint("STOREQUEUE_STEPS=", steps)), c.inject...)
}

// cut goes once through the recorded run and stops at so many moments, each of
// them a state that is judged. The next run begins with one of them.
func (c *cutter) cut(states int, judge func(error)) {
	c.t.Helper()
	began := time.Now()
	at := c.moments(states)
	d, l := c.first, c.before
	heir := c.rnd.IntN(states)
	var wg sync.WaitGroup
	turns, mu := make(chan struct{}, 4), sync.Mutex{}
	var failed atomic.Bool
	c.play(d, l, func(line int) {
		for ; at[line] > 0 && !failed.Load(); at[line]-- {
			dir := filepath.Join(memoryDir(c.t), "state")
			if err := errors.Join(os.Mkdir(dir, 0o700), d.crash(c.rnd, dir, c.behindAcks)); err != nil {
				c.t.Fatal(err)
			}
			now := l.clone()
			if c.tried++; heir == 0 && !c.behindAcks {
				c.inherit(dir, now)
			}
			heir--
			turns <- struct{}{}
			wg.Go(func() {
				defer func() { <-turns }()
				err := now.check(filepath.Join(dir, "queue"))
				if err != nil {
					err = fmt.Errorf("line %d of run %d: %w", line, c.run, err)
				}
				os.RemoveAll(filepath.Dir(dir))
				mu.Lock()
				defer mu.Unlock()
				judge(err)
				failed.Store(c.t.Failed())
			})
		}
	})
	wg.Wait()
	c.took += time.Since(began)
	c.acked += int(l.acked)
}

// play does what was recorded, and after each line of the trace calls look.
func (c *cutter) play(d *disk, l *ledger, look func(line int)) {
	c.t.Helper()
	byLine := map[int][]*systemCall{}
	last := 0
	for i := range c.calls {
		k := &c.calls[i]
		byLine[k.began] = append(byLine[k.began], k)
		if k.ended != k.began {
			byLine[k.ended] = append(byLine[k.ended], k)
		}
		last = max(last, k.ended)
	}
	for line := 1; line <= last; line++ {
		for _, k := range byLine[line] {
			if err := c.step(d, l, k, line); err != nil {
				c.t.Fatal(err)
			}
		}
		look(line)
	}
}

func (c *cutter) step(d *disk, l *ledger, k *systemCall, line int) error {
	if k.began == line {
		switch k.name {
		case "fsync", "fdatasync":
			d.begin(k)
		case "close":
			delete(d.fds, k.number(0))
		case "write":
			if k.number(0) == 1 {
				before := l.keys
				err := l.note(c.run, string(k.text(1)))
				if l.keys != before && l.keys[0] == l.keys[1] && before[0] != 0 {
					c.saw["other master keys"]++
				}
				return err
			}
		}
	}
	d.deaf = c.deaf && l.opened // not at the creation, where every state would be found
	if k.ended != line {
		return nil
	}
	c.see(d, k)
	return d.apply(k)
}

// see counts what changes names.
func (c *cutter) see(d *disk, k *systemCall) {
	switch {
	case k.ret < 0:
	case strings.HasPrefix(k.name, "unlink"):
		c.saw["files removed"]++
	case strings.HasPrefix(k.name, "rename"):
		switch to := k.path(1); {
		case filepath.Base(to) == stateCopy:
			c.saw["copies of the state"]++
		case d.names[to] != nil:
			c.saw["segments written anew"]++
		default:
			c.saw["segments made"]++
		}
	}
}

// moments says after which lines to cut, and how often.
func (c *cutter) moments(states int) map[int]int {
	var all, rare []int // rare: names change
	acked, rotated := false, false
	for i := range c.calls {
		k := &c.calls[i]
		name := strings.HasPrefix(k.name, "rename") || strings.HasPrefix(k.name, "unlink") || strings.HasPrefix(k.name, "mkdir")
		ack := k.name == "write" && k.number(0) == 1 && bytes.HasPrefix(k.text(1), []byte("a "))
		acked, rotated = acked || ack, rotated || acked && name
		switch {
		case c.behindAcks && ack && rotated:
			all = append(all, k.began)
		case c.behindAcks:
		case name:
			rare = append(rare, i)
		default:
			all = append(all, k.ended)
		}
	}
	if len(all) == 0 {
		c.t.Fatal("nothing was recorded: the run is too short")
	}
	at := map[int]int{}
	for range states {
		if len(rare) > 0 && c.rnd.IntN(3) == 0 {
			near := rare[c.rnd.IntN(len(rare))] + c.rnd.IntN(12) - 4
			at[c.calls[min(max(near, 0), len(c.calls)-1)].ended]++
		} else {
			at[all[c.rnd.IntN(len(all))]]++
		}
	}
	return at
}

// inherit lets the next run begin with a state.
func (c *cutter) inherit(state string, l *ledger) {
	root := filepath.Join(memoryDir(c.t), "root")
	if err := os.CopyFS(root, os.DirFS(state)); err != nil {
		c.t.Fatal(err)
	}
	c.root, c.before = root, l.clone()
	c.before.keys[0] = l.keys[1] // what a gateway goes on with
}

func (l *ledger) clone() *ledger {
	n := *l
	n.readers, n.runs, n.said = maps.Clone(l.readers), maps.Clone(l.runs), maps.Clone(l.said)
	return &n
}

// check opens what a power cut has left and says what is wrong with it.
func (l *ledger) check(dir string) error {
	cfg := cutConfig(l.keys[rand.IntN(2)])
	cfg.MustExist = l.opened
	q, err := Open(dir, cfg)
	if err != nil {
		return fmt.Errorf("it does not start: %w", err)
	}
	defer q.Close()
	if err := q.Check(); err != nil {
		return err
	}
	if st := q.Stats(); st.Damaged > 0 || len(st.Aside) > 0 {
		return fmt.Errorf("it is taken for damaged: %d messages, %v aside", st.Damaged, st.Aside)
	}
	last := q.Stats().Last
	if last < l.acked {
		return fmt.Errorf("the log ends at %d, and %d was acknowledged", last, l.acked)
	}
	found := map[string]bool{}
	for _, st := range q.Stats().Readers {
		found[st.Name] = true
	}
	for name := range l.readers {
		if !found[name] {
			return fmt.Errorf("reader %s is gone", name)
		}
	}
	var fact uint64
	err = q.State("cut", func(_ string, value []byte) error {
		fact, err = strconv.ParseUint(string(value), 10, 64)
		return err
	})
	if err != nil || fact != l.set && fact != l.sets {
		return fmt.Errorf("the fact is %d, not %d or %d: %w", fact, l.set, l.sets, err)
	}
	for name, every := range map[string]uint64{"link/cloud": 1, "link/cloud/few": 7} {
		if err := l.checkReader(q, name, every, last); err != nil {
			return fmt.Errorf("reader %s: %w", name, err)
		}
	}
	return nil
}

// checkReader wants one in so many of the messages behind the reader's place up
// to the last, none missing and none that was not submitted, and then a new one.
func (l *ledger) checkReader(q *Queue, name string, every, last uint64) error {
	existed := l.readers[name]
	r, err := q.Reader(name)
	if err != nil {
		return err
	}
	at := r.Acked()
	if existed && at > l.said[name] {
		return fmt.Errorf("it is at %d, and acknowledged up to %d at most", at, l.said[name])
	}
	m := Message{Topic: "plant/on", For: []Mark{{Reader: r.ID()}}}
	if err := q.Append(context.Background(), m); err != nil {
		return err
	}
	want := (at/every + 1) * every
	for {
		msgs, err := r.Poll(at, 500)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			at = m.Seq
			if m.Topic == "plant/on" {
				if want <= last || at <= last {
					return fmt.Errorf("%d is missing: %d comes next", want, at)
				}
				return nil
			}
			if run := l.runs[at]; at != want || run == 0 || !bytes.Equal(m.Payload, cutPayload(run, at)) {
				return fmt.Errorf("%d comes, where %d was to come, with %.30q; run %d submitted it", at, want, m.Payload, run)
			}
			want += every
		}
		if len(msgs) == 0 {
			return fmt.Errorf("%d is missing: nothing comes", want)
		}
	}
}
