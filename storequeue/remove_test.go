package storequeue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func prefixMatch(filter, topic string) bool { return strings.HasPrefix(topic, filter) }

// removable appends n messages, every third of them on an alarm topic, a second apart.
func removable(t *testing.T, q *Queue, n int, readers ...*Reader) {
	t.Helper()
	var msgs []Message
	for i := range n {
		m := note(i, readers...)
		if m.Topic = "plant/a"; i%3 == 0 {
			m.Topic = "alarm/a"
		}
		m.Time = time.Unix(1000+int64(i), 0)
		msgs = append(msgs, m)
	}
	for len(msgs) > 0 {
		k := min(len(msgs), 37)
		mustAppend(t, q, msgs[:k]...)
		msgs = msgs[k:]
	}
}

func waits(t *testing.T, r *Reader) []string {
	t.Helper()
	var all []string
	for after := r.Acked(); ; {
		msgs, err := r.Peek(after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(msgs) == 0 {
			return all
		}
		after = msgs[len(msgs)-1].Seq
		all = append(all, payloads(msgs)...)
	}
}

func numbers(n int, keep func(int) bool) (all []string) {
	for i := range n {
		if keep(i) {
			all = append(all, fmt.Sprint(i))
		}
	}
	return all
}

// A thinned queue has 1000 messages, as removable makes them, for two readers;
// from the first of them some are removed.
type thinned struct {
	*testing.T
	dir      string
	cfg      Config
	q        *Queue
	r, other *Reader
}

func (x *thinned) open() {
	x.Helper()
	var err error
	if x.q, err = Open(x.dir, x.cfg); err != nil {
		x.Fatal(err)
	}
	x.r, x.other = mustReader(x.T, x.q, "r"), mustReader(x.T, x.q, "other")
}

func (x *thinned) close() {
	x.Helper()
	if err := x.q.Check(); err != nil {
		x.Error(err)
	}
	if err := x.q.Close(); err != nil {
		x.Fatal(err)
	}
}

// check compares, now and after a restart, with the numbers that are left.
func (x *thinned) check(when string, left []string) {
	x.Helper()
	var bytes uint64
	for _, at := range []string{"", " and a restart"} {
		if got := waits(x.T, x.r); !slices.Equal(got, left) || x.r.Waiting() != uint64(len(left)) {
			x.Errorf("after %s%s: %d messages, %d waiting, want %d", when, at, len(got), x.r.Waiting(), len(left))
		}
		if got := waits(x.T, x.other); len(got) != 1000 || x.other.Waiting() != 1000 {
			x.Errorf("after %s%s: the other reader has %d messages, %d waiting", when, at, len(got), x.other.Waiting())
		}
		if at == "" {
			bytes = x.r.WaitingBytes()
			x.close()
			x.open()
		} else if x.r.WaitingBytes() != bytes {
			x.Errorf("after %s: %d bytes wait, %d after a restart", when, bytes, x.r.WaitingBytes())
		}
	}
}

// What is removed from one reader is gone for it, before and after a restart;
// the others and the order do not change, and counts are right.
func TestRemove(t *testing.T) {
	x := &thinned{T: t, dir: t.TempDir() + "/q", cfg: Config{SegmentSize: 32 << 10, Match: prefixMatch}}
	x.open()
	removable(t, x.q, 1000, x.r, x.other)
	if x.q.Stats().Segments < 3 {
		t.Fatal("too few segments to test with")
	}
	loss, err := x.r.Remove(Selection{Filter: "alarm/", From: time.Unix(1300, 0)}, ^uint64(0), nil)
	want := Loss{Count: 234, Topics: []string{"alarm/a"}, From: time.Unix(1300, 0), To: time.Unix(1999, 0)}
	if err != nil || loss.Count != want.Count || !loss.From.Equal(want.From) || !loss.To.Equal(want.To) || !slices.Equal(loss.Topics, want.Topics) {
		t.Fatalf("removed %+v, %v", loss, err)
	}
	x.check("removing", numbers(1000, func(i int) bool { return i < 300 || i%3 != 0 }))

	// From within a segment, with a second removal behind the first.
	x.r.Ack(take(t, x.r, 0, 322)[321].Seq)
	if x.r.Acked() != 333 { // 11 up to there were removed
		t.Fatalf("the cursor is at %d", x.r.Acked())
	}
	if _, err := x.r.Remove(Selection{Filter: "plant/", To: time.Unix(1500, 0)}, 450, nil); err != nil {
		t.Fatal(err)
	}
	left := numbers(1000, func(i int) bool { return i >= 450 && i%3 != 0 })
	if got := x.r.Acked(); got != 451 { // 449 and 450, the sequences 450 and 451, are gone; 451 waits
		t.Errorf("the cursor is at %d", got)
	}
	x.check("removing again", left)
	x.r.Ack(take(t, x.r, x.r.Acked(), 10)[9].Seq)
	x.check("an acknowledgement", left[10:])

	// The rest at once: the cursor passes it, and nothing of it stays behind.
	if loss, err := x.r.Remove(Selection{}, ^uint64(0), nil); err != nil || loss.Count != uint64(len(left)-10) {
		t.Errorf("removed %+v, %v", loss, err)
	}
	if x.r.Acked() != x.q.Stats().Last {
		t.Errorf("the cursor is at %d", x.r.Acked())
	}
	x.check("removing all", nil)
	mustAppend(t, x.q, note(7, x.r))
	x.check("one more", []string{"7"})
	x.cfg.Match = nil
	x.close()
	x.open() // removals that are done no longer ask for filters
	x.close()
}

// What Remove changes in the state is there if what it removed is gone.
func TestRemoveChangesState(t *testing.T) {
	q := openTest(t, t.TempDir()+"/q", Config{Match: prefixMatch})
	r := mustReader(t, q, "r")
	removable(t, q, 30, r)
	_, err := r.Remove(Selection{Filter: "alarm/"}, 15, func(l Loss) []Change { return []Change{{"losses", "1", fmt.Append(nil, l.Count)}} })
	if err != nil {
		t.Fatal(err)
	}
	err = q.State("losses", func(k string, v []byte) error {
		if k != "1" || string(v) != "5" {
			t.Errorf("%s: %s", k, v)
		}
		return nil
	})
	if err != nil || r.Waiting() != 25 {
		t.Errorf("%v, %d wait", err, r.Waiting())
	}
}

// Removing while messages are out: what was acknowledged meanwhile is not
// counted, what is acknowledged later changes nothing.
func TestRemoveBesideNext(t *testing.T) {
	q := openTest(t, t.TempDir()+"/q", Config{Match: prefixMatch})
	r := mustReader(t, q, "r")
	removable(t, q, 100, r)
	out := take(t, r, 0, 30)
	r.Ack(10)
	loss, err := r.Remove(Selection{Filter: "alarm/"}, ^uint64(0), func(Loss) []Change {
		r.Ack(20) // while it is committed
		return nil
	})
	if err != nil || loss.Count != 34-7 || r.Waiting() != 80-27 {
		t.Fatalf("removed %+v, %v; %d wait", loss, err, r.Waiting())
	}
	r.Ack(out[29].Seq)
	if r.Waiting() != 70-24 {
		t.Errorf("%d wait, want %d", r.Waiting(), 70-24)
	}
	rest := take(t, r, 30, 100)
	if len(rest) != 46 || rest[0].Topic != "plant/a" {
		t.Errorf("%d messages, the first on %s", len(rest), rest[0].Topic)
	}
	r.Ack(rest[45].Seq)
	if r.Waiting() != 0 {
		t.Errorf("%d wait at the end", r.Waiting())
	}
}

// Peek sees what Next has given out, and takes nothing from it.
func TestPeek(t *testing.T) {
	q := openTest(t, t.TempDir()+"/q", Config{})
	r := mustReader(t, q, "r")
	for i := range 5 {
		mustAppend(t, q, note(i, r))
	}
	first := take(t, r, 0, 3)
	if got := waits(t, r); len(got) != 5 {
		t.Errorf("peeked at %v", got)
	}
	r.Ack(first[2].Seq)
	if r.Waiting() != 2 || r.WaitingBytes() == 0 {
		t.Errorf("%d wait", r.Waiting())
	}
}
