package storequeue

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// big is a message of about a thousand bytes on a topic of its own.
func big(n int, readers ...*Reader) Message {
	m := note(n, readers...)
	m.Topic = fmt.Sprintf("plant/%d", n)
	m.Payload = append(m.Payload, make([]byte, 1000-len(m.Payload))...)
	return m
}

// drainAll reads and acknowledges all that waits for r.
func drainAll(t *testing.T, r *Reader) (seqs []uint64) {
	t.Helper()
	for {
		msgs := take(t, r, r.Acked(), 100)
		if len(msgs) == 0 {
			return seqs
		}
		for _, m := range msgs {
			seqs = append(seqs, m.Seq)
		}
		r.Ack(msgs[len(msgs)-1].Seq)
	}
}

func stats(t *testing.T, q *Queue, name string) ReaderStats {
	t.Helper()
	all := q.Stats().Readers
	i := slices.IndexFunc(all, func(r ReaderStats) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("no reader %s", name)
	}
	return all[i]
}

func lostBy(t *testing.T, q *Queue) map[string]uint64 {
	t.Helper()
	losses, err := q.Losses(nil)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]uint64{}
	for _, l := range losses {
		by[l.Reader+" "+string(l.Reason)] += l.Count
	}
	return by
}

// A reader that refuses takes what fits and no more; others are not hurt, not
// even in the same commit, and everybody is answered in turn.
func TestRefuse(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	full, other := mustReader(t, q, "full"), mustReader(t, q, "other")
	full.Limit(Limits{MaxBytes: 50 << 10})
	var order []int
	var refused, stored int
	answered := make(chan struct{})
	const n = 200
	q.filling.mu.Lock() // one batch
	for i := range n {
		to := []*Reader{full}
		if i%2 == 1 {
			to = []*Reader{other}
		}
		m := big(i, to...)
		m.Time = now()
		q.filling.batch.add(&m, func(seq uint64, err error) {
			order = append(order, i)
			switch {
			case err == nil && seq > 0:
				stored++
			case errors.Is(err, ErrFull) && i%2 == 0:
				refused++
			default:
				t.Errorf("message %d: %d, %v", i, seq, err)
			}
			if i == n-1 {
				close(answered)
			}
		})
	}
	q.filling.work.Signal()
	q.filling.mu.Unlock()
	<-answered
	if !slices.IsSorted(order) || len(order) != n {
		t.Errorf("answered in the order %v", order)
	}
	if refused < 40 || refused > 70 || stored+refused != n || q.Stats().Refused != uint64(refused) {
		t.Errorf("%d stored, %d refused", stored, refused)
	}
	if got := q.Stats().Payload; got != uint64(stored)*1000 {
		t.Errorf("%d bytes of payload, where %d were stored", got, stored*1000)
	}
	st := stats(t, q, "full")
	if st.Bytes > 66<<10 || st.Bytes < 40<<10 || st.Waiting != uint64(n/2-refused) || stats(t, q, "other").Waiting != n/2 {
		t.Errorf("%+v", st)
	}
	drainAll(t, full)
	mustAppend(t, q, big(n, full))
	if by := lostBy(t, q); len(by) != 0 {
		t.Errorf("lost: %v", by)
	}
}

// A reader that drops keeps the newest, not more than it may have, and nothing
// of what it was shown goes.
func TestDropOldest(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{SegmentSize: 64 << 10})
	r, other := mustReader(t, q, "r"), mustReader(t, q, "other")
	r.Limit(Limits{MaxBytes: 100 << 10, WhenFull: DropOldest})
	for i := range 10 {
		mustAppend(t, q, big(i, r, other))
	}
	shown := take(t, r, 0, 5)
	for i := 10; i < 500; i++ {
		mustAppend(t, q, big(i, r, other))
	}
	q.keep(true)
	st := stats(t, q, "r")
	lost := st.Lost[ReasonFull]
	if st.Bytes > 100<<10 || st.Bytes < 80<<10 || lost+st.Waiting != 500 || st.In != 500 || st.Out != lost {
		t.Fatalf("%+v", st)
	}
	if other := stats(t, q, "other"); other.Waiting != 500 || other.Lost != nil {
		t.Errorf("%+v", other)
	}
	losses, err := q.Losses(nil)
	if err != nil || len(losses) != 1 || losses[0].Count != lost || len(losses[0].Topics) != 10 || losses[0].Topics[0] != "plant/5" {
		t.Errorf("%+v, %v", losses, err)
	}
	again := take(t, r, 0, 5)
	if got, want := payloads(again), payloads(shown); !slices.Equal(got, want) {
		t.Errorf("shown again: %v", got)
	}
	q.Close()

	q = openTest(t, dir, Config{SegmentSize: 64 << 10})
	r = mustReader(t, q, "r")
	if w := stats(t, q, "r").Waiting; w != st.Waiting {
		t.Errorf("%d wait after a reopening, %d before", w, st.Waiting)
	}
	seqs := drainAll(t, r)
	if uint64(len(seqs)) != st.Waiting || seqs[4] != 5 || seqs[5] != 6+lost || seqs[len(seqs)-1] != 500 {
		t.Errorf("%d come: %v", len(seqs), seqs)
	}
	if by := lostBy(t, q); by["r max_size"] != lost || len(by) != 1 {
		t.Errorf("lost: %v, want %d", by, lost)
	}
	if len(drainAll(t, mustReader(t, q, "other"))) != 500 {
		t.Error("the other one lost something")
	}
}

