package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/export"
	"github.com/headgate-io/headgate/storequeue"
)

// bucketImports has what is known of each file that was imported, by its ID. An
// entry is some 200 bytes, and stays: the same stick may come again next year.
const bucketImports = "imports"

// An imported file is known from its first message on.
type importState struct {
	Gateway  string    `json:"gateway"`
	Count    uint64    `json:"count"`
	Done     uint64    `json:"done"`
	Skipped  uint64    `json:"skipped,omitempty"` // of those
	Finished time.Time `json:"finished,omitzero"`
}

func (b *backlog) importState(id string) (st importState, known bool, err error) {
	err = b.g.queue.State(bucketImports, func(key string, value []byte) error {
		if key != id {
			return nil
		}
		known = true
		return json.Unmarshal(value, &st)
	})
	return st, known, err
}

func (b *backlog) setImportState(id string, st importState) error {
	value, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return b.g.queue.SetState(storequeue.Change{Bucket: bucketImports, Key: id, Value: value})
}

// Plan says how far a file was imported before, and what of it would not leave.
func (b *backlog) Plan(_ context.Context, what admin.Import) (admin.Imported, error) {
	out := admin.Imported{Blocked: map[string]string{}}
	for _, topic := range what.Topics {
		if why := b.blocked(topic); why != "" {
			out.Blocked[topic] = why
		}
	}
	st, known, err := b.importState(what.ID)
	if err != nil {
		return out, err
	}
	if !what.Look && (!known || what.Again && !st.Finished.IsZero()) {
		st = importState{Gateway: what.Gateway, Count: what.Count}
		if err := b.setImportState(what.ID, st); err != nil {
			return out, err
		}
	}
	out.Done, out.Finished = st.Done, st.Finished
	return out, nil
}

// blocked says why nothing on a topic would leave.
func (b *backlog) blocked(topic string) string {
	if len(b.g.links) == 0 {
		return "no link is configured: add a northbound entry"
	}
	why := ""
	for _, l := range b.g.links {
		if _, ok := l.Wants(topic); !ok {
			why = "no send route of " + l.identity.Name + " takes it: add its topic to northbound.send"
		} else if !b.g.gate.Allow(l.identity, access.Subscribe, topic) {
			why = fmt.Sprintf("no rule lets it leave: add {allow: subscribe, who: %q, topics: [%q]} to access.rules", l.identity.Name, topic)
		} else {
			return ""
		}
	}
	return why
}

// Add stores the next messages of a file, each under the hg-id that it got
// where it was taken, for the links that have a route and a rule for it. A crash
// on the way repeats at most this batch when the file is imported again.
func (b *backlog) Add(ctx context.Context, what admin.Batch) (admin.Imported, error) {
	st, known, err := b.importState(what.ID)
	if err != nil {
		return admin.Imported{}, err
	}
	if !known || st.Done != what.At || !st.Finished.IsZero() {
		return admin.Imported{}, fmt.Errorf("the import of this file stands at message %d, not at %d: somebody else imports it too; start again", st.Done, what.At)
	}
	var msgs []storequeue.Message
	for i, record := range what.Records {
		m, err := storequeue.DecodeMessage(record)
		if err == nil {
			err = export.CheckID(m.Origin)
		}
		if err != nil {
			return admin.Imported{}, fmt.Errorf("message %d: %w", what.At+uint64(i)+1, err)
		}
		m.For = nil
		b.g.outbound(&m)
		switch {
		case len(m.For) > 0:
			msgs = append(msgs, m)
		case !what.Skip:
			return admin.Imported{}, fmt.Errorf("%s: %s", m.Topic, b.blocked(m.Topic))
		}
	}
	if err := b.g.queue.Append(ctx, msgs...); err != nil {
		return admin.Imported{}, fmt.Errorf("%w; %d of %d messages of the file are in: import it again when there is room, and it goes on there", err, st.Done, st.Count)
	}
	skipped := uint64(len(what.Records) - len(msgs))
	st.Done, st.Skipped = st.Done+uint64(len(what.Records)), st.Skipped+skipped
	if what.Last {
		st.Finished = time.Now().UTC()
	}
	if err := b.setImportState(what.ID, st); err != nil {
		return admin.Imported{}, err
	}
	if what.Last {
		err = b.audit(ctx, "queue_import", "file", what.ID, "gateway", st.Gateway, "count", st.Done-st.Skipped)
	}
	return admin.Imported{Done: st.Done, Skipped: skipped, Finished: st.Finished}, err
}
