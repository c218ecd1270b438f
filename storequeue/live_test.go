package storequeue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func seqsOf(t *testing.T, msgs []Message, err error) (all []uint64) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		all = append(all, m.Seq, m.Prev)
	}
	return all
}

// What comes after Split is a Live's; what it did is done when the reader comes
// there, and each message names the one before it.
func TestLive(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	r, other := mustReader(t, q, "link"), mustReader(t, q, "other")
	imported := note(3, r)
	imported.Origin = "elsewhere/1/9"
	mustAppend(t, q, note(1, r), note(2, r), imported, note(4, r), note(5, other))
	l := r.Live()
	l.Split(0, nil)
	mustAppend(t, q, note(6, r), note(7, other), note(8, r))
	check := func(what string, got []uint64, want ...uint64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: sequences and what they follow: %v, want %v", what, got, want)
		}
	}
	poll := func(l interface {
		Poll(uint64, int) ([]Message, error)
	}, after uint64) []uint64 {
		t.Helper()
		msgs, err := l.Poll(after, 9)
		return seqsOf(t, msgs, err)
	}
	check("new ones", poll(l, l.Acked()), 6, 4, 8, 6)
	check("what waited", poll(r, 0), 1, 0, 2, 1, 3, 2, 4, 2)
	check("no more of that", poll(r, 4))
	l.Ack(6)
	if r.Acked() != 0 || r.Waiting() != 5 || l.Waiting() != 1 {
		t.Errorf("acknowledged up to %d, %d wait, %d of them new", r.Acked(), r.Waiting(), l.Waiting())
	}
	r.Ack(2)
	mustAppend(t, q, note(9, r)) // away from here on: 8 had been given out
	l.Split(0, nil)
	mustAppend(t, q, note(10, r))
	check("what was given out, then new ones", poll(l, l.Acked()), 8, 6)
	check("new ones", poll(l, 8), 10, 9)
	check("the rest", poll(r, r.Acked()), 3, 2, 4, 2, 9, 4)
	r.Ack(9)
	if r.Acked() != 6 || r.Settled(1, 8) || !r.Settled(7, 7) && r.Settled(1, 1) {
		t.Errorf("acknowledged up to %d although 8 is not", r.Acked())
	}
	l.Ack(10)
	if r.Acked() != 10 || r.Waiting() != 0 {
		t.Errorf("all is done: acknowledged up to %d, %d wait", r.Acked(), r.Waiting())
	}
	if err := q.flushCursors(); err != nil || !r.Settled(1, 10) {
		t.Errorf("not settled: %v", err)
	}
	l.Split(5, nil)
	mustAppend(t, q, note(11, r))
	check("in order again", poll(l, l.Acked()), 11, 10)
}

