package modbus

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A chaos answers by chance: rightly, late, twice, in pieces, mangled, with an
// exception, not at all, or by hanging up.
type chaos struct {
	rand *rand.Rand
	kept []byte
}

func (c *chaos) answer(w io.Writer, request []byte) error {
	a := answerTo(request)
	out := c.kept
	c.kept = nil
	switch c.rand.IntN(12) {
	case 0: // late
		c.kept = a
	case 1: // a part of it late
		cut := c.rand.IntN(len(a))
		out, c.kept = append(out, a[:cut]...), a[cut:]
	case 2: // twice
		out = append(append(out, a...), a...)
	case 3: // again later
		out, c.kept = append(out, a...), a
	case 4:
		names := slices.Sorted(maps.Keys(mangled()))
		out = append(out, mangled()[names[c.rand.IntN(len(names))]](a)...)
	case 5:
		out = append(out, exceptionTo(request, byte(c.rand.IntN(12)))...)
	case 6:
		return io.EOF
	case 7: // nothing, ever
	default:
		out = append(out, a...)
	}
	if len(out) == 0 {
		return nil
	}
	_, err := w.Write(out)
	return err
}

// Whatever goes wrong on the wire, in whatever order: what is read is what the
// device holds, or an error.
func TestNoFaultGivesAWrongValue(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			var serving sync.WaitGroup
			by := rand.New(rand.NewPCG(seed, 1))
			b := newBus(t, BusConfig{URL: "tcp://pipe", Dial: func(context.Context, string) (net.Conn, error) {
				near, far := net.Pipe()
				serving.Go(func() {
					defer far.Close()
					c := chaos{rand: rand.New(rand.NewPCG(by.Uint64(), 2))}
					for {
						request, err := readRequest(far)
						if err != nil || c.answer(far, request) != nil {
							return
						}
					}
				})
				return near, nil
			}, ResponseTimeout: 10 * time.Millisecond})
			good := 0
			for range 1000 {
				unit, address, quantity := byte(1+by.IntN(3)), uint16(by.IntN(800)), uint16(1+by.IntN(4))
				data, err := b.read(t.Context(), unit, Holding, address, quantity)
				if err == nil {
					good++
					checkData(t, data, unit, address, quantity)
				}
			}
			if good < 300 {
				t.Errorf("seed %d: only %d of 1000 reads came through", seed, good)
			}
			_ = b.Close()
			serving.Wait()
		})
	}
}