// When the queue is full, those that drop give way, the lowest priority first,
// and nobody else loses anything.
func TestFullQueue(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{SegmentSize: 512 << 10, MaxSize: 4 << 20})
	keep, high, low := mustReader(t, q, "keep"), mustReader(t, q, "high"), mustReader(t, q, "low")
	keep.Limit(Limits{})
	high.Limit(Limits{WhenFull: DropOldest, Priority: 5})
	low.Limit(Limits{WhenFull: DropOldest, Priority: 1})
	all := []*Reader{keep, high, low}
	kept := 0
	for i := range 800 {
		r := all[i%3]
		if r == keep && kept >= 100 {
			r = low
		} else if r == keep {
			kept++
		}
		m := big(i, r)
		m.Payload = append(m.Payload, make([]byte, 15<<10)...)
		mustAppend(t, q, m)
		if used := q.diskBytes(); used > 4<<20 {
			t.Fatalf("%d bytes used after %d", used, i)
		}
	}
	if st := stats(t, q, "keep"); st.Waiting != 100 || st.Lost != nil {
		t.Errorf("%+v", st)
	}
	h, l := stats(t, q, "high"), stats(t, q, "low")
	if l.Lost[ReasonFull] == 0 || h.Lost[ReasonFull] > 0 && l.Waiting > 20 {
		t.Errorf("high %+v\nlow %+v", h, l)
	}
	if by := lostBy(t, q); by["low max_size"] != l.Lost[ReasonFull] || by["high max_size"] != h.Lost[ReasonFull] {
		t.Errorf("lost: %v", by)
	}
	if q.Stats().Compactions == 0 {
		t.Error("no segment was compacted")
	}
	if n := len(drainAll(t, keep)); n != 100 {
		t.Errorf("%d of 100 come", n)
	}
}

// Nothing gives way: the queue is full, but for what the gateway says itself.
func TestReserve(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{SegmentSize: 64 << 10, MaxSize: 512 << 10})
	r := mustReader(t, q, "r")
	r.Limit(Limits{})
	var err error
	for i := 0; err == nil; i++ {
		err = q.Append(t.Context(), big(i, r))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	own := big(0, r)
	own.Own = true
	n := 0
	for err = nil; err == nil; n++ {
		err = q.Append(t.Context(), own)
	}
	if !errors.Is(err, ErrFull) || n < 200 || n > 1100 {
		t.Errorf("%d times, then %v", n, err)
	}
	if err := q.HasRoom(); !errors.Is(err, ErrFull) {
		t.Errorf("room: %v", err)
	}
}

// What is too old goes, and what has expired, each counted for what it is.
func TestAge(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{SegmentSize: 32 << 10})
	r := mustReader(t, q, "r")
	r.Limit(Limits{MaxAge: time.Hour})
	start := now()
	put := func(n int, age, expiry time.Duration) {
		for i := range n {
			m := big(i, r)
			m.Time = start.Add(-age)
			if i%2 == 1 {
				m.Origin = fmt.Sprint("elsewhere/221846/", i) // it was imported
			}
			if expiry > 0 {
				m.Expires = m.Time.Add(expiry)
			}
			mustAppend(t, q, m)
		}
	}
	put(30, 2*time.Hour, 0)
	put(20, 10*time.Minute, time.Minute)
	put(10, 10*time.Minute, time.Hour)
	put(10, 0, 0)
	q.keep(true)
	st := stats(t, q, "r")
	want := map[Reason]uint64{ReasonAge: 30, ReasonExpired: 20}
	if st.Waiting != 20 || !maps.Equal(st.Lost, want) {
		t.Fatalf("%+v", st)
	}
	if st.Oldest.Sub(start.Add(-10*time.Minute)).Abs() > time.Second {
		t.Errorf("the oldest is of %v, now is %v", st.Oldest, start)
	}
	if n := len(drainAll(t, r)); n != 20 {
		t.Errorf("%d come", n)
	}
}

