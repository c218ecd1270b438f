package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/broker"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/southbound"
	"github.com/headgate-io/headgate/storequeue"
)

// An answer is what the sender of a command hears; its JSON names are stable.
type answer struct {
	ID     string            `json:"id"`
	Tag    string            `json:"tag,omitempty"`
	State  southbound.Result `json:"state"`
	Reason string            `json:"reason,omitempty"`
	Value  any               `json:"value,omitempty"` // as the device held it when it was read back
	TS     int64             `json:"ts"`
}

// An auditRecord is who asked for what, and what became of it.
type auditRecord struct {
	TS     int64             `json:"ts"`
	Device string            `json:"device"`
	ID     string            `json:"id"`
	By     string            `json:"by"`
	Tag    string            `json:"tag"`
	Old    any               `json:"old"`
	Value  json.RawMessage   `json:"value"`
	New    any               `json:"new"`
	State  southbound.Result `json:"state"`
	Reason string            `json:"reason,omitempty"`
}

// finish remembers how a command ended, tells it, and is done with its message.
// One that has no id cannot be remembered.
func (c *commands) finish(ctx context.Context, r *received, o *southbound.Outcome, known bool) {
	if known {
		if err := c.memory.put(c.g.queue, r.key(), r.remember(o)); err != nil {
			c.g.log.Error("a command ended, and that cannot be stored: it is answered after a restart", "device", r.device.ID, "id", r.ask.ID, "error", err)
			return
		}
	}
	c.tell(ctx, r, o)
}

// tell writes the audit record and answers. Until both are on disk the message is
// not done with.
func (c *commands) tell(ctx context.Context, r *received, o *southbound.Outcome) {
	c.counts.add(o.Result)
	if !c.audit(ctx, r, o) || !c.answer(ctx, r, o) {
		return
	}
	if e := c.memory.find(r.key()); e != nil && e.Seq == r.message.Seq {
		told := *e
		told.Told = true
		if err := c.memory.put(c.g.queue, r.key(), &told); err != nil {
			c.g.log.Error("note that a command was answered: it may be answered again after a restart", "device", r.device.ID, "id", r.ask.ID, "error", err)
		}
	}
	c.end(r.message.Seq)
}

func (c *commands) audit(ctx context.Context, r *received, o *southbound.Outcome) bool {
	rec := auditRecord{
		TS: time.Now().UnixMilli(), Device: r.device.ID, ID: r.ask.ID, By: r.message.From, Tag: r.ask.Tag,
		Old: o.Old, Value: r.ask.Value, New: o.New, State: o.Result, Reason: o.Reason,
	}
	level := slog.LevelInfo
	if o.Result != southbound.Done {
		level = slog.LevelWarn
	}
	c.g.log.Log(ctx, level, "command", "event", "write", "device", rec.Device, "id", rec.ID, "by", rec.By, "tag", rec.Tag,
		"old", rec.Old, "value", string(rec.Value), "new", rec.New, "state", string(rec.State), "reason", rec.Reason)
	return c.publish(ctx, self, rec, storequeue.Message{Topic: auditTopic(c.g.cfg)})
}

func auditTopic(cfg *config.Config) string { return "hg/" + cfg.Gateway.ID + "/audit" }

// answer publishes an answer as the device: to the response topic, or to the
// device's own cmd/answer.
func (c *commands) answer(ctx context.Context, r *received, o *southbound.Outcome) bool {
	topic := r.message.ResponseTopic
	if topic == "" || c.mayAnswer(r.device, topic) != nil {
		topic = answerTopic(c.g.cfg, r.device.ID)
	}
	return c.publish(ctx, r.device.identity, answer{
		ID: r.ask.ID, Tag: r.ask.Tag, State: o.Result, Reason: o.Reason, Value: o.New, TS: time.Now().UnixMilli(),
	}, storequeue.Message{Topic: topic, CorrelationData: r.message.CorrelationData})
}

// publish tries until m, which says what, is on disk, or ctx ends. What the rules
// do not allow is not said.
func (c *commands) publish(ctx context.Context, from access.Identity, what any, m storequeue.Message) bool {
	var err error
	if m.Payload, err = json.Marshal(what); err != nil {
		c.g.log.Error("an answer to a command cannot be encoded", "topic", m.Topic, "error", err)
		return true
	}
	m.QoS, m.Text, m.ContentType, m.Own = 1, true, "application/json", true
	for failed := ""; ; {
		err := c.g.broker.Publish(ctx, from, m)
		switch {
		case err == nil || ctx.Err() != nil:
			return err == nil
		case errors.Is(err, broker.ErrDenied) || errors.Is(err, broker.ErrTopic):
			c.g.log.Error("a command is not answered", "topic", m.Topic, "error", err)
			return true
		case err.Error() != failed:
			failed = err.Error()
			c.g.log.Error("answer a command: trying again", "topic", m.Topic, "error", err)
		}
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// resultCounts counts how commands ended.
type resultCounts struct {
	mu sync.Mutex // covers n
	n  map[string]uint64
}

func (c *resultCounts) add(r southbound.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]uint64{}
	}
	c.n[string(r)]++
}

func (c *resultCounts) get() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

func sortedByAge(known map[string]*remembered) []string {
	return slices.SortedFunc(maps.Keys(known), func(a, b string) int { return cmp.Compare(known[a].At, known[b].At) })
}
