package modbus

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A peer is the other end of a bus, played by a script. Every register holds
// its own address plus 1000 times its unit, so that an answer to another
// question shows.
type peer struct {
	listener net.Listener
	conns    atomic.Int32
	requests atomic.Int32
	serving  sync.WaitGroup

	mu   sync.Mutex // covers open
	open []net.Conn
}

// A script answers one request. It is called in turn for the requests of one
// connection; conn counts connections and n requests on it, from zero. An
// error ends the connection.
type script func(w net.Conn, conn, n int, request []byte) error

func startPeer(t *testing.T, play script) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{listener: listener}
	p.serving.Go(func() { p.accept(play) })
	t.Cleanup(func() {
		_ = listener.Close()
		p.hangUp()
		p.serving.Wait()
	})
	return p
}

// hangUp closes all connections.
func (p *peer) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.open {
		_ = conn.Close()
	}
}

func (p *peer) accept(play script) {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.open = append(p.open, conn)
		p.mu.Unlock()
		number := int(p.conns.Add(1)) - 1
		p.serving.Go(func() {
			defer conn.Close()
			for n := 0; ; n++ {
				request, err := readRequest(conn)
				if err != nil {
					return
				}
				p.requests.Add(1)
				if play(conn, number, n, request) != nil {
					return
				}
			}
		})
	}
}

func (p *peer) address() string { return p.listener.Addr().String() }

// bus returns a bus to the peer with a short timeout.
func (p *peer) bus(t *testing.T, timeout time.Duration) *Bus {
	t.Helper()
	return newBus(t, BusConfig{URL: "tcp://" + p.address(), ResponseTimeout: timeout})
}

func newBus(t *testing.T, cfg BusConfig) *Bus {
	t.Helper()
	b, err := NewBus(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// lineOf returns the only line of a bus that nobody uses.
func lineOf(b *Bus) *line {
	return b.idle[0]
}

func readRequest(r io.Reader) ([]byte, error) {
	request := make([]byte, 12)
	_, err := io.ReadFull(r, request)
	return request, err
}

// answerTo is the right answer to a request to read registers.
func answerTo(request []byte) []byte {
	address, quantity := binary.BigEndian.Uint16(request[8:]), binary.BigEndian.Uint16(request[10:])
	frame := append([]byte(nil), request[:8]...)
	frame = append(frame, byte(2*quantity))
	for i := range quantity {
		frame = binary.BigEndian.AppendUint16(frame, 1000*uint16(request[6])+address+i)
	}
	binary.BigEndian.PutUint16(frame[4:], uint16(len(frame)-6))
	return frame
}

// exceptionTo is the answer with which a unit refuses a request.
func exceptionTo(request []byte, code byte) []byte {
	frame := append([]byte(nil), request[:9]...)
	frame[5], frame[7], frame[8] = 3, request[7]|0x80, code
	return frame
}

func honest(w net.Conn, _, _ int, request []byte) error {
	_, err := w.Write(answerTo(request))
	return err
}

// lateOnce keeps back the answer to one request until the next one came.
func lateOnce(which int) script {
	var kept []byte
	return func(w net.Conn, conn, n int, request []byte) error {
		if conn == 0 && n == which {
			kept = answerTo(request)
			return nil
		}
		out := append(kept, answerTo(request)...)
		kept = nil
		_, err := w.Write(out)
		return err
	}
}

// expect reads registers and holds them against what the peer's registers are.
func expect(t *testing.T, b *Bus, unit byte, address, quantity uint16) {
	t.Helper()
	data, err := b.read(t.Context(), unit, Holding, address, quantity)
	if err != nil {
		t.Fatalf("read %d: %v", address, err)
	}
	checkData(t, data, unit, address, quantity)
}

func checkData(t *testing.T, data []byte, unit byte, address, quantity uint16) {
	t.Helper()
	if len(data) != 2*int(quantity) {
		t.Fatalf("read %d: %d bytes", address, len(data))
	}
	for i := range quantity {
		if got := binary.BigEndian.Uint16(data[2*i:]); got != 1000*uint16(unit)+address+i {
			t.Fatalf("read %d of unit %d: WRONG DATA %d", address+i, unit, got)
		}
	}
}
