package storequeue

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// BenchmarkRates is what the queue owes, on one disk in one run: one message at
// a time beside a bare bbolt commit, the drain, and what is written at 256 in
// flight. Run it with -benchtime 1x; gateway's BenchmarkRates is the rest.
func BenchmarkRates(b *testing.B) {
	for b.Loop() {
		queue, bare := commitTimes(b)
		drained, wear := fillAndDrain(b)
		for _, row := range []struct {
			what              string
			got, least, limit float64
		}{
			{"one message at a time, p50, times a bare bbolt commit", float64(queue) / float64(bare), 0, 1.5},
			{"drain, messages/s", drained, 150_000, 1e12},
			{"bytes written per payload byte, 256 in flight, 100 bytes", wear, 1, 3},
		} {
			fmt.Printf("%-60s %12.2f\n", row.what, row.got)
			if row.got < row.least || row.got > row.limit {
				b.Errorf("%s: %.2f", row.what, row.got)
			}
		}
		fmt.Printf("%-60s %12v %v\n", "p50 of the queue and of bbolt", queue, bare)
	}
}

// commitTimes alternates between a message appended alone and a bare bbolt
// commit of the same bytes, and returns the median of each.
func commitTimes(b *testing.B) (queue, bare time.Duration) {
	q, err := Open(filepath.Join(b.TempDir(), "queue"), Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	r, err := q.Reader("link/cloud")
	if err != nil {
		b.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	m := note(1, r)
	m.Payload = make([]byte, 100)
	put := func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte("m"))
		if err != nil {
			return err
		}
		n, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		return bucket.Put(key(n), m.Payload)
	}
	var queues, bares []time.Duration
	for range 2000 {
		began := time.Now()
		if err := q.Append(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if err := db.Update(put); err != nil {
			b.Fatal(err)
		}
		queues, bares = append(queues, between.Sub(began)), append(bares, time.Since(between))
	}
	slices.Sort(queues)
	slices.Sort(bares)
	return queues[len(queues)/2], bares[len(bares)/2]
}

// fillAndDrain appends with 256 in flight, and reads and acknowledges it all.
func fillAndDrain(b *testing.B) (drained, wear float64) {
	q, err := Open(filepath.Join(b.TempDir(), "queue"), Config{MaxSize: 64 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	r, err := q.Reader("link/cloud")
	if err != nil {
		b.Fatal(err)
	}
	const n = 1_000_000
	m := note(1, r)
	m.Payload = make([]byte, 100)
	window := make(chan struct{}, 256)
	for range n {
		window <- struct{}{}
		q.Submit(&m, func(_ uint64, err error) {
			if err != nil {
				b.Error(err)
			}
			<-window
		})
	}
	for range cap(window) {
		window <- struct{}{}
	}
	st := q.Stats()
	fmt.Printf("%-60s %12.0f\n", "messages a commit, 256 in flight", float64(n)/float64(st.Commits))
	began := time.Now()
	for left := n; left > 0; {
		msgs, err := r.Next(context.Background(), r.Acked(), 1000)
		if err != nil {
			b.Fatal(err)
		}
		left -= len(msgs)
		r.Ack(msgs[len(msgs)-1].Seq)
	}
	return n / time.Since(began).Seconds(), float64(st.Written) / float64(st.Payload)
}
