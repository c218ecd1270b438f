package modbus

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// A frame is one question to one unit, or its answer.
type frame struct {
	transaction uint16 // zero where the transport has none
	unit        byte
	pdu         []byte
	by          time.Time // a request: after this it must not go out; zero: whenever
}

// A framing is how protocol data units lie on a connection.
type framing interface {
	encode(request frame) []byte
	// cut takes the first frame off in, which is the answer to request or
	// to another. n is how many bytes it used up, and zero while more must
	// come. An error says that in is no frame. The frame shares in's bytes.
	cut(in []byte, request frame) (f frame, n int, err error)
	// chars is how many characters n bytes of unit and PDU take on a line.
	chars(n int) int
}

// Sizes of an MBAP frame (Modbus Messaging on TCP/IP, 3.1.3).
const (
	headerSize = 7 // transaction, protocol, length, unit
	maxFrame   = headerSize + maxPDU
)

// mbap is the framing of Modbus TCP, over TLS and UDP too.
type mbap struct{}

func (mbap) encode(r frame) []byte {
	adu := make([]byte, headerSize, headerSize+len(r.pdu))
	binary.BigEndian.PutUint16(adu[0:], r.transaction)
	binary.BigEndian.PutUint16(adu[4:], uint16(1+len(r.pdu)))
	adu[6] = r.unit
	return append(adu, r.pdu...)
}

func (mbap) cut(in []byte, _ frame) (frame, int, error) {
	if len(in) < headerSize {
		return frame{}, 0, nil
	}
	if protocol := binary.BigEndian.Uint16(in[2:]); protocol != 0 {
		return frame{}, 0, badFrame("protocol identifier %#04x", protocol)
	}
	size := headerSize - 1 + int(binary.BigEndian.Uint16(in[4:]))
	if size < headerSize+2 || size > maxFrame {
		return frame{}, 0, badFrame("frame of %d bytes", size)
	}
	if len(in) < size {
		return frame{}, 0, nil
	}
	return frame{transaction: binary.BigEndian.Uint16(in), unit: in[6], pdu: in[headerSize:size]}, size, nil
}

func (mbap) chars(n int) int { return n + headerSize - 1 }

// rtu is the framing of serial lines (Modbus over Serial Line, 2.5.1). Where a
// frame ends is known from its length, never from a pause.
type rtu struct{}

const minRTU = 5 // an exception: unit, function, code, two of checksum

func (rtu) encode(r frame) []byte {
	adu := append([]byte{r.unit}, r.pdu...)
	return binary.LittleEndian.AppendUint16(adu, crc16(adu))
}

func (rtu) cut(in []byte, request frame) (frame, int, error) {
	if len(in) < minRTU {
		return frame{}, 0, nil
	}
	size := minRTU
	switch function := in[1]; {
	case function&exceptionFlag != 0:
	case function == identify:
		n := identitySize(in[1:])
		if n == 0 {
			return frame{}, 0, nil
		}
		size = 1 + n + 2
	case in[0] == request.unit && function == request.pdu[0]:
		size = 1 + answerSize(request.pdu) + 2
	case function >= readCoils && function <= readInputs:
		size = 3 + int(in[2]) + 2
	case writtenSize(function) > 0:
		size = 1 + writtenSize(function) + 2
	default:
		return frame{}, 0, badFrame("function %d of unit %d", function, in[0])
	}
	if len(in) < size {
		return frame{}, 0, nil
	}
	if got, want := binary.LittleEndian.Uint16(in[size-2:]), crc16(in[:size-2]); got != want {
		return frame{}, 0, badFrame("checksum %04x for %04x", got, want)
	}
	return frame{unit: in[0], pdu: in[1 : size-2]}, size, nil
}

func (rtu) chars(n int) int { return n + 2 }

// crcTable is the checksum of each byte, for the reflected polynomial 0xA001.
var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i)
		for range 8 {
			odd := crc & 1
			crc >>= 1
			crc ^= odd * 0xA001
		}
		table[i] = crc
	}
	return table
}()

// crc16 is the checksum of RTU frames (Modbus over Serial Line, 6.2.2).
func crc16(data []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, b := range data {
		crc = crc>>8 ^ crcTable[byte(crc)^b]
	}
	return crc
}

// ascii is the other framing of serial lines (Modbus over Serial Line, 2.5.2):
// a colon, upper-case hexadecimal, CR and LF.
type ascii struct{}

const maxASCII = 1 + 2*(1+maxPDU+1) + 2

func (ascii) encode(r frame) []byte {
	raw := append([]byte{r.unit}, r.pdu...)
	raw = append(raw, lrc(raw))
	adu := append([]byte{':'}, bytes.ToUpper(hex.AppendEncode(nil, raw))...)
	return append(adu, '\r', '\n')
}

func (ascii) cut(in []byte, _ frame) (frame, int, error) {
	if len(in) > 0 && in[0] != ':' {
		return frame{}, 0, badFrame("%q before a frame", in[0])
	}
	end := bytes.IndexByte(in, '\n')
	if end < 0 {
		if len(in) >= maxASCII {
			return frame{}, 0, badFrame("a frame of more than %d characters", maxASCII)
		}
		return frame{}, 0, nil
	}
	text, closed := bytes.CutSuffix(in[1:end], []byte{'\r'})
	raw := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(raw, text); err != nil || !closed || len(raw) < 4 || bytes.ContainsAny(text, "abcdef") {
		return frame{}, 0, badFrame("%.32q", text)
	}
	body, sum := raw[:len(raw)-1], raw[len(raw)-1]
	if lrc(body) != sum {
		return frame{}, 0, badFrame("checksum %02x for %02x", sum, lrc(body))
	}
	return frame{unit: body[0], pdu: body[1:]}, end + 1, nil
}

func (ascii) chars(n int) int { return 1 + 2*(n+1) + 2 }

// lrc is the checksum of ASCII frames (Modbus over Serial Line, 6.2.1).
func lrc(data []byte) byte {
	var sum byte
	for _, b := range data {
		sum -= b
	}
	return sum
}
