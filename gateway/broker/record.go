package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

// The buckets of the queue's state that are the broker's.
const (
	bucketSessions = "sessions" // key → sessionRecord
	bucketEnds     = "ends"     // key → Unix seconds, for sessions without a connection
	bucketRetained = "retained" // topic → retainedRecord
	bucketLedger   = "qos2"     // the session's number, in hexadecimal → ledgerRecord
)

type sessionRecord struct {
	Client string               `json:"client"`
	Owner  string               `json:"owner"`
	User   bool                 `json:"user,omitempty"`
	Number uint64               `json:"number"` // 0 in records of older versions
	Expiry int64                `json:"expiry_s"`
	Reader bool                 `json:"reader,omitempty"`
	Subs   []subscriptionRecord `json:"subscriptions"`
}

type subscriptionRecord struct {
	Filter            string `json:"filter"`
	QoS               byte   `json:"qos,omitempty"`
	NoLocal           bool   `json:"no_local,omitempty"`
	RetainAsPublished bool   `json:"retain_as_published,omitempty"`
	ID                uint32 `json:"id,omitempty"`
}

// record is a connected session with these subscriptions, and a reader or none,
// as the queue's state has it.
func (s *session) record(subs map[string]*subscription, reader bool) ([]storequeue.Change, error) {
	r := sessionRecord{Client: s.clientID, Owner: s.owner, User: s.user, Number: s.number, Expiry: int64(s.expiry / time.Second), Reader: reader}
	for _, sub := range subs {
		r.Subs = append(r.Subs, subscriptionRecord{
			Filter: sub.filter, QoS: sub.qos, NoLocal: sub.noLocal, RetainAsPublished: sub.retainAsPublished, ID: sub.id,
		})
	}
	v, err := json.Marshal(r)
	return []storequeue.Change{{Bucket: bucketSessions, Key: s.key(), Value: v}, {Bucket: bucketEnds, Key: s.key()}}, err
}

// gone is a session that ended.
func gone(s *session) []storequeue.Change {
	return []storequeue.Change{{Bucket: bucketSessions, Key: s.key()}, {Bucket: bucketEnds, Key: s.key()}}
}

// restoreSessions brings back the sessions of the queue's state. One that was
// connected when the gateway stopped counts as left now; one whose time is over
// is ended by the first sweep.
func (b *Broker) restoreSessions() error {
	now := time.Now()
	ends := map[string]time.Time{}
	err := b.queue.State(bucketEnds, func(key string, v []byte) error {
		n, err := strconv.ParseInt(string(v), 10, 64)
		ends[key] = time.Unix(n, 0)
		return err
	})
	if err != nil {
		return err
	}
	var records []sessionRecord
	err = b.queue.State(bucketSessions, func(key string, v []byte) error {
		var r sessionRecord
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("session %s: %w", key, err)
		}
		records = append(records, r)
		return nil
	})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, r := range records {
		s := &session{clientID: r.Client, owner: r.Owner, user: r.User, number: r.Number, expiry: time.Duration(r.Expiry) * time.Second, kept: true}
		s.ends, s.saved = ends[s.key()], ends[s.key()]
		if s.ends.IsZero() {
			s.ends = now.Add(s.expiry)
		}
		if err := b.restoreSession(s, &r); err != nil {
			return fmt.Errorf("session %s of %s: %w", r.Client, r.Owner, err)
		}
		known[s.readerName()] = true
		delete(ends, s.key())
	}
	var left []storequeue.Change
	for key := range ends { // of sessions that ended while this was being written
		left = append(left, storequeue.Change{Bucket: bucketEnds, Key: key})
	}
	if len(left) > 0 {
		if err := b.queue.SetState(left...); err != nil {
			return err
		}
	}
	return b.forgetOrphans(known)
}

func (b *Broker) restoreSession(s *session, r *sessionRecord) error {
	if b.sessions[s.clientID] != nil {
		return errors.New("its client id has two sessions")
	}
	if r.Reader {
		if err := b.openReader(s); err != nil {
			return err
		}
	}
	s.subs = map[string]*subscription{}
	s.several.Store(len(r.Subs) > 1)
	for _, sr := range r.Subs {
		sub := newSubscription(sr, s.reader)
		s.subs[sub.filter] = sub
		b.subs.add(s, sub)
	}
	b.admitSession(s)
	return nil
}

// forgetOrphans removes readers whose session never reached the disk: the
// gateway stopped between the two.
func (b *Broker) forgetOrphans(known map[string]bool) error {
	for _, r := range b.queue.Stats().Readers {
		if !r.Durable || !strings.HasPrefix(r.Name, readerPrefix) || known[r.Name] {
			continue
		}
		reader, err := b.queue.Reader(r.Name)
		if err != nil {
			return err
		}
		if err := b.queue.Forget(reader); err != nil {
			return err
		}
	}
	return nil
}
