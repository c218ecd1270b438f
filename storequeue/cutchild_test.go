package storequeue

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
)

// A cutChild uses a queue as a gateway does, and says on its standard output
// what it was promised: that is recorded between its writes to the disk.
//
//	open            the queue is there
//	reader NAME     so is that reader
//	s FROM TO       these sequences are about to be submitted
//	a SEQ           it was acknowledged
//	k NAME SEQ      that reader is about to acknowledge up to SEQ
//	F N, f N        a fact is about to be set, and is set
//	keys A B        each of these master keys opens the queue
type cutChild struct {
	dir   string
	rnd   *rand.Rand
	run   uint64
	key   uint64 // 0: nothing is encrypted
	early bool   // it acknowledges before the commit: a mistake to be found
	q     *Queue
	all   *Reader
	few   *Reader // has one in seven, and is slow
	next  uint64
	begun sync.WaitGroup
	mu    sync.Mutex // covers err
	err   error
}

// cutConfig opens with the master key of that number.
func cutConfig(n uint64) Config {
	cfg := Config{SegmentSize: 48 << 10}
	if n > 0 {
		cfg.Encrypt, cfg.Key = true, cutKey(n)
	}
	return cfg
}

func cutKey(n uint64) Key { return Key(fmt.Sprintf("%032d", n)) }

func say(format string, args ...any) { os.Stdout.WriteString(fmt.Sprintf(format+"\n", args...)) }

func runCutChild(dir string) error {
	run, err := strconv.ParseUint(os.Getenv("STOREQUEUE_RUN"), 10, 64)
	if err != nil {
		return err
	}
	steps, err := strconv.Atoi(os.Getenv("STOREQUEUE_STEPS"))
	if err != nil {
		return err
	}
	key, err := strconv.ParseUint(os.Getenv("STOREQUEUE_KEY"), 10, 64)
	if err != nil {
		return err
	}
	c := &cutChild{dir: dir, key: key, run: run, rnd: rand.New(rand.NewPCG(run, 2)), early: os.Getenv("STOREQUEUE_EARLY") != ""}
	if err := c.open(); err != nil {
		return err
	}
	for range steps {
		if err := c.step(); err != nil {
			if c.q != nil { // it ends as a gateway does
				err = errors.Join(err, c.q.Close())
			}
			return err
		}
	}
	c.begun.Wait()
	return errors.Join(c.failed(), c.q.Close())
}

func (c *cutChild) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *cutChild) open() (err error) {
	if c.q, err = Open(c.dir, cutConfig(c.key)); err != nil {
		return err
	}
	say("open")
	c.next = c.q.Stats().Last + 1
	for name, r := range map[string]**Reader{"link/cloud": &c.all, "link/cloud/few": &c.few} {
		if *r, err = c.q.Reader(name); err != nil {
			return err
		}
		say("reader %s", name)
	}
	return nil
}

func (c *cutChild) step() error {
	switch op := c.rnd.IntN(20); {
	case op < 12:
		c.submit(1 + c.rnd.IntN(c.rnd.IntN(80)+1))
		if c.rnd.IntN(2) == 0 {
			c.begun.Wait()
		}
	case op < 16:
		return c.ack(c.all, 200)
	case op == 16:
		return c.ack(c.few, 20)
	case op < 19:
		n := c.rnd.Uint64()>>1 + 1
		say("F %d", n)
		if err := c.q.SetState(Change{"cut", "fact", fmt.Append(nil, n)}); err != nil {
			return err
		}
		say("f %d", n)
	case c.rnd.IntN(2) == 0:
		c.begun.Wait()
		if err := errors.Join(c.failed(), c.q.Close()); err != nil {
			return err
		}
		if err := c.rekey(); err != nil {
			return err
		}
		return c.open()
	}
	return c.failed()
}

// rekey begins to encrypt, or takes another master key.
func (c *cutChild) rekey() error {
	next := c.rnd.Uint64()>>1 + 1
	switch op := c.rnd.IntN(3); {
	case op == 0 || os.Getenv("STOREQUEUE_PLAIN") != "":
		return nil
	case c.key > 0:
		if err := Rekey(c.dir, cutKey(c.key), cutKey(next), nil); err != nil {
			return err
		}
		say("keys %d %d", c.key, next)
	}
	c.key = next
	say("keys %d %d", next, next)
	return nil
}

func (c *cutChild) submit(n int) {
	say("s %d %d", c.next, c.next+uint64(n)-1)
	for range n {
		seq := c.next
		c.next++
		m := Message{Topic: "plant/cut", Payload: cutPayload(c.run, seq), QoS: 1, For: []Mark{{Reader: c.all.ID(), QoS: 1}}}
		if seq%7 == 0 {
			m.For = append(m.For, Mark{Reader: c.few.ID(), QoS: 1})
		}
		c.begun.Add(1)
		c.q.Submit(&m, func(got uint64, err error) {
			defer c.begun.Done()
			if err == nil && got != seq {
				err = fmt.Errorf("message %d became %d", seq, got)
			}
			if err != nil {
				c.mu.Lock()
				c.err = errors.Join(c.err, err)
				c.mu.Unlock()
			} else if !c.early {
				say("a %d", seq)
			}
		})
		if c.early {
			say("a %d", seq)
		}
	}
}

func (c *cutChild) ack(r *Reader, n int) error {
	msgs, err := r.Poll(r.Acked(), c.rnd.IntN(n)+1)
	if err != nil || len(msgs) == 0 {
		return err
	}
	to := msgs[len(msgs)-1].Seq
	say("k %s %d", r.Name(), to)
	r.Ack(to)
	return nil
}

// cutPayload is what one run submits under a sequence: any length, and nothing
// that could be taken for another one.
func cutPayload(run, seq uint64) []byte {
	rnd := rand.New(rand.NewPCG(run, seq))
	size := rnd.IntN(300)
	if rnd.IntN(20) == 0 {
		size = rnd.IntN(12000)
	}
	b := fmt.Appendf(nil, "%d.%d.", run, seq)
	return append(b, bytes.Repeat([]byte{byte(rnd.Uint32())}, size)...)
}

// A ledger is what a child has said up to some moment.
type ledger struct {
	opened    bool
	readers   map[string]bool
	acked     uint64
	runs      map[uint64]uint64 // by sequence: the run that submitted it last
	said      map[string]uint64 // by reader: what it may have acknowledged
	set, sets uint64            // the fact that is on disk, and the one that may be
	keys      [2]uint64         // master keys, each of which opens it
}

func newLedger() *ledger {
	return &ledger{readers: map[string]bool{}, runs: map[uint64]uint64{}, said: map[string]uint64{}}
}

func (l *ledger) note(run uint64, text string) error {
	for line := range strings.Lines(text) {
		var a, b uint64
		var name string
		switch word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "open":
			l.opened = true
		case "reader":
			l.readers[rest] = true
		case "s":
			fmt.Sscan(rest, &a, &b)
			for seq := a; seq <= b; seq++ {
				l.runs[seq] = run
			}
		case "a":
			fmt.Sscan(rest, &a)
			l.acked = max(l.acked, a)
		case "k":
			fmt.Sscan(rest, &name, &a)
			l.said[name] = max(l.said[name], a)
		case "F":
			fmt.Sscan(rest, &l.sets)
		case "f":
			fmt.Sscan(rest, &l.set)
		case "keys":
			fmt.Sscan(rest, &l.keys[0], &l.keys[1])
		default:
			return fmt.Errorf("the child says %q", line)
		}
	}
	return nil
}
