package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/storequeue"
)

// How long ids of commands are remembered, and how many: beyond that the oldest
// of the same sender are forgotten, and then the oldest of all.
const (
	commandBucket  = "commands" // of the queue's state
	rememberFor    = 24 * time.Hour
	maxRemembered  = 20_000
	maxPerSender   = 5_000
	forgottenAtOne = 16 // with each new one, so that a commit stays small
)

// A memory knows what was answered to commands, across restarts.
type memory struct {
	mu    sync.Mutex // covers what follows, and is held over no commit
	known map[string]*remembered
	order []string       // keys, oldest first
	by    map[string]int // how many, by sender
}

// remembered is one command; its JSON is what is on disk.
type remembered struct {
	From   string            `json:"from"`
	Seq    uint64            `json:"seq"`              // of its message
	At     int64             `json:"at"`               // Unix milliseconds
	Sum    string            `json:"sum"`              // of what it asked for
	Result southbound.Result `json:"result,omitempty"` // empty: it is being sent
	Reason string            `json:"reason,omitempty"`
	Old    any               `json:"old,omitempty"`
	New    any               `json:"new,omitempty"`
	Told   bool              `json:"told,omitempty"` // answered, and in the audit trail
}

func (e *remembered) outcome() *southbound.Outcome {
	return &southbound.Outcome{Result: e.Result, Reason: e.Reason, Old: e.Old, New: e.New}
}

// remember is what to keep of a command.
func (r *received) remember(o *southbound.Outcome) *remembered {
	return &remembered{
		From: r.message.From, Seq: r.message.Seq, At: time.Now().UnixMilli(), Sum: r.sum(),
		Result: o.Result, Reason: o.Reason, Old: o.Old, New: o.New,
	}
}

func (m *memory) open(q *storequeue.Queue) error {
	m.known, m.by = map[string]*remembered{}, map[string]int{}
	err := q.State(commandBucket, func(key string, value []byte) error {
		e := &remembered{}
		d := json.NewDecoder(bytes.NewReader(value))
		d.UseNumber() // of 64 bits
		if err := d.Decode(e); err != nil {
			return fmt.Errorf("read what was answered to commands: %w", err)
		}
		m.known[key] = e
		m.by[e.From]++
		return nil
	})
	m.order = sortedByAge(m.known)
	return err
}

func (m *memory) find(key string) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[key]
	if e == nil || time.Since(time.UnixMilli(e.At)) >= rememberFor {
		return nil
	}
	return e
}

// put remembers a command, on disk when it returns.
func (m *memory) put(q *storequeue.Queue, key string, e *remembered) error {
	value, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := q.SetState(append(m.set(key, e), storequeue.Change{Bucket: commandBucket, Key: key, Value: value})...); err != nil {
		return fmt.Errorf("remember the command: %w", err)
	}
	return nil
}

// set notes an entry and returns what is forgotten for it.
func (m *memory) set(key string, e *remembered) (changes []storequeue.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known[key] == nil {
		m.order = append(m.order, key)
		m.by[e.From]++
	}
	m.known[key] = e
	now := time.Now()
	for i := 0; i < len(m.order) && len(changes) < forgottenAtOne; {
		old := m.order[i]
		o := m.known[old]
		crowded := m.by[o.From] > maxPerSender && o.From == e.From
		switch {
		case o.Result == "" || old == key:
			i++
			continue
		case now.Sub(time.UnixMilli(o.At)) < rememberFor && !crowded && len(m.order) <= maxRemembered:
			if m.by[e.From] <= maxPerSender {
				return changes
			}
			i++
			continue
		}
		m.order = append(m.order[:i], m.order[i+1:]...)
		delete(m.known, old)
		if m.by[o.From]--; m.by[o.From] == 0 {
			delete(m.by, o.From)
		}
		changes = append(changes, storequeue.Change{Bucket: commandBucket, Key: old})
	}
	return changes
}
