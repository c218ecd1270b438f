package storequeue

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A limitsModel knows of each reader which messages it was promised and which
// it has seen. Whatever happens, those that it has not seen and that do not
// wait for it must be as many as were counted as lost.
type limitsModel struct {
	t   *testing.T
	rnd *rand.Rand
	cfg Config
	dir string
	q   *Queue

	readers map[string]*promised
	base    string // of dir
	refused int
	crashes int
	rekeyed int
	shrunk  uint64 // compactions of queues that are closed
}

type promised struct {
	seqs   []uint64 // that were acknowledged to whoever published them, and are not behind for good
	seen   map[uint64]bool
	high   uint64 // newest that it has seen
	total  uint64 // seen, of those that were taken off seqs
	struck uint64 // lost, and told
	missed uint64 // of those that were taken off seqs, not seen
	limits Limits
}

var limitReaders = []string{"link/a", "link/b", "link/c", "session/d"}

// Random operations under quotas, ages and expiries, with compactions, crashes,
// encryption switched on and off, and changes of keys, in two queues beside each
// other; PROVE is how many, if it is more than 1, and SEED begins them as another
// run began. What keeps the queue in order runs beside them, so that is not all.
func TestLimitsModel(t *testing.T) {
	steps := 3000
	if os.Getenv("PROVE") != "" {
		steps = 1_000_000
		if n, err := strconv.Atoi(os.Getenv("PROVE")); err == nil && n > 1 {
			steps = n
		} else if raceEnabled {
			steps = 200_000
		}
	}
	for i := range 2 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			runLimitsModel(t, steps/2)
		})
	}
}

func runLimitsModel(t *testing.T, steps int) {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	m := &limitsModel{
		t: t, rnd: rand.New(rand.NewPCG(seed, 2)), base: memoryDir(t), readers: map[string]*promised{},
		cfg: Config{SegmentSize: 64 << 10, MaxSize: 1 << 20, Key: NewKey()},
	}
	for _, name := range limitReaders {
		m.readers[name] = &promised{seen: map[uint64]bool{}}
	}
	m.reopen(filepath.Join(m.base, "0"))
	t.Cleanup(func() { m.q.Close() }) // if it failed
	for step := 0; step < steps || !m.whole() && step < 10*steps; step++ {
		m.step(step)
		if step%200 == 199 || step >= steps-1 {
			m.check(step)
		}
		if t.Failed() {
			t.Fatalf("step %d", step)
		}
	}
	var total uint64
	for _, p := range m.readers {
		total += p.total + uint64(len(p.seen))
	}
	whole := m.whole()
	m.close()
	t.Logf("%d seen, %d lost and told, %d refused, %d crashes, %d changes of keys, %d segments compacted", total, m.struck(), m.refused, m.crashes, m.rekeyed, m.shrunk)
	if !whole {
		t.Error("not all of it happened")
	}
}

// whole reports whether everything happened that this is about.
func (m *limitsModel) whole() bool {
	return m.shrunk+m.q.Stats().Compactions > 0 && m.crashes > 0 && m.rekeyed > 0 && m.refused > 0 && m.struck() > 0
}

func (m *limitsModel) struck() (n uint64) {
	for _, p := range m.readers {
		n += p.struck
	}
	return n
}

func (m *limitsModel) step(step int) {
	name := limitReaders[m.rnd.IntN(len(limitReaders))]
	r, p := mustReader(m.t, m.q, name), m.readers[name]
	switch op := m.rnd.IntN(1000); {
	case op < 300:
		m.append(step)
	case op < 600:
		m.read(r, p, 1+m.rnd.IntN(40))
	case op < 950:
		if p.high > r.Acked() && len(p.seqs) > 0 {
			r.Ack(r.Acked() + 1 + m.rnd.Uint64N(p.high-r.Acked()))
		}
	case op < 980:
		p.limits = m.limits()
		r.Limit(p.limits)
	case op < 986:
		m.q.keep(true)
	case op < 990:
		m.compact()
	case op < 994:
		m.tell(m.rnd.IntN(4) > 0)
	case op < 996:
		m.crash()
	case op < 998:
		m.close()
		m.rekey()
		m.reopen(m.dir)
	}
}

