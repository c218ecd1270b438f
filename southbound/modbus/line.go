package modbus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/goburrow/modbus"
	"github.com/headgate-io/headgate/southbound"
)

// A line is one connection of a bus, over and over: what only the holder of its
// turn touches. The turn is held over I/O, since one request in flight is its
// purpose; that is bounded by the timeouts.
type line struct {
	bus         *Bus
	stream      *stream  // nil: not connected
	endpoint    endpoint // of the stream, and the first to try when there is none
	at          int      // which of the bus's endpoints that is
	transaction uint16
	first       uint16    // oldest transaction whose answer may still come
	silent      int       // requests without any answer since the last byte
	sent        bool      // some of the last request went out
	lastEnd     time.Time // of the last request

	// Without transaction numbers a late answer cannot be told from the
	// right one by what it says. So no unit is asked while an answer to an
	// earlier request may come: until then, by unit; and after connecting
	// none is, since what another program asked may still be answered.
	owing map[byte]time.Time
	quiet time.Time
}

// silentLimit is how many requests in a row may find no answer at all before
// the connection is taken for half-open and replaced.
const silentLimit = 3

var (
	errClosed  = errors.New("bus closed")
	errTimeout = errors.New("no answer in time")
	errGarbled = errors.New("garbled answer")
	errNoisy   = errors.New("the line is never silent; check that no other master is on it, and its wiring")
)

// mayAsk returns from when on a unit may be asked.
func (l *line) mayAsk(unit byte) time.Time {
	if until := l.owing[unit]; until.After(l.quiet) {
		return until
	}
	return l.quiet
}

// drop closes the connection, so that the next request makes a new one.
func (l *line) drop() {
	if l.stream == nil {
		return
	}
	_ = l.bus.disown(l.stream) // it is given up already
	l.stream = nil
}

// A request is one call of the codec library's client.
type request func(modbus.Client) ([]byte, error)

func reads(table Table, address, quantity uint16) request {
	return func(c modbus.Client) ([]byte, error) {
		switch table {
		case Coil:
			return c.ReadCoils(address, quantity)
		case Discrete:
			return c.ReadDiscreteInputs(address, quantity)
		case Input:
			return c.ReadInputRegisters(address, quantity)
		}
		return c.ReadHoldingRegisters(address, quantity)
	}
}

// ask sends one request, on the connection there is or a new one, and returns
// the bytes of the answer. After by nothing is sent; zero: whenever.
func (l *line) ask(ctx context.Context, unit byte, r request, by time.Time) ([]byte, error) {
	l.sent = false
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	if err := wait(ctx, max(time.Until(l.lastEnd.Add(l.bus.cfg.Gap)), time.Until(l.mayAsk(unit)))); err != nil {
		return nil, err
	}
	l.transaction++
	if l.transaction-l.first > math.MaxInt16 { // identifiers wrap around
		l.first = l.transaction - math.MaxInt16
	}
	send := func(pdu []byte) ([]byte, error) {
		return l.exchange(ctx, frame{transaction: l.transaction, unit: unit, pdu: pdu, by: by})
	}
	l.bus.counters.requests.Add(1)
	data, err := r(modbus.NewClient2(codec(send), codec(send)))
	l.lastEnd = time.Now()
	return data, l.note(ctx, unit, err)
}

// note counts how a request ended, and gives the connection up where that is
// called for.
func (l *line) note(ctx context.Context, unit byte, err error) error {
	c := &l.bus.counters
	var exception *modbus.ModbusError
	switch {
	case errors.As(err, &exception):
		c.exceptions.Add(1)
	case errors.Is(err, errTimeout):
		c.timeouts.Add(1)
		if l.silent++; l.silent >= silentLimit && !l.endpoint.transport.serial() {
			l.drop()
			l.at++ // perhaps the other one answers
		}
	case errors.Is(err, errGarbled):
		c.garbled.Add(1)
	case errors.Is(err, southbound.ErrExpired): // and the connection is as good as before
	case err != nil && ctx.Err() == nil:
		l.drop()
		err = fmt.Errorf("ask %s, unit %d: %w", l.endpoint.address, unit, err)
	}
	return err
}

// exchange sends a request on the connection and returns its answer.
func (l *line) exchange(ctx context.Context, r frame) ([]byte, error) {
	t := l.endpoint.transport
	if !t.numbered {
		if err := l.settle(ctx); err != nil {
			return nil, err
		}
	}
	if !r.by.IsZero() && !time.Now().Before(r.by) {
		return nil, southbound.ErrExpired
	}
	timeout := l.bus.cfg.ResponseTimeout + l.wireTime(r)
	deadline := time.Now().Add(timeout)
	adu := t.framing.encode(r)
	if err := l.stream.conn.SetWriteDeadline(deadline); err != nil {
		return nil, err
	}
	l.sent = true
	l.bus.watchers.see(r, true, nil)
	if _, err := l.stream.conn.Write(adu); err != nil {
		l.owe(r.unit, deadline)
		l.drop() // part of a request may be out
		return nil, errors.Join(ctx.Err(), fmt.Errorf("send: %w", err))
	}
	answer, err := l.await(ctx, r, time.Until(deadline))
	if err != nil {
		l.owe(r.unit, deadline)
	}
	return answer, err
}

