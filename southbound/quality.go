package southbound

import (
	"errors"
	"fmt"
)

// ErrRejected is wrapped by Writer.Write when the device surely did not change.
var ErrRejected = errors.New("rejected")

// ErrExpired is wrapped, beside ErrRejected, when the reason is the deadline.
var ErrExpired = errors.New("its time is over")

// Quality says how far a value can be trusted. It is modelled on OPC UA.
type Quality uint8

// The qualities, worst first where the zero value is concerned.
const (
	BadInit        Quality = iota // not read since start
	BadTimeout                    // no answer in time
	BadCRC                        // a broken answer
	BadOffline                    // no connection, or the unit is in backoff
	BadAddress                    // the device knows no such address
	BadFunction                   // the device does not support the request
	BadDevice                     // the device reports its own failure
	BadSensor                     // the device delivered a declared "no value"
	BadDisabled                   // switched off by configuration
	UncertainStale                // the last value, too old
	UncertainRange                // outside the declared range
	UncertainClock                // our clock is not set
	GoodOverride                  // forced by an operator
	Good
)

var qualityNames = [...]string{
	BadInit: "bad.init", BadTimeout: "bad.timeout", BadCRC: "bad.crc", BadOffline: "bad.offline",
	BadAddress: "bad.address", BadFunction: "bad.function", BadDevice: "bad.device",
	BadSensor: "bad.sensor", BadDisabled: "bad.disabled", UncertainStale: "uncertain.stale",
	UncertainRange: "uncertain.range", UncertainClock: "uncertain.clock",
	GoodOverride: "good.override", Good: "good",
}

// String returns the name used in payloads, "bad.timeout" for example.
func (q Quality) String() string {
	if int(q) < len(qualityNames) {
		return qualityNames[q]
	}
	return fmt.Sprintf("quality(%d)", uint8(q))
}

// ParseQuality is the inverse of String.
func ParseQuality(s string) (Quality, error) {
	for q, name := range qualityNames {
		if name == s {
			return Quality(q), nil
		}
	}
	return BadInit, fmt.Errorf("unknown quality %q", s)
}

// codes are the status codes of OPC UA (Part 4, 7.39) that mean the same.
var codes = [...]uint32{
	BadInit: 0x80320000, BadTimeout: 0x80050000, BadCRC: 0x80050000, BadOffline: 0x80310000,
	BadAddress: 0x80890000, BadFunction: 0x80890000, BadDevice: 0x808B0000,
	BadSensor: 0x808C0000, BadDisabled: 0x808D0000, UncertainStale: 0x40900000,
	UncertainRange: 0x40940000, UncertainClock: 0x40000000,
	GoodOverride: 0x00960000, Good: 0,
}

// Code returns the status code of OPC UA that says the same, or nearly so.
func (q Quality) Code() uint32 {
	if int(q) < len(codes) {
		return codes[q]
	}
	return 0x80000000 // Bad
}

// HasValue reports whether a reading of this quality carries a value.
func (q Quality) HasValue() bool { return q >= UncertainStale && q <= Good }