// compact shrinks what is mostly dead already.
func (m *limitsModel) compact() {
	m.q.keeping.Lock()
	defer m.q.keeping.Unlock()
	if _, err := m.q.compact(true); err != nil {
		m.t.Error(err)
	}
}

func (m *limitsModel) close() {
	m.shrunk += m.q.Stats().Compactions
	if err := m.q.Close(); err != nil {
		m.t.Error(err)
	}
}

// rekey switches encryption on or off, or changes its keys; once in a while
// whoever does it is not sure that he did.
func (m *limitsModel) rekey() {
	switch m.rnd.IntN(4) {
	case 0:
		return
	case 1:
		m.cfg.Encrypt = !m.cfg.Encrypt
		return
	}
	fit, err := Try(m.dir, m.cfg.Key)
	if err != nil {
		m.t.Error(err)
	}
	if fit != Fits || !m.cfg.Encrypt {
		return
	}
	next := NewKey()
	ends := []func() error{nil, nil, func() error { return nil }}
	for _, install := range ends[m.rnd.IntN(3):] {
		if err := Rekey(m.dir, m.cfg.Key, next, install); err != nil {
			m.t.Error(err)
			return
		}
	}
	m.rekeyed++
	m.cfg.Key = next
}

func (m *limitsModel) limits() Limits {
	l := Limits{Priority: m.rnd.IntN(3), WhenFull: WhenFull(m.rnd.IntN(2))}
	if m.rnd.IntN(2) == 0 {
		l.MaxBytes = 16<<10 + m.rnd.Int64N(256<<10)
	}
	if m.rnd.IntN(3) == 0 {
		l.MaxAge = time.Duration(1+m.rnd.IntN(100)) * time.Minute
	}
	return l
}

func (m *limitsModel) append(step int) {
	var stored []chan uint64
	var sent []Message
	for i := range 1 + m.rnd.IntN(20) {
		msg := Message{Topic: fmt.Sprintf("t/%d", m.rnd.IntN(20)), Payload: fmt.Appendf(make([]byte, 0, 1000), "%d.%d", step, i)}
		msg.Payload = msg.Payload[:len(msg.Payload)+m.rnd.IntN(800)]
		msg.Time = now().Add(-time.Duration(m.rnd.IntN(50)) * time.Minute)
		if m.rnd.IntN(5) == 0 {
			msg.Expires = msg.Time.Add(time.Duration(m.rnd.IntN(100)) * time.Minute)
		}
		if m.rnd.IntN(4) == 0 {
			msg.Origin = fmt.Sprintf("elsewhere/%d/%d", step, i) // it was imported
		}
		for _, name := range limitReaders {
			if m.rnd.IntN(3) == 0 {
				msg.For = append(msg.For, Mark{Reader: mustReader(m.t, m.q, name).ID()})
			}
		}
		done := make(chan uint64, 1)
		m.q.Submit(&msg, func(seq uint64, err error) {
			if err != nil && !errors.Is(err, ErrFull) {
				m.t.Error(err)
			}
			done <- seq
		})
		stored, sent = append(stored, done), append(sent, msg)
	}
	for i, done := range stored {
		seq := <-done
		if seq == 0 {
			m.refused++
			continue
		}
		for _, mark := range sent[i].For {
			for name, p := range m.readers {
				if mustReader(m.t, m.q, name).ID() == mark.Reader {
					p.seqs = append(p.seqs, seq)
				}
			}
		}
	}
}

// read reads on from what was read last, or again from the cursor.
func (m *limitsModel) read(r *Reader, p *promised, limit int) {
	after := p.high
	if m.rnd.IntN(10) == 0 {
		after = r.Acked()
	}
	for _, msg := range take(m.t, r, after, limit) {
		if _, ok := slices.BinarySearch(p.seqs, msg.Seq); !ok {
			m.t.Errorf("%s gets %d, which is not for it, or behind it", r.Name(), msg.Seq)
		}
		p.seen[msg.Seq] = true
		p.high = max(p.high, msg.Seq)
	}
}

