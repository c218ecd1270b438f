package admin

import (
	"context"
	"time"
)

// A Queue is what can be done with a queue: a running gateway's, or the folder
// of one that is stopped. Its errors are for people.
type Queue interface {
	Report(ctx context.Context) (QueueReport, error)
	Read(ctx context.Context, what Read) (Page, error)
	Remove(ctx context.Context, what Remove) (Removed, error)
	Plan(ctx context.Context, what Import) (Imported, error)
	Add(ctx context.Context, what Batch) (Imported, error)
	Requeue(ctx context.Context, link string) (Requeued, error)
	Verify(ctx context.Context, from uint64) (Verified, error)
}

// QueueReport is what waits, for whom. Its JSON names are stable.
type QueueReport struct {
	Gateway  string `json:"gateway"`
	Source   string `json:"source"` // "gateway" or "folder"
	Folder   string `json:"folder"` // of the queue
	Epoch    uint64 `json:"epoch"`
	Last     uint64 `json:"last"` // newest sequence
	Bytes    int64  `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
	Segments int    `json:"segments"`
	Corrupt  int    `json:"corrupt"` // files set aside because they are damaged
	Refused  uint64 `json:"refused"` // messages refused because it was full, since start
	Full     string `json:"full,omitempty"`

	WritePerByte float64 `json:"disk_bytes_per_payload_byte"` // written since start; 0: not known
	Lanes        []Lane  `json:"lanes"`
}

// A Lane is what waits for one reader of the log: a link's lane, what a link set
// aside, or a local session.
type Lane struct {
	Reader  string    `json:"reader"`
	Kind    string    `json:"kind"` // "link", "quarantine" or "session"
	Waiting uint64    `json:"waiting"`
	Bytes   uint64    `json:"bytes"`
	Oldest  time.Time `json:"oldest,omitzero"` // when it was accepted
	In      uint64    `json:"in"`              // messages since start
	Out     uint64    `json:"out"`

	Lost map[string]uint64 `json:"lost"` // messages since start, by reason

	// Worked out by who asks twice; see Rates.
	InRate  float64 `json:"in_rate"` // messages a second
	OutRate float64 `json:"out_rate"`
	ETA     float64 `json:"eta_seconds"` // until nothing waits; -1: not at this rate
}

// Rates works out rates from a report of an earlier time.
func (r *QueueReport) Rates(before *QueueReport, apart time.Duration) {
	was := map[string]Lane{}
	for _, l := range before.Lanes {
		was[l.Reader] = l
	}
	for i := range r.Lanes {
		l := &r.Lanes[i]
		if old, ok := was[l.Reader]; ok && l.In >= old.In && l.Out >= old.Out && apart > 0 {
			l.InRate = float64(l.In-old.In) / apart.Seconds()
			l.OutRate = float64(l.Out-old.Out) / apart.Seconds()
		}
		switch net := l.OutRate - l.InRate; {
		case l.Waiting == 0:
			l.ETA = 0
		case net > 0:
			l.ETA = float64(l.Waiting) / net
		default:
			l.ETA = -1
		}
	}
}

// Read asks for messages of one reader, in order.
type Read struct {
	Reader  string    `json:"reader"`
	Filter  string    `json:"filter,omitempty"`
	From    time.Time `json:"from,omitzero"` // accepted then or later
	To      time.Time `json:"to,omitzero"`   // and before
	After   uint64    `json:"after"`         // sequence; 0: from the first that waits
	Upto    uint64    `json:"upto"`          // sequence; 0: what waits now
	Limit   int       `json:"limit"`         // messages; 0: what an answer holds
	Payload bool      `json:"payload"`
	Record  bool      `json:"record"` // as export writes it
}

// A Page is a part of what was asked for: go on with After and Upto unless it is
// the end.
type Page struct {
	Messages []Queued `json:"messages"`
	After    uint64   `json:"after"`
	Upto     uint64   `json:"upto"`
	End      bool     `json:"end"`
}

// Queued is one message that waits.
type Queued struct {
	Seq     uint64    `json:"seq"`
	ID      string    `json:"id"` // hg-id
	Time    time.Time `json:"time"`
	Topic   string    `json:"topic"`
	QoS     byte      `json:"qos"`
	Retain  bool      `json:"retain"`
	From    string    `json:"from"` // who published it
	Expires time.Time `json:"expires,omitzero"`
	Type    string    `json:"content_type,omitempty"`
	Size    int       `json:"size"` // of the payload
	Payload []byte    `json:"payload,omitempty"`
	Record  []byte    `json:"record,omitempty"`
}

// Remove takes messages from one reader.
type Remove struct {
	Reader   string    `json:"reader"`
	Filter   string    `json:"filter,omitempty"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
	Upto     uint64    `json:"upto"`     // sequence; 0: what waits now
	Exported string    `json:"exported"` // the file they are in; empty: they are lost
	Count    bool      `json:"count"`    // only count them
}

// Removed says what was taken. Its JSON names are stable.
type Removed struct {
	Reader string    `json:"reader"`
	Count  uint64    `json:"count"`
	Topics []string  `json:"topics"` // the first ten
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to,omitzero"`
	Upto   uint64    `json:"upto"` // sequence up to which was looked
}

// Import announces a file that was read to its end and is whole.
type Import struct {
	ID      string   `json:"id"`
	Gateway string   `json:"gateway"`
	Count   uint64   `json:"count"`
	Topics  []string `json:"topics"`
	Again   bool     `json:"again"` // also if it was imported before
	Look    bool     `json:"look"`  // it will not be imported now
}

// Imported is how far the import of a file is.
type Imported struct {
	Done     uint64            `json:"done"`
	Skipped  uint64            `json:"skipped"` // of the batch: left out, because they would not leave
	Finished time.Time         `json:"finished,omitzero"`
	Blocked  map[string]string `json:"blocked,omitempty"` // topics that would not leave, and why
}

// A Batch is the next part of a file.
type Batch struct {
	ID      string   `json:"id"`
	At      uint64   `json:"at"` // number of messages before it
	Records [][]byte `json:"records"`
	Skip    bool     `json:"skip"` // leave out what would not leave
	Last    bool     `json:"last"`
}

// Requeued is how many messages are tried again, by link.
type Requeued struct {
	Links map[string]int `json:"links"`
}

// Verified is what reading one segment found. Its JSON names are stable.
type Verified struct {
	Segment string `json:"segment"`
	Records uint64 `json:"records"`
	Damaged string `json:"damaged,omitempty"` // what is wrong; empty: nothing
	Next    uint64 `json:"next"`              // where the next segment begins; 0: that was the last
}
