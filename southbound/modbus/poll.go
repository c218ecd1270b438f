package modbus

import (
	"context"
	"errors"
	"time"

	"github.com/goburrow/modbus"
	"github.com/headgate-io/headgate/southbound"
)

const (
	refusedRetry = time.Minute            // how long an address or function the device refused is left alone
	busyRetries  = 3                      // after exceptions 5 and 6
	busyPause    = 100 * time.Millisecond // between them
)

// A round is one poll of one group.
type round struct {
	*session
	group    *group
	turn     turn
	readings []southbound.Reading
	learned  bool               // something that changes the plan
	absent   southbound.Quality // once the unit did not answer; good until then
}

// poll asks for every block of the group until the unit stops answering. Its
// error ends the session; whatever else goes wrong is the quality of the readings
// that it concerns.
func (r *round) poll(ctx context.Context) error {
	g := r.group
	r.absent, r.readings = southbound.Good, make([]southbound.Reading, len(g.fields))
	for i := range r.readings {
		r.readings[i].Tag = g.fields[i].Name
	}
	var worth bool
	if r.turn.rank, worth = r.adapter.bus.mayPoll(r.adapter.unit); !worth {
		r.absent = southbound.BadOffline
	}
	for i := range g.blocks {
		if _, err := r.read(ctx, &g.blocks[i]); err != nil {
			return err
		}
	}
	for i := range g.fields {
		if f := &g.fields[i]; f.from >= 0 {
			r.readings[i] = f.powerOfTen(r.readings[i], r.readings[f.from])
		}
	}
	if r.learned {
		r.replan()
	}
	return nil
}

// read asks for one block. If it is refused for an address it is split until the
// address is found. whole says that all of it was read in one request.
func (r *round) read(ctx context.Context, b *block) (whole bool, err error) {
	if q := r.known(b); q != southbound.Good {
		r.fail(b, q)
		return false, nil
	}
	a, err := r.ask(ctx, b)
	if err != nil {
		return false, err
	}
	if a.absent {
		r.absent = a.quality
	}
	retry := time.Now().Add(refusedRetry)
	switch {
	case a.quality == southbound.BadAddress && len(b.items) > 1:
		return false, r.split(ctx, b)
	case a.quality == southbound.BadAddress:
		r.learned = true
		r.group.apart[b.items[0]] = retry
		r.adapter.learn(Hole{b.table, int(b.address), int(b.address) + int(b.quantity) - 1}, false)
	case a.quality == southbound.BadFunction:
		r.refused[b.table] = retry
	case a.quality == southbound.Good:
		b.fill(r.group.fields, r.group.items, r.readings, a)
		return true, nil
	}
	r.fail(b, a.quality)
	return false, nil
}

// known is the quality of a block that need not be asked for, or good.
func (r *round) known(b *block) southbound.Quality {
	now := time.Now()
	switch {
	case r.absent != southbound.Good:
		return r.absent
	case now.Before(r.refused[b.table]):
		return southbound.BadFunction
	case len(b.items) == 1 && now.Before(r.group.apart[b.items[0]]):
		return southbound.BadAddress
	}
	if len(b.items) == 1 {
		delete(r.group.apart, b.items[0])
	}
	return southbound.Good
}

// split asks for both halves of a block that was refused. If either is given, it
// is what lies between them that does not exist.
func (r *round) split(ctx context.Context, b *block) error {
	left, right, between := b.split(r.group.items)
	first, err := r.read(ctx, &left)
	if err != nil {
		return err
	}
	second, err := r.read(ctx, &right)
	if err == nil && first && second {
		r.learned = true
		r.adapter.learn(between, true)
	}
	return err
}

// An answer is what came of one request.
type answer struct {
	data    []byte // when quality is good
	quality southbound.Quality
	absent  bool // the unit did not answer, or a gateway said so
}

// ask sends one request, and repeats it where that may help.
func (r *round) ask(ctx context.Context, b *block) (answer, error) {
	for tries := 0; ; tries++ {
		data, err := r.adapter.bus.readBlock(ctx, &r.turn, b)
		a, again, err := classify(data, err)
		if err != nil {
			return a, err
		}
		pause := busyPause
		if a.absent || a.quality == southbound.BadCRC {
			again, pause = 0, 0
			if r.turn.rank == toPoll {
				again = r.adapter.retries
			}
		}
		if tries >= again {
			return a, nil
		}
		if err := wait(ctx, pause); err != nil {
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

func (r *round) fail(b *block, q southbound.Quality) {
	b.fill(r.group.fields, r.group.items, r.readings, answer{quality: q})
}

// fill puts what an answer says into the readings of the block's fields.
func (b *block) fill(fields []field, all []item, readings []southbound.Reading, a answer) {
	now := time.Now()
	for _, i := range b.items {
		for _, at := range all[i].fields {
			f, r := &fields[at], &readings[at]
			r.Value, r.Quality, r.Time = nil, a.quality, now
			if a.quality == southbound.Good {
				r.Value, r.Quality = f.decode(b.wire(f, a.data))
			}
		}
	}
}
