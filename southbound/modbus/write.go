package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/goburrow/modbus"
	"github.com/headgate-io/headgate/southbound"
)

// Write gives a tag a value: with function 5 or 6, or 15 or 16 where it takes
// more than one. Of a part of a register the rest stays as it is, by function 22,
// or where the device has none, by reading and writing in one turn of the bus.
func (s *session) Write(ctx context.Context, cmd southbound.Command) error {
	f := s.field(cmd.Tag)
	if f == nil || !f.Writable {
		return unfit("no tag %.64q that may be written", cmd.Tag)
	}
	if s.isClosed() {
		return fmt.Errorf("%w: %w", southbound.ErrRejected, errSessionClosed)
	}
	power, err := s.powerFor(ctx, f)
	if err != nil {
		return err
	}
	w, _, err := f.encode(cmd.Value, power)
	if err != nil {
		return err
	}
	return s.adapter.bus.write(ctx, writing{
		adapter: s.adapter, field: f, value: w, by: cmd.Deadline, noMask: &s.noMask,
	})
}

// Fit makes the value one that the tag can have.
func (s *session) Fit(tag string, value any) (any, error) {
	f := s.field(tag)
	if f == nil || !f.Writable {
		return nil, unfit("no tag %.64q that may be written", tag)
	}
	if f.ScaleFrom != "" { // the power of ten is the device's
		return value, nil
	}
	_, fit, err := f.encode(value, 0)
	return fit, err
}

// Get reads tags beside the schedule.
func (s *session) Get(ctx context.Context, tags []string) ([]southbound.Reading, error) {
	var fields []field
	var asked []int // where in fields the tags are; behind one is its power of ten
	for _, name := range tags {
		f := s.field(name)
		if f == nil {
			return nil, fmt.Errorf("modbus: no tag %.64q", name)
		}
		asked = append(asked, len(fields))
		f.from = -1
		fields = append(fields, *f)
		if f.ScaleFrom != "" {
			fields[len(fields)-1].from = len(fields)
			fields = append(fields, *s.field(f.ScaleFrom))
		}
	}
	readings, err := s.getFields(ctx, fields)
	if err != nil {
		return nil, err
	}
	wanted := make([]southbound.Reading, len(asked))
	for i, at := range asked {
		if wanted[i] = readings[at]; fields[at].from >= 0 {
			wanted[i] = fields[at].powerOfTen(readings[at], readings[fields[at].from])
		}
	}
	return wanted, nil
}

func (s *session) getFields(ctx context.Context, fields []field) ([]southbound.Reading, error) {
	readings := make([]southbound.Reading, len(fields))
	for i := range fields {
		readings[i].Tag = fields[i].Name
	}
	all := items(fields)
	for _, b := range plan(all, nil, reach{limit: maxRegisters}) {
		data, err := s.adapter.bus.read(ctx, s.adapter.unit, b.table, b.address, b.quantity)
		a, _, err := classify(data, err)
		if err != nil {
			return nil, err
		}
		b.fill(fields, all, readings, a)
	}
	return readings, nil
}

func (s *session) field(name string) *field {
	for _, g := range s.adapter.groups {
		for i := range g.fields {
			if g.fields[i].Name == name {
				f := g.fields[i]
				return &f
			}
		}
	}
	return nil
}

