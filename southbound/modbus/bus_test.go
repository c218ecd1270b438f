package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/goburrow/modbus"
)

const (
	short   = 60 * time.Millisecond // for answers that never come
	patient = 5 * time.Second       // for answers that do
)

// One late answer costs one read, and no later read gets it.
func TestLateAnswer(t *testing.T) {
	p := startPeer(t, lateOnce(3))
	b := p.bus(t, short)
	failed := 0
	for i := range uint16(20) {
		data, err := b.read(t.Context(), 1, Holding, i, 1)
		switch {
		case errors.Is(err, errTimeout):
			failed++
		case err != nil:
			t.Errorf("read %d: %v", i, err)
		default:
			checkData(t, data, 1, i, 1)
		}
	}
	if failed != 1 {
		t.Errorf("%d of 20 reads failed, want 1", failed)
	}
	if stats := b.Stats(); stats.Late != 1 || stats.Timeouts != 1 || stats.Connects != 1 {
		t.Errorf("%+v", stats)
	}
}

// The same script over the codec library's own transport, so that it is known
// that the script can fail: one slow answer leaves it one behind for ever.
func TestLateAnswerBreaksTheLibrarysTransport(t *testing.T) {
	p := startPeer(t, lateOnce(3))
	h := modbus.NewTCPClientHandler(p.address())
	h.SlaveId, h.Timeout = 1, short
	defer h.Close()
	client := modbus.NewClient(h)
	failed := 0
	for i := range uint16(20) {
		if _, err := client.ReadHoldingRegisters(i, 1); err != nil {
			failed++
		}
	}
	if failed < 15 {
		t.Errorf("%d of 20 reads failed; the script has lost its teeth", failed)
	}
}

func TestPeerClosesAfterEveryAnswer(t *testing.T) {
	p := startPeer(t, func(w net.Conn, _, _ int, request []byte) error {
		return errors.Join(honest(w, 0, 0, request), io.EOF)
	})
	b := p.bus(t, patient)
	for i := range uint16(6) {
		expect(t, b, 1, i, 2)
	}
}

func TestPeerResets(t *testing.T) {
	p := startPeer(t, func(w net.Conn, conn, _ int, request []byte) error {
		if conn == 0 {
			return errors.Join(w.(*net.TCPConn).SetLinger(0), io.EOF)
		}
		return honest(w, 0, 0, request)
	})
	expect(t, p.bus(t, patient), 1, 7, 3)
}

// mangled answers, each of which must close the connection and never be data.
func mangled() map[string]func([]byte) []byte {
	set := func(at int, v byte) func([]byte) []byte {
		return func(a []byte) []byte { a[at] = v; return a }
	}
	return map[string]func([]byte) []byte{
		"transaction of the future": func(a []byte) []byte {
			binary.BigEndian.PutUint16(a, binary.BigEndian.Uint16(a)+1)
			return a
		},
		"transaction before the connection": func(a []byte) []byte {
			binary.BigEndian.PutUint16(a, binary.BigEndian.Uint16(a)-1)
			return a
		},
		"protocol identifier":     set(2, 1),
		"length zero":             func(a []byte) []byte { a[4], a[5] = 0, 0; return a },
		"length one":              func(a []byte) []byte { a[4], a[5] = 0, 1; return a },
		"length over the maximum": func(a []byte) []byte { a[4], a[5] = 0, 255; return a },
		"wrong unit":              set(6, 9),
		"wrong function":          set(7, 4),
		"exception of another":    set(7, 0x84),
		"long exception":          set(7, 0x83),
		"byte count lies":         set(8, 2),
		"short byte count":        func(a []byte) []byte { a[5], a[8] = 5, 2; return a[:11] },
		"long byte count":         func(a []byte) []byte { a[5], a[8] = 9, 6; return append(a, 1, 2) },
		"no byte count":           func(a []byte) []byte { a[5] = 2; return a[:8] },
		"garbage before":          func(a []byte) []byte { return append([]byte("login: \r\n"), a...) },
	}
}

