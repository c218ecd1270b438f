package broker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// The ledger is what QoS 2 has to remember over a crash, for durable sessions:
//
//   - In: packet ids of messages from the client, between their commit and
//     their PUBREL. A message's record in the log carries the id as a note, so
//     both are on disk or neither is. PUBCOMP waits until the id is gone from
//     the ledger; otherwise the next message under that id would be taken for
//     a repeat of the last one.
//   - Out: sequences of messages whose PUBREC came from the client. PUBREL
//     waits until that is on disk: the client forgets the packet id with it,
//     so the message must never be published again. It is struck out when the
//     reader's cursor on disk has passed it.
//
// On disk it is a record for each session in the queue's state, and the notes
// behind the cursor of reader; both move in one commit. In memory it is the
// sessions' own: what is written is what they hold at that moment, which may
// be ahead of what was asked for, never behind.
type ledger struct {
	reader *storequeue.Reader // of notes; the broker's own
	wake   chan struct{}      // room for one: somebody waits

	mu    sync.Mutex // covers the fields below
	noted uint64     // the newest note that its session knows of
	dirty map[*session]struct{}
	told  []func() // called, in order, after the commit
}

// A ledgerRecord is what the queue's state holds for a session.
type ledgerRecord struct {
	In  []uint16 `json:"in,omitempty"`
	Out []uint64 `json:"out,omitempty"`
}

// lazily is how long a change waits for a commit that nobody is waiting for.
const lazily = time.Second

// note says that a message with a note of s is on disk, and that s knows.
func (l *ledger) note(s *session, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noted = seq
	l.dirty[s] = struct{}{}
}

// touch says that what s holds has changed. It is written soon.
func (l *ledger) touch(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty[s] = struct{}{}
}

// commit is touch, at once: told is called, in the order of the calls, when
// what s holds now is on disk. It must not block.
func (l *ledger) commit(s *session, told func()) {
	l.mu.Lock()
	l.dirty[s] = struct{}{}
	l.told = append(l.told, told)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// ledgerLoop writes the ledger until ctx ends.
func (b *Broker) ledgerLoop(ctx context.Context) {
	tick := time.NewTicker(lazily)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.ledger.wake:
		}
		err := b.ledger.write()
		switch {
		case err == nil:
		case errors.Is(err, storequeue.ErrClosed), errors.Is(err, storequeue.ErrFailed):
			return
		default: // a full disk: PUBREL and PUBCOMP wait
			b.rarely.log(b.log.Error, "store the state of QoS 2: trying again", "error", err)
		}
	}
}

// write commits what has gathered. What cannot be written stays for the next
// time.
func (l *ledger) write() error {
	l.mu.Lock()
	noted, dirty, told := l.noted, l.dirty, l.told
	if len(dirty) == 0 && noted <= l.reader.Acked() {
		l.mu.Unlock()
		return nil
	}
	l.dirty, l.told = map[*session]struct{}{}, nil
	l.mu.Unlock()
	changes := make([]storequeue.Change, 0, len(dirty))
	var err error
	for s := range dirty {
		c, e := s.ledgerChange()
		changes, err = append(changes, c), errors.Join(err, e)
	}
	if err == nil {
		err = l.reader.Checkpoint(noted, changes...)
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		for s := range dirty {
			l.dirty[s] = struct{}{}
		}
		l.told = append(told, l.told...)
		return err
	}
	for _, f := range told {
		f()
	}
	return nil
}

// ledgerChange is what the session holds now. One that was wiped holds nothing.
func (s *session) ledgerChange() (storequeue.Change, error) {
	c := storequeue.Change{Bucket: bucketLedger, Key: s.ledgerKey()}
	var r ledgerRecord
	s.mu.Lock()
	for id, in := range s.received {
		if in.noted && in.stored && !in.released {
			r.In = append(r.In, id)
		}
	}
	if s.reader != nil {
		s.flight.trim(s.reader.Flushed())
	}
	r.Out = slices.Clone(s.flight.recorded)
	s.mu.Unlock()
	if len(r.In)+len(r.Out) == 0 {
		return c, nil
	}
	slices.Sort(r.In)
	var err error
	c.Value, err = json.Marshal(r)
	return c, err
}

func (s *session) ledgerKey() string { return strconv.FormatUint(s.number, 16) }

// newNumber names a session for ever: one made later for the same client id
// has another.
func newNumber() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}

// A note says, in the record of a QoS 2 message, which session sent it under
// which packet id: version 1, the session's number, the packet id.
const (
	noteVersion = 1
	noteSize    = 1 + 8 + 2
)

func appendNote(dst []byte, number uint64, id uint16) []byte {
	dst = append(dst, noteVersion)
	dst = binary.BigEndian.AppendUint64(dst, number)
	return binary.BigEndian.AppendUint16(dst, id)
}

func decodeNote(b []byte) (number uint64, id uint16, err error) {
	if len(b) == 0 || b[0] != noteVersion {
		return 0, 0, errors.New("note of an unknown version: use a newer program")
	}
	if len(b) != noteSize {
		return 0, 0, fmt.Errorf("note of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint16(b[9:]), nil
}

// restoreLedger gives the sessions back what the queue's state holds for them
// and what the log has behind it. It writes nothing; what belongs to no session
// is struck out by the first write.
func (b *Broker) restoreLedger() error {
	l := &b.ledger
	l.wake, l.dirty = make(chan struct{}, 1), map[*session]struct{}{}
	var err error
	if l.reader, err = b.queue.Reader("qos2"); err != nil {
		return err
	}
	byNumber := map[uint64]*session{}
	for _, s := range b.sessions {
		byNumber[s.number] = s
	}
	err = b.queue.State(bucketLedger, func(key string, v []byte) error {
		number, err := strconv.ParseUint(key, 16, 64)
		if err != nil {
			return fmt.Errorf("QoS 2 state of session %q: %w", key, err)
		}
		s := byNumber[number]
		if s == nil {
			l.dirty[&session{number: number}] = struct{}{}
			return nil
		}
		var r ledgerRecord
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("QoS 2 state of client %s: %w", s.clientID, err)
		}
		for _, id := range r.In {
			s.restoreReceived(id)
		}
		s.flight.recorded = r.Out
		return nil
	})
	if err != nil {
		return err
	}
	return b.replayNotes(byNumber)
}

func (b *Broker) replayNotes(byNumber map[uint64]*session) error {
	l := &b.ledger
	l.noted = l.reader.Acked()
	for {
		msgs, err := l.reader.Poll(l.noted, foldBatch)
		if len(msgs) == 0 || err != nil {
			return err
		}
		for i := range msgs {
			number, id, err := decodeNote(msgs[i].Note)
			if err != nil {
				return fmt.Errorf("message %d: %w", msgs[i].Seq, err)
			}
			if s := byNumber[number]; s != nil {
				s.restoreReceived(id)
				l.dirty[s] = struct{}{}
			}
		}
		l.noted = msgs[len(msgs)-1].Seq
	}
}

func (s *session) restoreReceived(id uint16) {
	if s.received == nil {
		s.received = map[uint16]*incoming{}
	}
	s.received[id] = &incoming{stored: true, noted: true}
}
