package northbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/headgate-io/headgate/storequeue"
)

// A fastCloud acknowledges PUBLISH over TLS and does nothing else, so that
// what is measured is the link.
type fastCloud struct {
	addr      string
	clientTLS func(string) (*tls.Config, error)
	acked     atomic.Int64
}

func newFastCloud(t testing.TB, receiveMaximum uint16) *fastCloud {
	ca := newAuthority(t, "Our CA")
	client := ca.client("gw")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS(ca.server(), ca))
	if err != nil {
		t.Fatal(err)
	}
	f := &fastCloud{addr: ln.Addr().String(), clientTLS: clientTLS(ca, &client)}
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			f.serve(nc, receiveMaximum)
			nc.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return f
}

func (f *fastCloud) serve(nc net.Conn, receiveMaximum uint16) {
	if _, err := packets.ReadPacket(nc); err != nil {
		return
	}
	(&packets.Connack{Properties: &packets.Properties{ReceiveMaximum: &receiveMaximum}}).WriteTo(nc)
	in, out := bufio.NewReaderSize(nc, 64<<10), bufio.NewWriter(nc)
	for {
		head, err := in.ReadByte()
		if err != nil {
			return
		}
		length, err := binary.ReadUvarint(in)
		if err != nil {
			return
		}
		body, err := in.Peek(int(length))
		if err != nil {
			return
		}
		switch {
		case head>>4 == packets.PUBLISH && head&6 != 0:
			topic := int(binary.BigEndian.Uint16(body))
			out.Write([]byte{packets.PUBACK << 4, 2, body[2+topic], body[3+topic]})
			f.acked.Add(1)
		case head>>4 == packets.PINGREQ:
			out.Write([]byte{packets.PINGRESP << 4, 0})
		}
		in.Discard(int(length))
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// runUntil runs a link until ok, which is asked often.
func runUntil(t testing.TB, l *Link, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }() // ends with ctx
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("Run ended: %v; %+v", err, l.Stats())
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func countWrites(l *Link, writes *atomic.Int64) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, server string) (net.Conn, error) {
		nc, err := l.dialTLS(ctx, server)
		if err != nil {
			return nil, err
		}
		return writesConn{nc, writes}, nil
	}
}

// A sliceSource hands out the same message over and over, so that the queue's
// disk is not measured.
type sliceSource struct {
	msgs  []storequeue.Message
	total uint64
	acked atomic.Uint64
	done  chan struct{}
}

func (s *sliceSource) More(after uint64) bool { return after < s.total }

func (s *sliceSource) Wake() <-chan struct{} { return nil }

func (s *sliceSource) Poll(after uint64, max int) ([]storequeue.Message, error) {
	n := min(uint64(max), s.total-after, uint64(len(s.msgs)))
	for i := range n {
		s.msgs[i].Seq = after + i + 1
	}
	return s.msgs[:n], nil
}

func (s *sliceSource) Settled(_, last uint64) bool { return last <= s.acked.Load() }
func (s *sliceSource) Waiting() uint64             { return 0 }

func (s *sliceSource) Name() string { return "slice" }

func (s *sliceSource) Acked() uint64 { return s.acked.Load() }

func (s *sliceSource) Ack(seq uint64) {
	if seq > s.acked.Load() {
		s.acked.Store(seq)
	}
	if seq == s.total {
		select {
		case s.done <- struct{}{}:
		default:
		}
	}
}

// BenchmarkLink counts messages of 200 B at QoS 1 over mutual TLS.
func BenchmarkLink(b *testing.B) {
	f := newFastCloud(b, 1000)
	src := &sliceSource{msgs: make([]storequeue.Message, nextMax), total: uint64(b.N), done: make(chan struct{}, 1)}
	for i := range src.msgs {
		src.msgs[i] = storequeue.Message{Topic: "plant/press/1/temperature", Payload: make([]byte, 200)}
	}
	cfg := testConfig()
	cfg.Servers, cfg.TLS = []string{f.addr}, f.clientTLS
	l, err := NewLink(cfg, src)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { ended <- l.Run(ctx) }() // ends with ctx
	<-src.done
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// FuzzInbound feeds a connection whatever a server might send: nothing panics,
// and no packet larger than announced is allocated.
func FuzzInbound(f *testing.F) {
	for _, s := range []string{
		"\x20\x03\x00\x00\x00", "\x30\x0a\x00\x03a/b\x00hello", "\x40\x02\x00\x01", "\x40\x03\x00\x01\x97",
		"\xe0\x01\x8e", "\x90\x04\x00\x01\x00\x00", "\x30\xff\xff\xff\x7f", "\x30\xff\xff\xff\xff\xff", "\xd0\x00", "\x30\x80\x80\x40",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		go func() { far.Write(b); far.Close() }() // ends with near
		defer near.Close()
		c := newConn(near, time.Second, func(error) {})
		for {
			p, err := packets.ReadPacket(c)
			if err != nil {
				return
			}
			if pub, ok := p.Content.(*packets.Publish); ok && len(pub.Payload) > maxReceive {
				t.Fatalf("a payload of %d bytes passed", len(pub.Payload))
			}
		}
	})
}