func TestUnexpectedAnswerClosesConnection(t *testing.T) {
	for name, mangle := range mangled() {
		t.Run(name, func(t *testing.T) {
			p := startPeer(t, func(w net.Conn, conn, _ int, request []byte) error {
				a := answerTo(request)
				if conn == 0 {
					a = mangle(a)
				}
				_, err := w.Write(a)
				return err
			})
			b := p.bus(t, patient)
			expect(t, b, 1, 5, 2)
			if got := b.Stats().Connects; got != 2 {
				t.Errorf("%d connections, want 2", got)
			}
		})
		t.Run(name+" always", func(t *testing.T) {
			p := startPeer(t, func(w net.Conn, _, _ int, request []byte) error {
				_, err := w.Write(mangle(answerTo(request)))
				return err
			})
			b := p.bus(t, patient)
			data, err := b.read(t.Context(), 1, Holding, 5, 2)
			if data != nil || !errors.Is(err, errBadFrame) {
				t.Errorf("got %x, %v", data, err)
			}
		})
	}
}

// A frame may arrive in two parts, the second after the timeout. Then the next
// read is right all the same, on the same connection.
func TestAnswerSplitByTimeout(t *testing.T) {
	whole := 9 + 2*3
	for cut := 1; cut < whole; cut++ {
		var rest []byte
		p := startPeer(t, func(w net.Conn, _, n int, request []byte) error {
			a := answerTo(request)
			if n == 0 {
				rest = a[cut:]
				a = a[:cut]
			} else {
				a = append(rest, a...)
			}
			_, err := w.Write(a)
			return err
		})
		b := p.bus(t, short/2)
		if _, err := b.read(t.Context(), 1, Holding, 0, 3); !errors.Is(err, errTimeout) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		b.cfg.ResponseTimeout = patient
		expect(t, b, 1, 40, 3)
		if stats := b.Stats(); stats.Connects != 1 || stats.Late != 1 {
			t.Errorf("cut at %d: %+v", cut, stats)
		}
	}
}

func TestAnswerByteByByte(t *testing.T) {
	p := startPeer(t, func(w net.Conn, _, _ int, request []byte) error {
		for _, c := range answerTo(request) {
			if _, err := w.Write([]byte{c}); err != nil {
				return err
			}
		}
		return nil
	})
	b := p.bus(t, patient)
	for i := range uint16(5) {
		expect(t, b, 1, i, 125)
	}
}

// A peer that went away without a word is found out and replaced.
func TestHalfOpenConnectionIsReplaced(t *testing.T) {
	p := startPeer(t, func(w net.Conn, conn, _ int, request []byte) error {
		if conn == 0 {
			return nil
		}
		return honest(w, 0, 0, request)
	})
	b := p.bus(t, short/2)
	for i := range silentLimit {
		if _, err := b.read(t.Context(), 1, Holding, 0, 1); !errors.Is(err, errTimeout) {
			t.Fatalf("read %d: %v", i, err)
		}
	}
	b.cfg.ResponseTimeout = patient
	expect(t, b, 1, 0, 1)
}

// However many ask, a bus has one connection and one request under way.
func TestOneRequestInFlight(t *testing.T) {
	p := startPeer(t, func(w net.Conn, _, _ int, request []byte) error {
		if err := w.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return err
		}
		if n, err := w.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("a second request before the answer: %d, %w", n, err)
		}
		return errors.Join(w.SetReadDeadline(time.Time{}), honest(w, 0, 0, request))
	})
	b := p.bus(t, patient)
	var askers sync.WaitGroup
	for unit := range byte(8) {
		askers.Go(func() {
			for i := range uint16(10) {
				data, err := b.read(t.Context(), unit, Input, i, 4)
				if err != nil {
					t.Error(err)
					return
				}
				checkData(t, data, unit, i, 4)
			}
		})
	}
	askers.Wait()
	if stats := b.Stats(); stats.Connects != 1 || stats.Requests != 80 {
		t.Errorf("%+v", stats)
	}
}

