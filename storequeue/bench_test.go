package storequeue

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// openBench opens a queue, encrypted if ENCRYPT is set.
func openBench(b *testing.B) *Queue {
	b.Helper()
	cfg := Config{}
	if os.Getenv("ENCRYPT") != "" {
		cfg = encrypted(1)
	}
	cfg.MaxSize = 64 << 30
	q, err := Open(b.TempDir(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	return q
}

// BenchmarkSubmit is durable appending with a number of messages in flight.
func BenchmarkSubmit(b *testing.B) {
	for _, inFlight := range []int{1, 64, 256, 1000, 4000} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			q := openBench(b)
			defer q.Close()
			r, err := q.Reader("link/cloud")
			if err != nil {
				b.Fatal(err)
			}
			m := note(1, r)
			m.Payload = make([]byte, 100)
			window := make(chan struct{}, inFlight)
			var wg sync.WaitGroup
			b.ReportAllocs()
			for b.Loop() {
				window <- struct{}{}
				wg.Add(1)
				q.Submit(&m, func(uint64, error) { <-window; wg.Done() })
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(b.N)/float64(q.Stats().Commits), "msg/commit")
		})
	}
}

// BenchmarkDrain is reading and acknowledging a backlog.
func BenchmarkDrain(b *testing.B) {
	q := openBench(b)
	defer q.Close()
	r, err := q.Reader("link/cloud")
	if err != nil {
		b.Fatal(err)
	}
	m := note(1, r)
	m.Payload = make([]byte, 100)
	var wg sync.WaitGroup
	for range 200_000 {
		wg.Add(1)
		q.Submit(&m, func(uint64, error) { wg.Done() })
	}
	wg.Wait()
	b.ReportAllocs()
	n := 0
	after := uint64(0)
	for b.Loop() {
		msgs, err := r.read(b.Context(), after, 256)
		if err != nil {
			b.Fatal(err)
		}
		if len(msgs) == 0 {
			after = 0
			continue
		}
		n += len(msgs)
		after = msgs[len(msgs)-1].Seq
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkVerify is what a segment is looked at for before it is first used,
// and what a search of it costs when it is damaged.
func BenchmarkVerify(b *testing.B) {
	for _, cfg := range []Config{{}, {Encrypt: true, Key: cutKey(1)}} {
		name := "plain"
		if cfg.Encrypt {
			name = "encrypted"
		}
		cfg.MaxSize = 64 << 30
		q, err := Open(b.TempDir(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		r, err := q.Reader("link/cloud")
		if err != nil {
			b.Fatal(err)
		}
		m := note(1, r)
		m.Payload = make([]byte, 100)
		var wg sync.WaitGroup
		for range 200_000 {
			wg.Add(1)
			q.Submit(&m, func(uint64, error) { wg.Done() })
		}
		wg.Wait()
		s := q.segments[0]
		bytes := s.bytes.Load()
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/verify", func(b *testing.B) {
			b.SetBytes(bytes)
			for b.Loop() {
				s.sound = false
				if err := s.verify(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/search", func(b *testing.B) {
			f, err := os.Open(s.path)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.SetBytes(bytes)
			for b.Loop() {
				found := &salvage{seal: s.seal.again(), first: s.first, last: s.last, found: map[uint64]place{}}
				if err := found.search(f, rankOwn); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
