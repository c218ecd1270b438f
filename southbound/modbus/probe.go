package modbus

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/goburrow/modbus"
)

// ReadRaw asks a unit once and returns the bytes of registers as they came, or
// bits, eight to a byte.
func (b *Bus) ReadRaw(ctx context.Context, unit byte, a Address, quantity uint16) ([]byte, error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	return b.read(ctx, unit, a.Table, a.Number, quantity)
}

// IsNoAddress reports whether an error of ReadRaw says that the unit has no such
// register.
func IsNoAddress(err error) bool {
	var e *modbus.ModbusError
	return errors.As(err, &e) && e.ExceptionCode == modbus.ExceptionCodeIllegalDataAddress
}

// Found is what Probe learned about a unit.
type Found struct {
	Answers  bool
	Identity string // as it calls itself; may be empty
}

// Probe asks whether there is a unit, by reading one register; a refusal is an
// answer, too. Then it asks for its identity (function 43, 14). An error means
// that the bus does not work.
func (b *Bus) Probe(ctx context.Context, unit byte, a Address) (f Found, err error) {
	if err := b.open(ctx); err != nil {
		return f, err
	}
	_, err = b.read(ctx, unit, a.Table, a.Number, 1)
	var e *modbus.ModbusError
	switch {
	case err == nil || errors.Is(err, errGarbled):
	case errors.Is(err, errTimeout):
		return f, nil
	case !errors.As(err, &e):
		return f, err
	case unreached(e):
		return f, nil
	}
	f.Answers = true
	f.Identity, err = b.identify(ctx, unit)
	if broken(err) && ctx.Err() == nil { // some units close on a function that they do not know
		return f, nil
	}
	return f, ctx.Err()
}

const identify = 43 // encapsulated interface transport (Modbus Application Protocol 6.21)

func (b *Bus) identify(ctx context.Context, unit byte) (string, error) {
	l, err := b.take(ctx, &turn{rank: toScan, unit: int(unit)})
	if err != nil {
		return "", err
	}
	defer b.release(l)
	var pdu []byte
	_, err = l.ask(ctx, unit, func(modbus.Client) ([]byte, error) {
		var err error
		pdu, err = l.exchange(ctx, frame{transaction: l.transaction, unit: unit, pdu: []byte{identify, 14, 1, 0}})
		return pdu, err
	}, time.Time{})
	if err != nil || len(pdu) < 2 || pdu[0] != identify {
		return "", err
	}
	return identity(pdu), nil
}

// identitySize is how long an answer with an identity is, as far as can be told
// from its beginning; zero while more must come.
func identitySize(pdu []byte) int {
	const head = 7
	if len(pdu) < head {
		return 0
	}
	at := head
	for range pdu[head-1] {
		if len(pdu) < at+2 {
			return 0
		}
		at += 2 + int(pdu[at+1])
	}
	return at
}

// identity joins maker, product and version.
func identity(pdu []byte) string {
	if n := identitySize(pdu); n == 0 || n > len(pdu) {
		return ""
	}
	var parts []string
	at := 7
	for range pdu[6] {
		n := int(pdu[at+1])
		text := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, string(pdu[at+2:at+2+n]))
		if text = strings.TrimSpace(text); text != "" {
			parts = append(parts, text)
		}
		at += 2 + n
	}
	return strings.Join(parts, " ")
}
