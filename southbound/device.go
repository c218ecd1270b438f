package southbound

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// A Device keeps one adapter running: it opens sessions, publishes what they
// read, and opens another when one fails. It publishes
//
//   - hg/{gateway}/{device}/{group}: a message per batch, or one for each tag at
//     TagTopic, numbered by seq; of what was read, as much as Report wants. The
//     numbers rise by one and start at 1 with every Run; a sequence that
//     survives restarts is the queue's (hg-id), and a second one per device
//     waits for someone who needs it.
//   - hg/{gateway}/{device}/state, retained, at every change. A device is
//     online while the last batch of at least one group carried a value.
//   - hg/{gateway}/{device}/meta, retained, when the tags changed.
//
// A batch that was read is never dropped: while Publish fails, it is kept and
// offered again, and the device is not read. When a session ends, each of its
// groups is published once as bad.offline.
//
// The exported fields are set before Run and not changed after.
type Device struct {
	Gateway string // id of the gateway, one topic level
	ID      string // of the device, one topic level
	Adapter Adapter
	Publish Publish
	Logger  *slog.Logger // nil: slog.Default

	// Late is told of each poll how late it was. Nil: nobody.
	Late func(time.Duration)

	Report     Report                   // of tags that have none of their own
	LazyErrors int                      // so many polls may fail in a row before a value that was good is bad; until then it is uncertain.stale
	StaleAfter map[string]time.Duration // by group: after so long without being read its values are uncertain.stale; none: never

	// TagTopic is where each tag is published by itself, with {group} and
	// {tag}, and retained there or not. Empty: all of a group are published
	// together.
	TagTopic  string
	RetainTag bool
	CBOR      bool // what was read is published as CBOR, and not as JSON

	// Writable says whether and how commands may write a tag. Nil: none.
	Writable func(tag string) (Writable, bool)

	rates rates // of Write, which is called from one goroutine

	mu       sync.Mutex // covers what follows
	stats    Stats
	session  Session // nil: none is open
	readings *latest // of that session
}

// A State says whether a device's values can be had.
type State string

// The states of a device. Before the first session opened or failed it has
// none.
const (
	Online  State = "online"
	Offline State = "offline"
)

// Stats is what a device did since Run began.
type Stats struct {
	State     State
	Since     time.Time // of the last change of State
	LastError string    // why the device is or last was offline
	Sessions  uint64    // opened
	Polls     uint64    // batches read
	Missed    uint64    // polls that did not take place because their time had passed
	Published uint64    // batches accepted by Publish
	Refused   uint64    // times Publish failed and was tried again
	Good, Bad uint64    // readings with and without a value
	LastGood  time.Time // of the last batch with a value
}

// Stats returns a snapshot. It may be called at any time from any goroutine.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

func (d *Device) count(update func(*Stats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	update(&d.stats)
}

// Run reads the device until ctx ends, and then returns nil. It returns an
// error only, and at once, when Gateway or ID is not one topic level. No
// failure of the adapter ends it, a panic in one of its methods included.
func (d *Device) Run(ctx context.Context) error {
	for _, level := range []string{d.Gateway, d.ID} {
		if !isTopicLevel(level) {
			return fmt.Errorf("run device %q of gateway %q: %q is not one topic level; use letters, digits, '.', '_' and '-'",
				d.ID, d.Gateway, level)
		}
	}
	l := &loop{
		device:  d,
		log:     d.logger(),
		topic:   "hg/" + d.Gateway + "/" + d.ID + "/",
		reopen:  backoff{min: time.Second, max: 5 * time.Second}, // so that what comes back is read within 10 s
		groups:  make(map[string]bool),
		reports: reporter{device: d},
	}
	d.count(func(st *Stats) { *st = Stats{} })
	l.run(ctx)
	return nil
}

func (d *Device) logger() *slog.Logger {
	logger := d.Logger
	if logger == nil {
		logger = slog.Default()
	}
	return logger.With("device", d.ID)
}

// current is the session that commands go to.
func (d *Device) current() (Session, *latest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session, d.readings
}

func (d *Device) setCurrent(s Session) *latest {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session, d.readings = s, newLatest()
	return d.readings
}

// isTopicLevel reports whether s may stand between two slashes of a topic
// ([MQTT-4.7.1-1], [MQTT-4.7.3-2]).
func isTopicLevel(s string) bool {
	return s != "" && !strings.ContainsAny(s, "/+#\x00") && utf8.ValidString(s)
}

// CheckGroup says whether and why not a name can be a group's: one topic level
// that is not taken by what else a device publishes or listens to.
func CheckGroup(name string) error {
	if !isTopicLevel(name) || name == "state" || name == "meta" || name == "cmd" {
		return fmt.Errorf("%.64q cannot name a group; use letters, digits, '.', '_' and '-', but not state, meta or cmd", name)
	}
	return nil
}
