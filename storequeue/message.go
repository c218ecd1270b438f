package storequeue

import "time"

// A Message is one publication on its way. The queue copies what it is given
// and hands out copies: neither side shares bytes with the other.
type Message struct {
	Seq     uint64    // given by the queue: rises by one, never reused; zero before Append
	Prev    uint64    // from Next: the one without Origin that the reader was to have before it; 0: none
	Time    time.Time // when it was accepted; set by the queue if zero, millisecond resolution
	Topic   string
	Payload []byte
	QoS     byte   // 0, 1 or 2, as published
	Retain  bool   // as published
	From    string // the identity that published it; access rules may ask again about it
	Origin  string // the hg-id under which another gateway took it; empty: it was taken here

	Expires         time.Time // zero: never; millisecond resolution
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte // nil and empty differ
	Text            bool   // payload format indicator: the payload is UTF-8
	Properties      []Property

	Note []byte // the writer's own, for the reader that For names first; Next shows it to no other
	Own  bool   // the gateway's own word: there is room for it when the queue is full; not stored
	For  []Mark // the readers it is kept for; from Next, only the reader's own
}

// A Property is an MQTT 5 user property. Order and repeats are kept.
type Property struct{ Key, Value string }

// A Mark says that a message is meant for one reader.
type Mark struct {
	Reader ReaderID
	QoS    byte // at most; the reader's own granted QoS
	Flags  byte // the reader's own business
}

// A ReaderID stands for a reader's name inside records. IDs are never reused
// within a queue.
type ReaderID uint32
