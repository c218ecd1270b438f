package modbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/goburrow/modbus"
)

const (
	readCoils     = modbus.FuncCodeReadCoils
	readDiscretes = modbus.FuncCodeReadDiscreteInputs
	readHolding   = modbus.FuncCodeReadHoldingRegisters
	readInputs    = modbus.FuncCodeReadInputRegisters
	exceptionFlag = 0x80
	maxPDU        = 253
)

// errBadFrame is wrapped by every error that says the peer broke the protocol.
var errBadFrame = errors.New("unexpected answer")

func badFrame(format string, args ...any) error {
	return fmt.Errorf("%w: %s; check that the address is a Modbus device and that nothing else talks to it", errBadFrame, fmt.Sprintf(format, args...))
}

// answerSize is how long the answer to a request is, if it is no exception.
func answerSize(request []byte) int {
	if n := writtenSize(request[0]); n > 0 {
		return n
	}
	if request[0] == identify { // at most
		return maxPDU
	}
	quantity := int(binary.BigEndian.Uint16(request[3:]))
	switch request[0] {
	case readCoils, readDiscretes:
		return 2 + (quantity+7)/8
	}
	return 2 + 2*quantity
}

// writtenSize is how long the answer to a request to write is: as many bytes of
// the request, repeated. Zero: it is none.
func writtenSize(function byte) int {
	switch function {
	case modbus.FuncCodeWriteSingleCoil, modbus.FuncCodeWriteSingleRegister,
		modbus.FuncCodeWriteMultipleCoils, modbus.FuncCodeWriteMultipleRegisters:
		return 5
	case modbus.FuncCodeMaskWriteRegister:
		return 7
	}
	return 0
}

// verify holds an answer against its request. It leaves nothing to the codec,
// which takes any other function for an exception.
func verify(request, answer []byte) error {
	if len(request) < 4 || len(answer) < 2 {
		return badFrame("%d bytes", len(answer))
	}
	function, want := answer[0], request[0]
	if function == want|exceptionFlag {
		if len(answer) != 2 {
			return badFrame("exception of %d bytes", len(answer))
		}
		return nil
	}
	if function != want {
		return badFrame("function %d for %d", function, want)
	}
	if want == identify {
		if len(answer) != identitySize(answer) {
			return badFrame("an identity of %d bytes", len(answer))
		}
		return nil
	}
	size := answerSize(request)
	if writtenSize(want) > 0 {
		if !bytes.Equal(answer, request[:size]) {
			return badFrame("%x for the request %x", answer, request[:size])
		}
		return nil
	}
	if len(answer) != size || int(answer[1]) != size-2 {
		return badFrame("%d data bytes, announced as %d, for %d", len(answer)-2, answer[1], size-2)
	}
	return nil
}

// A codec lets the codec library make and take apart protocol data units. It is
// its packager, which wraps nothing, and its transporter.
type codec func(pdu []byte) ([]byte, error)

func (codec) Encode(pdu *modbus.ProtocolDataUnit) ([]byte, error) {
	return append([]byte{pdu.FunctionCode}, pdu.Data...), nil
}

func (codec) Verify(request, answer []byte) error { return verify(request, answer) }

func (codec) Decode(pdu []byte) (*modbus.ProtocolDataUnit, error) {
	return &modbus.ProtocolDataUnit{FunctionCode: pdu[0], Data: pdu[1:]}, nil
}

func (c codec) Send(pdu []byte) ([]byte, error) { return c(pdu) }