// A few that wait are sent in order, as long as nothing behind them was.
func TestLiveInOrder(t *testing.T) {
	dir := t.TempDir()
	q := openTest(t, dir, Config{})
	r := mustReader(t, q, "link")
	l := r.Live()
	mustAppend(t, q, note(1, r), note(2, r))
	l.Split(2, nil)
	if got := seqsOf(t, must(l.Poll(l.Acked(), 9)), nil); !slices.Equal(got, []uint64{1, 0, 2, 1}) || r.More(0) {
		t.Fatalf("got %v", got)
	}
	mustAppend(t, q, note(3, r))
	l.Split(2, nil) // three wait: two that were given out, and one
	mustAppend(t, q, note(4, r))
	if got := seqsOf(t, must(l.Poll(l.Acked(), 9)), nil); !slices.Equal(got, []uint64{1, 0, 2, 1}) {
		t.Fatalf("got %v", got)
	}
	if got := seqsOf(t, must(r.Poll(r.Acked(), 9)), nil); !slices.Equal(got, []uint64{3, 0}) && !slices.Equal(got, []uint64{3, 2}) {
		t.Fatalf("got %v", got)
	}
	l.Ack(4)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openTest(t, dir, Config{})
	r = mustReader(t, q, "link")
	l = r.Live()
	l.Split(9, nil) // 4 was done before 3
	if l.Acked() != 4 || r.Acked() != 2 || r.Waiting() != 1 {
		t.Errorf("live at %d, the rest at %d, %d wait", l.Acked(), r.Acked(), r.Waiting())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A liveModel is a reader with both of its places, and what became of each
// message.
type liveModel struct {
	t    *testing.T
	rnd  *rand.Rand
	q    *Queue
	dir  string
	r    *Reader
	live *Live

	all  []uint64        // for r, behind what is done on disk
	done map[uint64]bool // of these: acknowledged, or lost
	sent [2][]uint64     // of what was polled on this connection at each place and has no answer
	at   [2]uint64       // polled up to here
}

func (m *liveModel) place(i int) interface {
	Poll(uint64, int) ([]Message, error)
	Ack(uint64)
	Acked() uint64
} {
	if i == 0 {
		return m.live
	}
	return m.r
}

func (m *liveModel) connect(few uint64) {
	m.live.Split(few, nil)
	for i := range m.at {
		m.at[i], m.sent[i] = m.place(i).Acked(), nil
	}
}

func (m *liveModel) poll(i int) {
	msgs := must(m.place(i).Poll(m.at[i], 1+m.rnd.IntN(10)))
	for _, msg := range msgs {
		switch {
		case msg.Seq <= m.at[i]:
			m.t.Fatalf("place %d: %d after %d", i, msg.Seq, m.at[i])
		case m.done[msg.Seq]:
			m.t.Fatalf("place %d: %d is done", i, msg.Seq)
		case slices.Contains(m.sent[1-i], msg.Seq):
			m.t.Fatalf("place %d: %d was given out at the other", i, msg.Seq)
		}
		m.at[i] = msg.Seq
		m.sent[i] = append(m.sent[i], msg.Seq)
	}
}

// answer acknowledges some of what was sent, from the oldest on.
func (m *liveModel) answer(i int) {
	if len(m.sent[i]) == 0 {
		return
	}
	n := 1 + m.rnd.IntN(len(m.sent[i]))
	m.place(i).Ack(m.sent[i][n-1])
	for _, seq := range m.sent[i][:n] {
		m.done[seq] = true
	}
	m.sent[i] = m.sent[i][n:]
}

func (m *liveModel) append() {
	for range 1 + m.rnd.IntN(4) {
		msg := Message{Topic: "t", Payload: make([]byte, m.rnd.IntN(300))}
		mine := m.rnd.IntN(4) > 0
		if mine {
			msg.For = []Mark{{Reader: m.r.ID()}}
		}
		mustAppend(m.t, m.q, msg)
		if mine {
			m.all = append(m.all, m.q.committed.Load())
		}
	}
}

// shed drops the oldest that were not given out.
func (m *liveModel) shed() {
	before := map[uint64]bool{}
	for _, seq := range m.waiting() {
		before[seq] = true
	}
	n, _, err := m.r.shed(uint64(m.rnd.IntN(500)), nowhere)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, seq := range m.waiting() {
		delete(before, seq)
	}
	for seq := range before {
		m.done[seq] = true
		if slices.Contains(m.sent[0], seq) || slices.Contains(m.sent[1], seq) {
			m.t.Fatalf("%d was dropped in flight", seq)
		}
	}
	if n != uint64(len(before)) {
		m.t.Fatalf("%d dropped, and %d are gone", n, len(before))
	}
}

func (m *liveModel) waiting() (seqs []uint64) {
	for after := uint64(0); ; after = seqs[len(seqs)-1] {
		msgs := must(m.r.Peek(after, 1000))
		if len(msgs) == 0 {
			return seqs
		}
		for _, msg := range msgs {
			seqs = append(seqs, msg.Seq)
		}
	}
}

// check compares what waits with what is not done.
func (m *liveModel) check(step int) {
	m.t.Helper()
	onDisk := m.r.place().acked
	m.all = slices.DeleteFunc(m.all, func(seq uint64) bool {
		if seq <= onDisk {
			delete(m.done, seq)
		}
		return seq <= onDisk
	})
	var want []uint64
	for _, seq := range m.all {
		if !m.done[seq] {
			want = append(want, seq)
		}
	}
	if got := m.waiting(); !slices.Equal(got, want) {
		m.t.Fatalf("step %d: waiting %v, want %v; leases %+v", step, got, want, m.r.leases)
	}
	if n := m.r.Waiting(); n != uint64(len(want)) {
		m.t.Fatalf("step %d: %d count as waiting, %d are; %+v", step, n, len(want), m.r.leases)
	}
	if m.live.Waiting() > m.r.Waiting() {
		m.t.Fatalf("step %d: %d of %d are new", step, m.live.Waiting(), m.r.Waiting())
	}
}

// crash goes on with what is on disk at this moment, or after an orderly end.
func (m *liveModel) crash(number int, hard bool) {
	dir := filepath.Join(filepath.Dir(m.dir), fmt.Sprint(number))
	if !hard {
		dir = m.dir
	} else {
		m.copyTo(dir)
	}
	if err := m.q.Close(); err != nil {
		m.t.Fatal(err)
	}
	if hard {
		os.RemoveAll(m.dir)
	}
	m.dir = dir
	m.q = openTest(m.t, dir, Config{SegmentSize: 4 << 10})
	m.r = mustReader(m.t, m.q, "link")
	m.live = m.r.Live()
	if !hard {
		return
	}
	for _, seq := range m.waiting() { // it comes again
		delete(m.done, seq)
	}
}

func (m *liveModel) copyTo(dir string) {
	m.q.keeping.Lock()
	defer m.q.keeping.Unlock()
	m.q.state.turn.Lock()
	defer m.q.state.turn.Unlock()
	entries, err := os.ReadDir(m.dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		(&limitsModel{t: m.t}).copyUsed(filepath.Join(dir, e.Name()), filepath.Join(m.dir, e.Name()))
	}
}

// Whatever is polled, acknowledged, dropped and cut: each message is given out
// and acknowledged, or counted as lost; nothing that is done comes again, save
// after a crash.
func TestLiveModel(t *testing.T) {
	steps := 3000
	if os.Getenv("PROVE") != "" {
		steps = 20_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &liveModel{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), dir: filepath.Join(memoryDir(t), "0"), done: map[uint64]bool{}}
	m.q = openTest(t, m.dir, Config{SegmentSize: 4 << 10})
	m.r = mustReader(t, m.q, "link")
	m.live = m.r.Live()
	m.connect(0)
	for step := range steps {
		switch op := m.rnd.IntN(40); {
		case op < 12:
			m.append()
		case op < 24:
			m.poll(op % 2)
		case op < 34:
			m.answer(op % 2)
		case op < 36:
			m.connect(uint64(m.rnd.IntN(20)))
		case op < 37:
			m.shed()
		case op < 38 && m.rnd.IntN(4) == 0:
			m.crash(step, m.rnd.IntN(2) == 0)
			m.connect(0)
		}
		m.check(step)
	}
	m.connect(nowhere)
	for n := 2 * len(m.all); n > 0 && m.r.Waiting() > 0; n-- {
		for i := range 2 {
			m.poll(i)
			m.answer(i)
		}
	}
	if left := m.waiting(); len(left) > 0 {
		t.Errorf("never delivered: %v, leases %+v, acked %d", left, m.r.leases, m.r.acked)
	}
	if err := m.q.Check(); err != nil {
		t.Error(err)
	}
}
