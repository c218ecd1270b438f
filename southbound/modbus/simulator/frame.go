package simulator

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

// A message is one request or answer.
type message struct {
	transaction uint16
	unit        byte
	pdu         []byte
}

// A framing takes requests off a connection and puts answers on it. take
// returns how many bytes it used up: none while more must come, and with a nil
// pdu for what is no request.
type framing struct {
	take func(in []byte) (message, int)
	put  func(message) []byte
}

var (
	mbap     = framing{takeMBAP, putMBAP}
	rtu      = framing{takeRTU, putRTU}
	ascii    = framing{takeASCII, putASCII}
	framings = map[string]framing{"tcp": mbap, "tls": mbap, "udp": mbap, "rtu": rtu, "rtu+tcp": rtu, "ascii": ascii, "ascii+tcp": ascii}
)

func takeMBAP(in []byte) (message, int) {
	if len(in) < 7 {
		return message{}, 0
	}
	size := 6 + int(binary.BigEndian.Uint16(in[4:]))
	if size < 8 || size > 260 {
		return message{}, len(in)
	}
	if len(in) < size {
		return message{}, 0
	}
	return message{binary.BigEndian.Uint16(in), in[6], bytes.Clone(in[7:size])}, size
}

func putMBAP(m message) []byte {
	out := binary.BigEndian.AppendUint16(nil, m.transaction)
	out = append(out, 0, 0)
	out = binary.BigEndian.AppendUint16(out, uint16(len(m.pdu)+1))
	return append(append(out, m.unit), m.pdu...)
}

func takeRTU(in []byte) (message, int) {
	if len(in) < 7 {
		return message{}, 0
	}
	size := 8
	switch in[1] {
	case 43:
		size = 7
	case 15, 16:
		size = 9 + int(in[6])
	case 22:
		size = 10
	}
	if len(in) < size {
		return message{}, 0
	}
	if checksum(in[:size-2]) != binary.LittleEndian.Uint16(in[size-2:]) {
		return message{}, len(in)
	}
	return message{0, in[0], bytes.Clone(in[1 : size-2])}, size
}

func putRTU(m message) []byte {
	out := append([]byte{m.unit}, m.pdu...)
	return binary.LittleEndian.AppendUint16(out, checksum(out))
}

// checksum is the CRC of an RTU frame, bit by bit as in the appendix of the
// standard.
func checksum(data []byte) uint16 {
	sum := uint16(0xFFFF)
	for _, b := range data {
		sum ^= uint16(b)
		for range 8 {
			carry := sum&1 == 1
			sum >>= 1
			if carry {
				sum ^= 0xA001
			}
		}
	}
	return sum
}

func takeASCII(in []byte) (message, int) {
	end := bytes.Index(in, []byte("\r\n"))
	if end < 0 {
		return message{}, 0
	}
	line := string(in[:end])
	var raw []byte
	for i := 1; i+1 < len(line); i += 2 {
		b, err := strconv.ParseUint(line[i:i+2], 16, 8)
		if err != nil {
			return message{}, end + 2
		}
		raw = append(raw, byte(b))
	}
	var sum byte
	for _, b := range raw {
		sum += b
	}
	if line == "" || line[0] != ':' || len(raw) < 4 || sum != 0 {
		return message{}, end + 2
	}
	return message{0, raw[0], raw[1 : len(raw)-1]}, end + 2
}

func putASCII(m message) []byte {
	raw := append([]byte{m.unit}, m.pdu...)
	var sum byte
	for _, b := range raw {
		sum += b
	}
	return fmt.Appendf(nil, ":%X%02X\r\n", raw, -sum)
}
