package simulator

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Fault is something that happens to answers.
type Fault string

// The faults. What a transport does not have is left out there: a checksum of
// Modbus TCP for example.
const (
	Slow          Fault = "slow"           // takes a while, and is in time
	Late          Fault = "late"           // comes after the client stopped waiting
	Drop          Fault = "drop"           // does not come
	Duplicate     Fault = "duplicate"      // comes twice
	Split         Fault = "split"          // comes in pieces
	Transaction   Fault = "tid"            // with the number of another request
	Unit          Fault = "unit"           // of another unit
	Function      Fault = "function"       // of another function
	Length        Fault = "length"         // with fewer or more registers than asked for
	Checksum      Fault = "crc"            // with a wrong checksum
	Echo          Fault = "echo"           // after an echo of the request
	Garbage       Fault = "garbage"        // after bytes that mean nothing
	Refusal       Fault = "exception"      // refused, by some exception
	HangUp        Fault = "close"          // cut off in the middle, with the connection
	OneConnection Fault = "one-connection" // a second connection is closed at once
)

// Faults lists them all.
func Faults() []Fault {
	return []Fault{Slow, Late, Drop, Duplicate, Split, Transaction, Unit, Function, Length, Checksum, Echo, Garbage, Refusal, HangUp, OneConnection}
}

// ParseFaults takes names apart that are separated by commas.
func ParseFaults(text string) ([]Fault, error) {
	var all []Fault
	for name := range strings.SplitSeq(text, ",") {
		fault := Fault(strings.TrimSpace(name))
		if fault == "" {
			continue
		}
		if !slices.Contains(Faults(), fault) {
			return nil, fmt.Errorf("unknown fault %q; known are %v", fault, Faults())
		}
		all = append(all, fault)
	}
	return all, nil
}

// A part is bytes that go out after a while, with a pause within them if rest
// is not empty. hangUp ends the connection instead.
type part struct {
	after  time.Duration // since the request came
	data   []byte
	pause  time.Duration
	rest   []byte
	hangUp bool
}

// hurt returns what goes out for an answer: as it is, or hurt by a fault.
func (s *Simulator) hurt(f framing, request, answer message) []part {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := f.put(answer)
	usual := []part{{data: whole}}
	if len(s.cfg.Faults) == 0 || s.rand.Float64() >= s.cfg.FaultRate {
		return usual
	}
	late := s.cfg.Late + time.Duration(s.rand.Int64N(int64(s.cfg.Late/2)+1))
	slow := time.Duration(s.rand.Int64N(int64(s.cfg.Slow) + 1))
	numbered := s.scheme == "tcp" || s.scheme == "tls" || s.scheme == "udp"
	switch fault := s.cfg.Faults[s.rand.IntN(len(s.cfg.Faults))]; fault {
	case Slow:
		return []part{{after: slow, data: whole}}
	case Late:
		return []part{{after: late, data: whole}}
	case Drop:
		return nil
	case Duplicate:
		if numbered {
			return append(usual, part{after: late, data: whole})
		}
		return []part{{data: append(bytes.Clone(whole), whole...)}}
	case Split:
		cut := s.rand.IntN(len(whole))
		return []part{{data: whole[:cut], pause: slow, rest: whole[cut:]}}
	case Echo:
		return []part{{data: append(f.put(request), whole...)}}
	case Garbage:
		noise := make([]byte, 1+s.rand.IntN(20))
		for i := range noise {
			noise[i] = byte(s.rand.Uint32())
		}
		return []part{{data: append(noise, whole...)}}
	case HangUp:
		return []part{{data: whole[:s.rand.IntN(len(whole))]}, {hangUp: s.scheme != "rtu" && s.scheme != "ascii"}}
	case Checksum:
		return []part{{data: s.spoil(whole, numbered)}}
	default:
		return []part{{data: f.put(s.lie(fault, answer))}}
	}
}

// lie returns the answer with one field changed, in a frame that is whole.
func (s *Simulator) lie(fault Fault, a message) message {
	a.pdu = bytes.Clone(a.pdu)
	switch fault {
	case Transaction: // of an earlier request, or of one far away
		a.transaction += [...]uint16{0xFFFF, 0xFFFE, 0x5000}[s.rand.IntN(3)]
	case Unit: // that nobody asks: one that is asked next would be believed
		a.unit = byte(100 + s.rand.IntN(100))
	case Function:
		a.pdu[0] = [...]byte{1, 2, 5, 6, 15, 16, 23, 43}[s.rand.IntN(8)]
	case Refusal:
		codes := []byte{1, 2, 3, 4, 5, 6, 8, 10, 11}
		a.pdu = []byte{a.pdu[0] | 0x80, codes[s.rand.IntN(len(codes))]}
	case Length:
		if a.pdu[0] <= 4 && len(a.pdu) > 4 && s.rand.IntN(2) == 0 {
			a.pdu = a.pdu[:len(a.pdu)-2]
			a.pdu[1] -= 2
		} else if a.pdu[0] <= 4 && len(a.pdu) < 240 {
			a.pdu = append(a.pdu, 0x12, 0x34)
			a.pdu[1] += 2
		}
	}
	return a
}

// spoil returns a frame with an error that its checksum finds; Modbus TCP has
// none, and gets another protocol identifier.
func (s *Simulator) spoil(whole []byte, numbered bool) []byte {
	whole = bytes.Clone(whole)
	at := s.rand.IntN(len(whole))
	switch {
	case strings.HasPrefix(s.scheme, "ascii"): // a digit for another
		at = 1 + s.rand.IntN(len(whole)-3)
		old := whole[at]
		for whole[at] == old {
			whole[at] = "0123456789ABCDEF"[s.rand.IntN(16)]
		}
	default:
		if numbered {
			at = 2
		}
		whole[at] ^= byte(1 + s.rand.IntN(255))
	}
	return whole
}
