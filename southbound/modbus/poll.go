package modbus

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/goburrow/modbus"
	"github.com/headgate-io/headgate/southbound"
)

const (
	refusedRetry = time.Minute            // how long an address or function the device refused is left alone
	busyRetries  = 3                      // after exceptions 5 and 6
	busyPause    = 100 * time.Millisecond // between them
)

// poll reads one group. Its error ends the session; whatever else goes wrong is
// the quality of the readings that it concerns.
func (s *session) poll(ctx context.Context, g *group) ([]southbound.Reading, error) {
	now := time.Now()
	readings := make([]southbound.Reading, len(g.fields))
	for i := range readings {
		readings[i] = southbound.Reading{Tag: g.fields[i].Name, Quality: southbound.BadOffline, Time: now}
	}
	if !s.unit.worthAsking(now) {
		return readings, nil
	}
	err := s.pollBlocks(ctx, g, readings)
	for i := range g.fields {
		if f := &g.fields[i]; f.from >= 0 {
			readings[i] = f.powerOfTen(readings[i], readings[f.from])
		}
	}
	return readings, err
}

// pollBlocks asks for every block of the group until the unit stops answering.
// A block that is refused for an address is split until the address is found.
func (s *session) pollBlocks(ctx context.Context, g *group, readings []southbound.Reading) error {
	for i := 0; i < len(g.blocks); {
		b := &g.blocks[i]
		if time.Now().Before(b.retry) {
			b.fail(readings, b.refused)
			i++
			continue
		}
		a, err := s.ask(ctx, b.block)
		switch {
		case err != nil:
			return err
		case a.absent:
			for _, rest := range g.blocks[i:] {
				rest.fail(readings, a.quality)
			}
			return nil
		case a.quality == southbound.BadAddress && len(b.fields) > 1:
			halves := b.split(g.fields)
			g.blocks = slices.Replace(g.blocks, i, i+1, liveBlock{block: halves[0]}, liveBlock{block: halves[1]})
			continue
		case a.quality == southbound.BadAddress || a.quality == southbound.BadFunction:
			b.refused, b.retry = a.quality, time.Now().Add(refusedRetry)
		}
		b.fill(g.fields, readings, a)
		i++
	}
	return nil
}

// An answer is what came of one request.
type answer struct {
	data    []byte // when quality is good
	quality southbound.Quality
	absent  bool // the unit did not answer, or a gateway said so
}

// ask sends one request, repeats it where the exception invites to, and tells
// the unit's health.
func (s *session) ask(ctx context.Context, b block) (answer, error) {
	for tries := 0; ; tries++ {
		data, err := s.adapter.bus.read(ctx, s.adapter.unit, b.table, b.address, b.quantity)
		a, again, err := classify(data, err)
		if err != nil {
			return a, err
		}
		if tries >= again {
			s.unit.note(a.absent, time.Now())
			return a, nil
		}
		if err := wait(ctx, busyPause); err != nil {
			return a, err
		}
	}
}

// classify turns the outcome of a read into a quality and says how often it may
// be tried again. The exceptions are those of Modbus Application Protocol 7.
func classify(data []byte, err error) (a answer, again int, fatal error) {
	var exception *modbus.ModbusError
	switch {
	case err == nil:
		return answer{data: data, quality: southbound.Good}, 0, nil
	case errors.Is(err, errTimeout):
		return answer{quality: southbound.BadTimeout, absent: true}, 0, nil
	case errors.Is(err, errGarbled):
		return answer{quality: southbound.BadCRC}, 0, nil
	case !errors.As(err, &exception):
		return answer{}, 0, err
	}
	switch exception.ExceptionCode {
	case modbus.ExceptionCodeIllegalFunction:
		return answer{quality: southbound.BadFunction}, 0, nil
	case modbus.ExceptionCodeIllegalDataAddress:
		return answer{quality: southbound.BadAddress}, 0, nil
	case modbus.ExceptionCodeServerDeviceFailure, modbus.ExceptionCodeMemoryParityError:
		return answer{quality: southbound.BadDevice}, 1, nil
	case modbus.ExceptionCodeAcknowledge, modbus.ExceptionCodeServerDeviceBusy:
		return answer{quality: southbound.BadTimeout}, busyRetries, nil
	case modbus.ExceptionCodeGatewayPathUnavailable:
		return answer{quality: southbound.BadOffline, absent: true}, 0, nil
	case modbus.ExceptionCodeGatewayTargetDeviceFailedToRespond:
		return answer{quality: southbound.BadTimeout, absent: true}, 0, nil
	}
	return answer{quality: southbound.BadDevice}, 0, nil
}

func (b *block) fill(fields []field, readings []southbound.Reading, a answer) {
	if a.quality != southbound.Good {
		b.fail(readings, a.quality)
		return
	}
	now := time.Now()
	for _, i := range b.fields {
		r := &readings[i]
		r.Value, r.Quality = fields[i].decode(b.wire(&fields[i], a.data))
		r.Time = now
	}
}

func (b *block) fail(readings []southbound.Reading, q southbound.Quality) {
	now := time.Now()
	for _, i := range b.fields {
		readings[i].Value, readings[i].Quality, readings[i].Time = nil, q, now
	}
}

// health is whether a unit answers. One answer missed is forgiven. After the
// second in a row the unit is left alone for a while that doubles from 1 s to
// 60 s. The first request after it is the probe: a poll ends with the first
// request that finds no answer.
type health struct {
	missed int
	pause  time.Duration
	until  time.Time
}

func (h *health) worthAsking(now time.Time) bool { return !now.Before(h.until) }

func (h *health) note(absent bool, now time.Time) {
	if !absent {
		*h = health{}
		return
	}
	if h.missed++; h.missed < 2 {
		return
	}
	h.pause = min(max(2*h.pause, time.Second), time.Minute)
	h.until = now.Add(h.pause/2 + rand.N(h.pause/2))
}