func (s *session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// powerFor reads the power of ten that a tag's value has in the device.
func (s *session) powerFor(ctx context.Context, f *field) (int64, error) {
	if f.ScaleFrom == "" {
		return 0, nil
	}
	readings, err := s.Get(ctx, []string{f.ScaleFrom})
	if err != nil {
		return 0, fmt.Errorf("%w: read %s: %w", southbound.ErrRejected, f.ScaleFrom, err)
	}
	power, ok := readings[0].Value.(int64)
	if !ok || power < -10 || power > 10 {
		return 0, unfit("the power of ten in %s cannot be had: %s", f.ScaleFrom, readings[0].Quality)
	}
	return power, nil
}

// A writing is one value on its way to a unit.
type writing struct {
	adapter *adapter
	field   *field
	value   wireValue
	by      time.Time
	noMask  *atomic.Bool // the unit knows no function 22
}

// write sends one value, once. Its error wraps ErrRejected when the device was
// surely not changed.
func (b *Bus) write(ctx context.Context, w writing) error {
	if w.adapter.unit == 0 && !b.endpoints[0].transport.numbered {
		return unfit("unit 0 is every unit of the line, and none of them answers")
	}
	l, err := b.acquire(ctx, w.adapter.unit)
	if err != nil {
		return fmt.Errorf("%w: %w", southbound.ErrRejected, err)
	}
	defer b.release(l)
	if l.stream != nil && l.stream.over() != nil {
		l.drop() // what it would take cannot be sent twice
	}
	for tries := 0; ; tries++ {
		err := l.writeOnce(ctx, &w)
		var exception *modbus.ModbusError
		busy := errors.As(err, &exception) && exception.ExceptionCode == modbus.ExceptionCodeServerDeviceBusy
		if !busy || tries == busyRetries {
			return w.outcome(err, l.sent)
		}
		if err := wait(ctx, busyPause); err != nil {
			return fmt.Errorf("%w: %w", southbound.ErrRejected, err)
		}
	}
}

// outcome says what an error means for the device.
func (w *writing) outcome(err error, sent bool) error {
	var exception *modbus.ModbusError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, southbound.ErrRejected):
		return err
	case errors.As(err, &exception):
		switch exception.ExceptionCode {
		case modbus.ExceptionCodeIllegalFunction:
			return unfit("the device does not support writing %s: exception 1", w.field.Table)
		case modbus.ExceptionCodeIllegalDataAddress:
			return unfit("the device has no %s %d to be written: exception 2", w.field.Table, w.field.Address)
		case modbus.ExceptionCodeIllegalDataValue:
			return unfit("the device refuses the value: exception 3")
		case modbus.ExceptionCodeServerDeviceBusy:
			return unfit("the device is busy: exception 6")
		case modbus.ExceptionCodeGatewayPathUnavailable:
			return unfit("the Modbus gateway has no way to the unit: exception 10")
		}
		return fmt.Errorf("the device answered with exception %d", exception.ExceptionCode)
	case !sent:
		return fmt.Errorf("%w: %w", southbound.ErrRejected, err)
	}
	return err
}

// writeOnce sends the request that the value takes.
func (l *line) writeOnce(ctx context.Context, w *writing) error {
	f, unit := w.field, w.adapter.unit
	if w.value.mask != nil {
		return l.writePart(ctx, w)
	}
	_, err := l.ask(ctx, unit, w.request(f.Address, w.value.data), w.by)
	return err
}

// request writes registers, or one bit.
func (w *writing) request(address uint16, data []byte) request {
	return func(c modbus.Client) ([]byte, error) {
		bit := w.field.Table.bits()
		switch {
		case bit && w.adapter.forceFC15:
			return c.WriteMultipleCoils(address, 1, data)
		case bit:
			return c.WriteSingleCoil(address, uint16(data[0])*0xFF00)
		case len(data) == 2 && !w.adapter.forceFC16:
			return c.WriteSingleRegister(address, binary.BigEndian.Uint16(data))
		}
		return c.WriteMultipleRegisters(address, uint16(len(data)/2), data)
	}
}

// writePart changes some bits of registers and leaves the others.
func (l *line) writePart(ctx context.Context, w *writing) error {
	f, unit := w.field, w.adapter.unit
	data, mask := w.value.data, w.value.mask
	if len(data) == 2 && !w.noMask.Load() {
		set, keep := binary.BigEndian.Uint16(data), ^binary.BigEndian.Uint16(mask)
		_, err := l.ask(ctx, unit, func(c modbus.Client) ([]byte, error) { return c.MaskWriteRegister(f.Address, keep, set&^keep) }, w.by)
		var exception *modbus.ModbusError
		if !errors.As(err, &exception) || exception.ExceptionCode != modbus.ExceptionCodeIllegalFunction {
			return err
		}
		w.noMask.Store(true)
	}
	before, err := l.ask(ctx, unit, reads(f.Table, f.Address, uint16(f.size)), w.by)
	if err != nil {
		return fmt.Errorf("%w: read the rest of the registers: %w", southbound.ErrRejected, err)
	}
	after := slices.Clone(before)
	for i := range after {
		after[i] = before[i]&^mask[i] | data[i]&mask[i]
	}
	_, err = l.ask(ctx, unit, w.request(f.Address, after), w.by)
	return err
}
