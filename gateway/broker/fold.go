package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/headgate-io/headgate/storequeue"
)

type retainedRecord struct {
	Time        time.Time             `json:"time"`
	Payload     []byte                `json:"payload"`
	QoS         byte                  `json:"qos,omitempty"`
	From        string                `json:"from"`
	Expires     time.Time             `json:"expires,omitzero"`
	ContentType string                `json:"content_type,omitempty"`
	Response    string                `json:"response_topic,omitempty"`
	Correlation []byte                `json:"correlation_data"`
	Text        bool                  `json:"text,omitempty"`
	Properties  []storequeue.Property `json:"properties,omitempty"`
}

func encodeRetained(m *storequeue.Message) ([]byte, error) {
	return json.Marshal(retainedRecord{
		Time: m.Time, Payload: m.Payload, QoS: m.QoS, From: m.From, Expires: m.Expires,
		ContentType: m.ContentType, Response: m.ResponseTopic, Correlation: m.CorrelationData,
		Text: m.Text, Properties: m.Properties,
	})
}

func (r *retainedRecord) message(topic string) *storequeue.Message {
	return &storequeue.Message{
		Topic: topic, Time: r.Time, Payload: r.Payload, QoS: r.QoS, Retain: true, From: r.From, Expires: r.Expires,
		ContentType: r.ContentType, ResponseTopic: r.Response, CorrelationData: r.Correlation,
		Text: r.Text, Properties: r.Properties,
	}
}

// restoreRetained loads the queue's state and replays what the log has behind
// it. It writes nothing: a full disk must not keep the house from starting.
func (b *Broker) restoreRetained() (err error) {
	r := &b.retained
	r.limits, r.stale, r.by = &b.limits, map[string]struct{}{}, map[string]share{}
	if r.reader, err = b.queue.Reader("retained"); err != nil {
		return err
	}
	err = b.queue.State(bucketRetained, func(topic string, v []byte) error {
		var rec retainedRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return fmt.Errorf("retained message on %q: %w", topic, err)
		}
		r.put(rec.message(topic))
		return nil
	})
	for after := r.reader.Acked(); err == nil; {
		var msgs []storequeue.Message
		if msgs, err = r.reader.Poll(after, foldBatch); len(msgs) == 0 {
			break
		}
		for i := range msgs {
			r.arrived(&msgs[i], msgs[i].Seq)
		}
		after = msgs[len(msgs)-1].Seq
	}
	return err
}

const (
	foldBatch = 512         // messages that one commit takes
	foldPause = 3           // times what the commit took
	foldEvery = time.Second // at most; the log has them meanwhile
)

// foldLoop brings what memory has to the queue's state, so that the log need
// not keep it, until ctx ends. Nobody else writes retained messages there. What
// changes often is written once, and most of the disk's time is for others.
func (b *Broker) foldLoop(ctx context.Context) {
	for {
		err := b.awaitRetained(ctx)
		if err == nil {
			b.retained.expire(time.Now())
			err = b.fold(ctx)
		}
		pause := foldEvery
		switch {
		case err == nil:
		case ctx.Err() != nil, errors.Is(err, storequeue.ErrClosed), errors.Is(err, storequeue.ErrFailed):
			return
		default: // a full disk: the log keeps them meanwhile
			b.log.Error("store retained messages: trying again", "error", err)
			pause = maxSweep
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// awaitRetained returns when there is something to fold, or it is time to look
// for what has expired.
func (b *Broker) awaitRetained(ctx context.Context) error {
	patient, cancel := context.WithTimeout(ctx, maxSweep)
	defer cancel()
	_, err := b.retained.reader.Next(patient, b.retained.reader.Acked(), 1)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// fold writes what is stale, and then moves the reader over what had come when
// it began.
func (b *Broker) fold(ctx context.Context) error {
	r := &b.retained
	topics, seq := r.takeStale()
	slices.Sort(topics) // neighbours lie on one page
	for {
		began, n := time.Now(), min(len(topics), foldBatch)
		changes, err := r.changes(topics[:n])
		switch {
		case err != nil:
		case n < len(topics):
			err = b.queue.SetState(changes...)
		case n > 0 || seq > r.reader.Acked():
			err = r.reader.Checkpoint(seq, changes...)
		}
		if err == nil {
			if topics = topics[n:]; len(topics) == 0 {
				return nil
			}
			wait(ctx, foldPause*time.Since(began))
			err = ctx.Err()
		}
		if err != nil {
			r.staleAgain(topics)
			return err
		}
	}
}

// takeStale returns the topics to write, and how far the log is written with
// them.
func (r *retained) takeStale() (topics []string, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	topics = slices.AppendSeq(make([]string, 0, len(r.stale)), maps.Keys(r.stale))
	r.stale = map[string]struct{}{}
	return topics, r.seq
}

func (r *retained) staleAgain(topics []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, topic := range topics {
		r.stale[topic] = struct{}{}
	}
}

// changes make the state what memory is now.
func (r *retained) changes(topics []string) ([]storequeue.Change, error) {
	changes := make([]storequeue.Change, len(topics))
	for i, k := range r.now(topics) {
		changes[i] = storequeue.Change{Bucket: bucketRetained, Key: topics[i]}
		if k.none() {
			continue
		}
		var err error
		if changes[i].Value, err = encodeRetained(k.message()); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// now returns what is retained on each of the topics; nil: nothing.
func (r *retained) now(topics []string) []kept {
	r.mu.RLock()
	defer r.mu.RUnlock()
	msgs := make([]kept, len(topics))
	for i, topic := range topics {
		msgs[i] = r.root.find(topic)
	}
	return msgs
}