func TestReadEndsWithContext(t *testing.T) {
	asked := make(chan struct{}, 1)
	late := lateOnce(0)
	p := startPeer(t, func(w net.Conn, conn, n int, request []byte) error {
		asked <- struct{}{}
		return late(w, conn, n, request)
	})
	b := p.bus(t, patient)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	start := time.Now()
	if _, err := b.read(ctx, 1, Holding, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	expect(t, b, 1, 9, 1) // and the answer nobody waited for is not taken for it
	if stats := b.Stats(); stats.Connects != 1 || stats.Late != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestCloseEndsRead(t *testing.T) {
	asked := make(chan struct{})
	p := startPeer(t, func(net.Conn, int, int, []byte) error { close(asked); return nil })
	b := p.bus(t, patient)
	done := make(chan error)
	go func() {
		_, err := b.read(t.Context(), 1, Holding, 0, 1)
		done <- err
	}()
	<-asked
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}

func TestTransactionsWrapAround(t *testing.T) {
	p := startPeer(t, lateOnce(3))
	b := p.bus(t, short)
	lineOf(b).transaction = 0xFFFD
	for i := range uint16(8) {
		data, err := b.read(t.Context(), 1, Holding, i, 1)
		if i == 3 {
			if !errors.Is(err, errTimeout) {
				t.Errorf("got %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		checkData(t, data, 1, i, 1)
	}
	if stats := b.Stats(); stats.Late != 1 || stats.Connects != 1 {
		t.Errorf("%+v", stats)
	}
}

// A connection that outlives the identifiers still knows late answers.
func TestLateAnswerAfterAllTransactionsWereUsed(t *testing.T) {
	p := startPeer(t, lateOnce(1))
	b := p.bus(t, patient)
	expect(t, b, 1, 0, 1)
	lineOf(b).first = lineOf(b).transaction + 2 // as after 65534 more requests
	b.cfg.ResponseTimeout = short
	if _, err := b.read(t.Context(), 1, Holding, 1, 1); !errors.Is(err, errTimeout) {
		t.Fatal(err)
	}
	b.cfg.ResponseTimeout = patient
	expect(t, b, 1, 2, 1)
	if stats := b.Stats(); stats.Late != 1 || stats.Connects != 1 {
		t.Errorf("%+v", stats)
	}
}

// Whatever bytes a peer sends, they are an answer to the request or an error.
func FuzzAnswer(f *testing.F) {
	ask := frame{transaction: 7, unit: 1, pdu: []byte{3, 0, 5, 0, 2}}
	request := mbap{}.encode(ask)
	f.Add(answerTo(request))
	f.Add(exceptionTo(request, 2))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"))
	for _, mangle := range mangled() {
		f.Add(mangle(answerTo(request)))
	}
	answer := frame{unit: 1, pdu: answerTo(request)[headerSize:]}
	f.Add(rtu{}.encode(answer))
	f.Add(ascii{}.encode(answer))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, framing := range []framing{mbap{}, rtu{}, ascii{}} {
			for rest := stream; ; {
				got, n, err := framing.cut(rest, ask)
				if err != nil || n == 0 {
					break
				}
				if len(got.pdu) > maxPDU || n > len(rest) {
					t.Fatalf("%T: a frame of %d bytes, PDU of %d", framing, n, len(got.pdu))
				}
				rest = rest[n:]
				if verify(ask.pdu, got.pdu) != nil {
					continue
				}
				if f := got.pdu[0]; f == 3 && len(got.pdu) != 6 || f != 3 && f != 0x83 {
					t.Fatalf("%T: verified %x", framing, got.pdu)
				}
			}
		}
	})
}
