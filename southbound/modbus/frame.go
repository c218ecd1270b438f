package modbus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/goburrow/modbus"
)

// Sizes of an MBAP frame (Modbus Messaging on TCP/IP, 3.1.3).
const (
	headerSize = 7   // transaction, protocol, length, unit
	maxFrame   = 260 // header and a protocol data unit of 253 bytes
)

// errBadFrame is wrapped by every error that says the peer broke the protocol.
var errBadFrame = errors.New("unexpected answer")

func badFrame(format string, args ...any) error {
	return fmt.Errorf("%w: %s; check that the address is a Modbus TCP device", errBadFrame, fmt.Sprintf(format, args...))
}

// A packager frames one request to one unit. It implements modbus.Packager.
type packager struct {
	transaction uint16
	unit        byte
}

func (p packager) Encode(pdu *modbus.ProtocolDataUnit) ([]byte, error) {
	adu := make([]byte, headerSize, headerSize+1+len(pdu.Data))
	binary.BigEndian.PutUint16(adu[0:], p.transaction)
	binary.BigEndian.PutUint16(adu[4:], uint16(2+len(pdu.Data)))
	adu[6] = p.unit
	adu = append(adu, pdu.FunctionCode)
	return append(adu, pdu.Data...), nil
}

// Verify holds an answer against its request to read registers. It leaves
// nothing to the codec, which takes any other function for an exception.
func (p packager) Verify(request, answer []byte) error {
	if len(request) != headerSize+5 || len(answer) < headerSize+2 {
		return badFrame("%d bytes", len(answer))
	}
	if got := binary.BigEndian.Uint16(answer); got != p.transaction {
		return badFrame("transaction %d for %d", got, p.transaction)
	}
	if answer[6] != p.unit {
		return badFrame("unit %d for unit %d", answer[6], p.unit)
	}
	function, want := answer[headerSize], request[headerSize]
	if function == want|0x80 {
		if len(answer) != headerSize+2 {
			return badFrame("exception of %d bytes", len(answer))
		}
		return nil
	}
	if function != want {
		return badFrame("function %d for %d", function, want)
	}
	size := 2 * int(binary.BigEndian.Uint16(request[headerSize+3:]))
	if count := int(answer[headerSize+1]); count != size || len(answer) != headerSize+2+size {
		return badFrame("%d data bytes, announced as %d, for %d", len(answer)-headerSize-2, count, size)
	}
	return nil
}

func (p packager) Decode(adu []byte) (*modbus.ProtocolDataUnit, error) {
	if len(adu) < headerSize+1 {
		return nil, badFrame("%d bytes", len(adu))
	}
	return &modbus.ProtocolDataUnit{FunctionCode: adu[headerSize], Data: adu[headerSize+1:]}, nil
}

// A transporter sends one framed request and returns its answer. It implements
// modbus.Transporter.
type transporter func(request []byte) ([]byte, error)

func (t transporter) Send(request []byte) ([]byte, error) { return t(request) }

// readFrame returns the next whole frame. After an error that is a timeout
// nothing is lost: what arrived of a frame stays in r for the next call. The
// frame is the caller's.
func readFrame(r *bufio.Reader) ([]byte, error) {
	header, err := r.Peek(headerSize)
	if err != nil {
		return nil, err
	}
	if protocol := binary.BigEndian.Uint16(header[2:]); protocol != 0 {
		return nil, badFrame("protocol identifier %#04x", protocol)
	}
	size := headerSize - 1 + int(binary.BigEndian.Uint16(header[4:]))
	if size < headerSize+2 || size > maxFrame {
		return nil, badFrame("frame of %d bytes", size)
	}
	peeked, err := r.Peek(size)
	if err != nil {
		return nil, err
	}
	frame := append([]byte(nil), peeked...)
	_, err = r.Discard(size)
	return frame, err
}
