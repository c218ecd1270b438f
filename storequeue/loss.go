package storequeue

import "time"

// A Loss is messages that were acknowledged and will not be delivered: what
// Headgate never does in silence.
type Loss struct {
	Reader   string // its name; empty: whom they were for cannot be read
	Reason   Reason
	Count    uint64    // with ReasonDamaged at most: what lay before a reader's place cannot always be told from the rest
	Topics   []string  // the first ten; empty where they cannot be read
	From, To time.Time // when the first and the last of them were accepted, or, with ReasonDamaged, found
}

// A Reason says why messages are lost. Its values are in what people and
// programs read.
type Reason string

// The reasons of the queue itself.
const (
	ReasonFull    Reason = "max_size" // the oldest made room for newer ones
	ReasonAge     Reason = "max_age"
	ReasonExpired Reason = "expired" // at its publisher's wish
	ReasonDamaged Reason = "damaged"
	ReasonState   Reason = "state" // no message: readers, and what they keep, are as they were a minute earlier
)
