package modbus

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goburrow/modbus"
)

// A Frame is one request or answer, as it went over a bus.
type Frame struct {
	Time        time.Time
	Sent        bool // by us
	Transaction uint16
	Unit        byte
	PDU         []byte // of what was no frame, its bytes
	Note        string // what is wrong with it, if anything
}

// watchers are told of every frame. Without any, a frame costs one atomic load.
type watchers struct {
	count atomic.Int32
	mu    sync.Mutex // covers all
	all   map[int]func(Frame)
	next  int
}

// Watch calls f with every frame from now on until stop is called. f is called
// while the bus waits for it: it must be quick, and must not call the bus.
func (b *Bus) Watch(f func(Frame)) (stop func()) {
	w := &b.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[int]func(Frame){}
	}
	id := w.next
	w.next++
	w.all[id] = f
	w.count.Add(1)
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, id)
		w.count.Add(-1)
	})
}

func (w *watchers) see(f frame, sent bool, note error) {
	if w.count.Load() == 0 {
		return
	}
	seen := Frame{Time: time.Now(), Sent: sent, Transaction: f.transaction, Unit: f.unit, PDU: append([]byte(nil), f.pdu...)}
	if note != nil {
		seen.Note = note.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tell := range w.all {
		tell(seen)
	}
}

var functionNames = map[byte]string{
	1: "read coils", 2: "read discrete inputs", 3: "read holding registers", 4: "read input registers",
	5: "write coil", 6: "write register", 15: "write coils", 16: "write registers", 22: "mask write register", 43: "identify",
}

var exceptionNames = map[byte]string{
	1: "illegal function", 2: "illegal address", 3: "illegal value", 4: "device failure", 5: "acknowledge", 6: "busy",
	8: "memory parity", 10: "gateway has no path", 11: "gateway target does not answer",
}

// String says what the frame is about, in one line.
func (f Frame) String() string {
	arrow := "<-"
	if f.Sent {
		arrow = "->"
	}
	if f.Note != "" {
		return fmt.Sprintf("%s %x: %s", arrow, f.PDU, f.Note)
	}
	return fmt.Sprintf("%s unit %d  %s", arrow, f.Unit, describe(f.PDU, f.Sent))
}

func describe(pdu []byte, request bool) string {
	if len(pdu) < 2 {
		return fmt.Sprintf("%x", pdu)
	}
	function := pdu[0] &^ exceptionFlag
	name := functionNames[function]
	if name == "" {
		name = fmt.Sprintf("function %d", function)
	}
	switch {
	case pdu[0]&exceptionFlag != 0:
		return fmt.Sprintf("%s: exception %d, %s", name, pdu[1], exceptionNames[pdu[1]])
	case function >= readCoils && function <= readInputs && request && len(pdu) == 5:
		first, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
		return fmt.Sprintf("%s %d to %d", name, first, first+n-1)
	case function >= readHolding && function <= readInputs && !request:
		return name + ":" + words(pdu[2:])
	case function <= readDiscretes && !request:
		return fmt.Sprintf("%s: %08b", name, pdu[2:])
	case (function == modbus.FuncCodeWriteSingleRegister || function == modbus.FuncCodeWriteSingleCoil) && len(pdu) == 5:
		return fmt.Sprintf("%s %d:%s", name, binary.BigEndian.Uint16(pdu[1:]), words(pdu[3:]))
	case writtenSize(function) == 5 && len(pdu) >= 5:
		first, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
		text := fmt.Sprintf("%s %d to %d", name, first, first+n-1)
		if len(pdu) > 6 && function == modbus.FuncCodeWriteMultipleRegisters {
			text += ":" + words(pdu[6:])
		}
		return text
	}
	return fmt.Sprintf("%s %x", name, pdu[1:])
}

func words(data []byte) string {
	var b strings.Builder
	for ; len(data) >= 2; data = data[2:] {
		fmt.Fprintf(&b, " %04X", binary.BigEndian.Uint16(data))
	}
	return b.String()
}