// A clock that was wrong and is set makes nothing old.
func TestClockIsSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	real := time.Now()
	for _, tt := range []struct {
		name       string
		then       time.Duration // what the clock showed when it was accepted, from now
		by         time.Duration // it was set since
		want, most time.Duration
	}{
		{"right", -time.Hour, 0, time.Hour, time.Hour},
		{"was in 1970, is set", -56 * year, 56 * year, 0, time.Minute},
		{"leaps ahead", -time.Minute - 70*year, 70 * year, time.Minute, 2 * time.Minute},
		{"is set back", 2 * time.Hour, -3 * time.Hour, time.Hour, 2 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c clock
			if err := c.start(nil, 0); err != nil {
				t.Fatal(err)
			}
			if tt.by != 0 {
				c.note(10, tt.by)
			}
			if age := c.age(5, real.Add(tt.then), real).Round(time.Second); age < tt.want || age > tt.most {
				t.Errorf("age is %v", age)
			}
			if age := c.age(11, real.Add(-time.Hour), real).Round(time.Second); age != time.Hour {
				t.Errorf("of what came after it: %v", age)
			}
			var again clock
			if err := again.start(c.encode(real), 20); err != nil || !slices.Equal(again.steps, c.steps) {
				t.Errorf("kept: %v, %v", again.steps, err)
			}
		})
	}
	t.Run("over a stop", func(t *testing.T) {
		for _, tt := range []struct {
			stopped time.Duration
			step    bool
		}{{time.Hour, false}, {20 * 24 * time.Hour, false}, {50 * year, true}, {-time.Hour, true}} {
			var before, after clock
			before.start(nil, 0)
			if err := after.start(before.encode(time.Now().Add(-tt.stopped)), 7); err != nil {
				t.Fatal(err)
			}
			if got := len(after.steps) == 1; got != tt.step {
				t.Errorf("a stop of %v: steps %v", tt.stopped, after.steps)
			}
		}
	})
}

// What was skipped behind messages that were shown and never acknowledged is
// counted once, also when a restart forgets that they were shown and they are
// skipped too.
func TestSkippedBeforeRestart(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{SegmentSize: 64 << 10})
	r := mustReader(t, q, "r")
	const n = 100
	for i := range n {
		mustAppend(t, q, big(i, r))
	}
	take(t, r, 0, 30)
	if _, _, err := r.shed(20<<10, n); err != nil {
		t.Fatal(err)
	}
	skipped := lostBy(t, q)["r max_size"]
	if skipped < 15 || skipped > 25 {
		t.Fatalf("%d skipped", skipped)
	}
	for _, want := range []uint64{10 << 10, 30 << 10} { // some of what was shown, and all of it
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = openTest(t, dir, Config{SegmentSize: 64 << 10})
		r = mustReader(t, q, "r")
		if _, _, err := r.shed(want, n); err != nil {
			t.Fatal(err)
		}
	}
	lost := lostBy(t, q)["r max_size"]
	if waiting := r.Waiting(); lost+waiting != n || lost <= skipped+30 {
		t.Errorf("%d lost, %d before the restarts, and %d waiting of %d", lost, skipped, waiting, n)
	}
	if seqs := drainAll(t, r); uint64(len(seqs)) != n-lost {
		t.Errorf("%d lost, and %d came of %d", lost, len(seqs), n)
	}
}

// However much of the log is for others, what is too old behind it is found.
func TestAgeBehindOthers(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{SegmentSize: 4 * shedBytes})
	r, other := mustReader(t, q, "r"), mustReader(t, q, "other")
	r.Limit(Limits{MaxAge: time.Minute})
	for i := range 6 {
		m := big(i, other)
		m.Payload = make([]byte, shedBytes/4)
		mustAppend(t, q, m)
	}
	old := big(6, r)
	old.Time = now().Add(-time.Hour)
	mustAppend(t, q, old)
	if _, more, err := r.shed(0, 0); more || err != nil {
		t.Errorf("more: %v, %v", more, err)
	}
	if by := lostBy(t, q); by["r max_age"] != 1 {
		t.Errorf("lost: %v", by)
	}
}

// What was skipped does not come to a reader that goes on from the last message
// it was shown, whatever was acknowledged meanwhile.
func TestSkippedStaysSkipped(t *testing.T) {
	q := openTest(t, t.TempDir(), Config{})
	r := mustReader(t, q, "r")
	const n = 2 * aheadMost
	var all []Message
	for i := range n {
		all = append(all, big(i, r))
	}
	mustAppend(t, q, all...)
	at := uint64(0)
	for _, acked := range []bool{false, true} { // when it is skipped
		shown := take(t, r, at, 5)
		at = shown[len(shown)-1].Seq
		if acked {
			r.Ack(at)
		}
		if _, _, err := r.shed(5<<10, n); err != nil {
			t.Fatal(err)
		}
		r.Ack(at)
	}
	lost := lostBy(t, q)["r max_size"]
	rest := take(t, r, at, n)
	if lost == 0 || uint64(len(rest))+10+lost != n {
		t.Errorf("%d lost, and %d come after the first 10 of %d", lost, len(rest), n)
	}
	if _, _, err := r.shed(1, n); err != nil || r.More(rest[len(rest)-1].Seq) {
		t.Errorf("more, %v", err)
	}
	mustAppend(t, q, big(n, r))
	at = rest[len(rest)-1].Seq
	r.Ack(at)
	if _, _, err := r.shed(1, n+1); err != nil || r.More(at) {
		t.Errorf("more behind %d where nothing waits, %v", at, err)
	}
}
