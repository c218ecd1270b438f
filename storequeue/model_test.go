package storequeue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// model is the queue as anyone would write it on a blackboard.
type model struct {
	base    uint64         // sequences up to it are behind everybody
	log     []modelMessage // index i holds sequence base+i+1
	readers map[string]*modelReader
}

type modelMessage struct {
	payload string
	readers []*modelReader
}

type modelReader struct{ acked uint64 }

func (m *model) waiting(r *modelReader, limit int) []string {
	var out []string
	for _, msg := range m.log[r.acked-m.base:] {
		if len(out) < limit && slices.Contains(msg.readers, r) {
			out = append(out, msg.payload)
		}
	}
	return out
}

func (m *model) last() uint64 { return m.base + uint64(len(m.log)) }

// trim forgets what is behind everybody.
func (m *model) trim() {
	low := m.last()
	for _, r := range m.readers {
		low = min(low, r.acked)
	}
	m.log = m.log[low-m.base:]
	m.base = low
}

// Random operations on a queue and on the model; after each the readers see
// the same.
func TestModel(t *testing.T) {
	steps := 3000
	if os.Getenv("PROVE") != "" {
		steps = 100_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	dir := memoryDir(t)
	cfg := Config{SegmentSize: 2 << 10}
	q := openTest(t, dir, cfg)
	m := &model{readers: map[string]*modelReader{}}
	names := []string{"link/cloud", "session/a", "session/b"}
	for step := range steps {
		name := names[rnd.IntN(len(names))]
		switch op := rnd.IntN(20); {
		case op < 9:
			modelAppend(t, q, m, rnd, step)
		case op < 13:
			modelRead(t, q, m, name, rnd)
		case op < 17:
			if r := m.readers[name]; r != nil {
				to := m.base + rnd.Uint64N(uint64(len(m.log))+1)
				mustReader(t, q, name).Ack(to)
				r.acked = max(r.acked, to)
				m.trim()
			}
		case op == 17:
			if m.readers[name] == nil {
				r := mustReader(t, q, name)
				m.readers[name] = &modelReader{acked: r.Acked()}
				if r.Acked() != m.last() {
					t.Fatalf("step %d: new reader at %d, want %d", step, r.Acked(), m.last())
				}
			}
		case op == 18 && rnd.IntN(4) == 0:
			if m.readers[name] != nil {
				if err := q.Forget(mustReader(t, q, name)); err != nil {
					t.Fatal(err)
				}
				delete(m.readers, name)
			}
		case op == 19 && rnd.IntN(4) == 0:
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			cfg = modelKeys(t, dir, cfg, rnd)
			q = openTest(t, dir, cfg)
		}
	}
	if err := q.Check(); err != nil {
		t.Error(err)
	}
}

// modelKeys sometimes changes how a closed queue is encrypted: on, off, another
// key, or a crash while it gets one.
func modelKeys(t *testing.T, dir string, cfg Config, rnd *rand.Rand) Config {
	t.Helper()
	switch op := rnd.IntN(6); {
	case op == 0:
		cfg.Encrypt = !cfg.Encrypt
		if cfg.Key == nil {
			cfg.Key = NewKey()
		}
	case op < 3 && cfg.Encrypt:
		next, crash := NewKey(), error(nil)
		if rnd.IntN(2) == 0 {
			crash = errors.New("crash")
		}
		if err := Rekey(dir, cfg.Key, next, func() error { return crash }); !errors.Is(err, crash) {
			t.Fatal(err)
		}
		if crash == nil || rnd.IntN(2) == 0 {
			cfg.Key = next
		}
	}
	return cfg
}

func modelAppend(t *testing.T, q *Queue, m *model, rnd *rand.Rand, step int) {
	t.Helper()
	var msgs []Message
	for i := range 1 + rnd.IntN(5) {
		msg := Message{Topic: "t", Payload: fmt.Appendf(nil, "%d.%d", step, i)}
		logged := modelMessage{payload: string(msg.Payload)}
		for name, r := range m.readers {
			if rnd.IntN(2) == 0 {
				msg.For = append(msg.For, Mark{Reader: mustReader(t, q, name).ID()})
				logged.readers = append(logged.readers, r)
			}
		}
		m.log = append(m.log, logged)
		msgs = append(msgs, msg)
	}
	mustAppend(t, q, msgs...)
}

func modelRead(t *testing.T, q *Queue, m *model, name string, rnd *rand.Rand) {
	t.Helper()
	mr := m.readers[name]
	if mr == nil {
		return
	}
	r := mustReader(t, q, name)
	if r.Acked() != mr.acked {
		t.Fatalf("%s: acked %d, want %d", name, r.Acked(), mr.acked)
	}
	limit := 1 + rnd.IntN(20)
	got := payloads(take(t, r, mr.acked, limit))
	want := m.waiting(mr, limit)
	if !slices.Equal(got, want) {
		t.Fatalf("%s after %d: got %v, want %v", name, mr.acked, got, want)
	}
}