// owe notes that an answer may still come, until the window after its deadline is
// over. If this program stood still meanwhile, the answer may lie unread, so the
// window does not begin before now.
func (l *line) owe(unit byte, deadline time.Time) {
	if l.endpoint.transport.numbered {
		return
	}
	if now := time.Now(); now.After(deadline) {
		deadline = now
	}
	l.owing[unit] = deadline.Add(l.bus.cfg.LateWindow)
}

// settle waits until the line has been silent for as long as parts two frames,
// and throws away what came meanwhile: it answers nothing that is asked next.
func (l *line) settle(ctx context.Context) error {
	silence := l.endpoint.transport.silence
	if l.endpoint.transport.serial() {
		silence = l.bus.cfg.Serial.silence()
	}
	limit := time.Now().Add(l.bus.cfg.ResponseTimeout)
	for {
		more, err := l.stream.silent(silence)
		if err != nil || more == 0 {
			return err
		}
		if time.Now().After(limit) {
			return errNoisy
		}
		if err := wait(ctx, more); err != nil {
			return err
		}
	}
}

// await returns the answer to r. Answers to earlier requests that had timed out
// are thrown away.
func (l *line) await(ctx context.Context, r frame, timeout time.Duration) ([]byte, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	echo := l.echo(r)
	for {
		var answer []byte
		var wrong error
		over := l.stream.look(func(in []byte) int {
			taken := 0
			for answer == nil && wrong == nil && taken < len(in) {
				l.silent = 0
				var n int
				if n, answer, wrong = l.next(in[taken:], r, &echo); n == 0 {
					break
				}
				taken += n
			}
			return taken
		})
		switch {
		case answer != nil:
			return answer, nil
		case wrong != nil && l.endpoint.transport.numbered:
			return nil, wrong
		case wrong != nil:
			return nil, fmt.Errorf("%w: %w", errGarbled, wrong)
		case over != nil:
			return nil, over
		}
		select {
		case <-l.stream.woken:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, errTimeout
		}
	}
}

// next looks at the first frame in in. It returns how many bytes it used up, and
// the answer to r if that is what it was.
func (l *line) next(in []byte, r frame, echo *[]byte) (n int, answer []byte, err error) {
	if n := len(*echo); n > 0 {
		have := min(n, len(in))
		if string(in[:have]) != string((*echo)[:have]) {
			return 0, nil, badFrame("%x instead of the echo of %x: set echo: false if the port has none", in[:have], *echo)
		}
		*echo = (*echo)[have:]
		return have, nil, nil
	}
	t := l.endpoint.transport
	f, n, err := t.framing.cut(in, r)
	if err != nil {
		l.bus.watchers.see(frame{pdu: in}, false, err)
	}
	if err == nil && n > 0 {
		l.bus.watchers.see(f, false, nil)
		var late bool
		if late, err = l.late(f, r); late {
			l.bus.counters.late.Add(1)
			return n, nil, nil
		}
		if err == nil {
			err = verify(r.pdu, f.pdu)
		}
	}
	if err != nil && t.datagram() { // anybody may send one
		l.bus.counters.garbled.Add(1)
		return len(in), nil, nil
	}
	if err != nil || n == 0 {
		return 0, nil, err
	}
	return n, append([]byte(nil), f.pdu...), nil
}

// late reports whether f answers an earlier request. Its error says that f
// answers none.
func (l *line) late(f, r frame) (bool, error) {
	if l.endpoint.transport.numbered {
		switch {
		case f.transaction != r.transaction && r.transaction-f.transaction > r.transaction-l.first:
			return false, badFrame("transaction %d for %d", f.transaction, r.transaction)
		case f.transaction != r.transaction:
			return true, nil
		}
	}
	if f.unit == r.unit {
		return false, nil
	}
	if _, owing := l.owing[f.unit]; owing {
		delete(l.owing, f.unit)
		return true, nil
	}
	return false, badFrame("unit %d for unit %d", f.unit, r.unit)
}

// echo is what the port is expected to hear of its own request.
func (l *line) echo(r frame) []byte {
	if !l.bus.cfg.Echo || l.endpoint.transport.numbered {
		return nil
	}
	return l.endpoint.transport.framing.encode(r)
}

// wireTime is how long a request and its answer take on a serial line.
func (l *line) wireTime(r frame) time.Duration {
	t := l.endpoint.transport
	if t.numbered {
		return 0
	}
	chars := t.framing.chars(1+len(r.pdu)) + t.framing.chars(1+answerSize(r.pdu))
	return time.Duration(chars) * l.bus.cfg.Serial.character()
}
