package simulator

import (
	"encoding/binary"
	"errors"

	"github.com/headgate-io/headgate/southbound/modbus"
)

// tables are those of the functions 1 to 4.
var tables = [...]modbus.Table{modbus.Coil, modbus.Discrete, modbus.Holding, modbus.Input}

// answer returns the protocol data unit that answers request, or nothing.
func (s *Simulator) answer(unit byte, request []byte) []byte {
	a, err := s.serve(unit, request)
	if err == nil {
		return a
	}
	if errors.Is(err, ErrSilent) {
		return nil
	}
	code := illegalFunction
	_ = errors.As(err, &code) // every error is one, or as good as one
	return []byte{request[0] | 0x80, byte(code)}
}

func (s *Simulator) serve(unit byte, request []byte) ([]byte, error) {
	if len(request) == 4 && request[0] == 43 {
		return s.serveIdentity(unit, request)
	}
	if len(request) < 5 {
		return nil, illegalFunction
	}
	function, address, number := request[0], binary.BigEndian.Uint16(request[1:]), binary.BigEndian.Uint16(request[3:])
	switch function {
	case 1, 2, 3, 4:
		return s.serveRead(unit, function, address, number)
	case 5:
		return request, s.write(unit, modbus.Coil, address, []uint16{number >> 8 & 1})
	case 6:
		return request, s.write(unit, modbus.Holding, address, []uint16{number})
	case 15, 16:
		values, err := written(request, int(number))
		if err != nil {
			return nil, err
		}
		table := modbus.Coil
		if function == 16 {
			table = modbus.Holding
		}
		return request[:5], s.write(unit, table, address, values)
	case 22:
		return s.serveMask(unit, request)
	}
	return nil, illegalFunction
}

// serveIdentity answers function 43, 14: maker, product and version.
func (s *Simulator) serveIdentity(unit byte, request []byte) ([]byte, error) {
	if s.cfg.Read != nil || request[1] != 14 {
		return nil, illegalFunction
	}
	if !s.has(unit) {
		return nil, noSuchUnit
	}
	out := []byte{43, 14, 1, 1, 0, 0, 3}
	for i, text := range []string{"Headgate", Devices()[unit-1].ID, "1.0"} {
		out = append(append(out, byte(i), byte(len(text))), text...)
	}
	return out, nil
}

// serveMask changes some bits of a register: those of the first mask stay, those
// of the second are set where the first has none.
func (s *Simulator) serveMask(unit byte, request []byte) ([]byte, error) {
	if len(request) != 7 {
		return nil, illegalValue
	}
	address, and, or := binary.BigEndian.Uint16(request[1:]), binary.BigEndian.Uint16(request[3:]), binary.BigEndian.Uint16(request[5:])
	old, err := s.read(unit, modbus.Holding, address, 1)
	if err != nil {
		return nil, err
	}
	return request, s.write(unit, modbus.Holding, address, []uint16{old[0]&and | or&^and})
}

func (s *Simulator) serveRead(unit, function byte, address, quantity uint16) ([]byte, error) {
	bits := function <= 2
	if quantity == 0 || bits && quantity > 2000 || !bits && quantity > 125 {
		return nil, illegalValue
	}
	values, err := s.read(unit, tables[function-1], address, quantity)
	if err != nil {
		return nil, err
	}
	data := packed(values, bits)
	return append([]byte{function, byte(len(data))}, data...), nil
}

func packed(values []uint16, bits bool) []byte {
	if !bits {
		data := make([]byte, 0, 2*len(values))
		for _, v := range values {
			data = binary.BigEndian.AppendUint16(data, v)
		}
		return data
	}
	data := make([]byte, (len(values)+7)/8)
	for i, v := range values {
		data[i/8] |= byte(v&1) << (i % 8)
	}
	return data
}

// written returns the n values of a request to write several.
func written(request []byte, n int) ([]uint16, error) {
	size := 2 * n
	if request[0] == 15 {
		size = (n + 7) / 8
	}
	if n == 0 || len(request) != 6+size || int(request[5]) != size {
		return nil, illegalValue
	}
	data, values := request[6:], make([]uint16, n)
	for i := range values {
		if request[0] == 15 {
			values[i] = uint16(data[i/8]) >> (i % 8) & 1
		} else {
			values[i] = binary.BigEndian.Uint16(data[2*i:])
		}
	}
	return values, nil
}