// tell announces what was lost; cut leaves it at that, as a crash would.
func (m *limitsModel) tell(whole bool) {
	losses, err := m.q.Losses(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	told := mustReader(m.t, m.q, "lost")
	for _, l := range losses {
		note := Message{Topic: "lost", Note: []byte(l.ID), Own: true, For: []Mark{{Reader: told.ID()}}}
		if err := m.q.Append(m.t.Context(), note); errors.Is(err, ErrFull) {
			return
		} else if err != nil {
			m.t.Fatal(err)
		}
		m.readers[l.Reader].struck += l.Count
		if !whole {
			m.crash()
			return
		}
		m.strike()
	}
}

func (m *limitsModel) strike() {
	told := mustReader(m.t, m.q, "lost")
	for _, msg := range take(m.t, told, told.Acked(), 100) {
		if err := told.StrikeOut(msg.Seq, string(msg.Note)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// crash goes on with what is on disk at this moment.
func (m *limitsModel) crash() {
	m.crashes++
	dir := filepath.Join(m.base, strconv.Itoa(m.crashes))
	if err := os.Mkdir(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	m.q.keeping.Lock()
	m.q.state.turn.Lock()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), tmpSuffix) { // a copy of the state that is being made, and may be gone by now
			m.copyUsed(filepath.Join(dir, e.Name()), filepath.Join(m.dir, e.Name()))
		}
	}
	m.q.state.turn.Unlock()
	m.q.keeping.Unlock()
	m.close()
	os.RemoveAll(m.dir)
	m.dir = dir
	m.rekey()
	m.reopen(dir)
}

// copyUsed copies what of a file is in use; the rest is room to grow.
func (m *limitsModel) copyUsed(to, from string) {
	f := openFile(m.t, from)
	defer f.Close()
	metas := readMetas(f)
	if len(metas) == 0 {
		m.t.Fatalf("%s is damaged", from)
	}
	data := make([]byte, int64(metas[0].end)*metas[0].pageSize)
	if _, err := f.ReadAt(data, 0); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// reopen reads again what was seen before it lets limits hold: what the cloud
// got and did not acknowledge in time would else be lost and seen. Or nobody
// remembers that it was seen: then it comes again, or is lost.
func (m *limitsModel) reopen(dir string) {
	var err error
	m.dir = dir
	if m.q, err = Open(dir, m.cfg); err != nil {
		m.t.Fatal(err)
	}
	m.strike()
	for _, name := range limitReaders {
		r, p := mustReader(m.t, m.q, name), m.readers[name]
		if m.rnd.IntN(2) == 0 {
			p.high = 0
			maps.DeleteFunc(p.seen, func(seq uint64, _ bool) bool { return seq > r.Acked() })
		}
		for after := r.Acked(); after < p.high; {
			msgs := take(m.t, r, after, 50)
			if len(msgs) == 0 {
				break
			}
			for _, msg := range msgs {
				p.seen[msg.Seq] = true
				p.high = max(p.high, msg.Seq)
			}
			after = msgs[len(msgs)-1].Seq
		}
		r.Limit(p.limits)
	}
}

func (m *limitsModel) check(step int) {
	m.q.keeping.Lock()
	defer m.q.keeping.Unlock()
	losses, err := m.q.Losses(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for name, p := range m.readers {
		lost := p.struck
		for _, l := range losses {
			if l.Reader == name {
				lost += l.Count
			}
		}
		r := mustReader(m.t, m.q, name)
		waits := map[uint64]bool{}
		for after := r.Acked(); ; {
			msgs, err := r.Peek(after, 1000)
			if err != nil || len(msgs) == 0 {
				break
			}
			for _, msg := range msgs {
				waits[msg.Seq] = true
			}
			after = msgs[len(msgs)-1].Seq
		}
		missing, behind := p.missed, r.Flushed()
		p.seqs = slices.DeleteFunc(p.seqs, func(seq uint64) bool {
			if !p.seen[seq] && !waits[seq] {
				missing++
				if seq <= behind {
					p.missed++
				}
			}
			if seq <= behind && p.seen[seq] {
				delete(p.seen, seq)
				p.total++
			}
			return seq <= behind
		})
		if missing != lost {
			m.t.Errorf("step %d: %s misses %d messages, and %d are counted as lost", step, name, missing, lost)
		}
	}
	if err := m.q.Check(); err != nil && !strings.Contains(err.Error(), "closed") {
		m.t.Errorf("step %d: %v", step, err)
	}
}
