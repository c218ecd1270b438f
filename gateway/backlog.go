package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/storequeue"
)

// A backlog is the queue as people see it and change it; it is an admin.Queue.
type backlog struct {
	g      *Gateway
	source string // "gateway" or "folder"
	by     string // who works on a folder; empty: whoever asks
}

const sessionReader = "session/"

// kindOf tells readers that are somebody's from the house's own, which have none.
func kindOf(reader string) string {
	switch {
	case strings.HasPrefix(reader, linkReader):
		return "link"
	case strings.HasPrefix(reader, quarantineReader):
		return "quarantine"
	case strings.HasPrefix(reader, sessionReader):
		return "session"
	}
	return ""
}

func (b *backlog) Report(context.Context) (admin.QueueReport, error) {
	q := b.g.queue
	st := q.Stats()
	r := admin.QueueReport{
		Gateway: b.g.cfg.Gateway.ID, Source: b.source, Folder: q.Dir(), Epoch: q.Epoch(), Last: st.Last, Bytes: st.Bytes,
		MaxBytes: b.g.cfg.Queue.MaxSize, Segments: st.Segments, Corrupt: q.Corrupt(), Refused: st.Refused, Lanes: []admin.Lane{},
	}
	if err := q.HasRoom(); err != nil {
		r.Full = err.Error()
	}
	if st.Payload > 0 {
		r.WritePerByte = float64(st.Written) / float64(st.Payload)
	}
	for _, rs := range st.Readers {
		if kind := kindOf(rs.Name); kind != "" && rs.Durable {
			r.Lanes = append(r.Lanes, b.lane(kind, rs))
		}
	}
	slices.SortFunc(r.Lanes, func(x, y admin.Lane) int { return strings.Compare(x.Kind+x.Reader, y.Kind+y.Reader) })
	return r, nil
}

// maxPage bounds what an answer holds, and how much of the log is looked at for it.
const (
	maxPage      = 1000
	maxPageBytes = 1 << 20
	maxLooked    = 20_000
)

func (b *backlog) find(name string) (*storequeue.Reader, error) {
	r := b.g.queue.Find(name)
	if r == nil || kindOf(name) == "" {
		return nil, fmt.Errorf("there is no reader %q: headgate queue status lists them", name)
	}
	return r, nil
}

func (b *backlog) Read(ctx context.Context, what admin.Read) (admin.Page, error) {
	p := admin.Page{Messages: []admin.Queued{}, After: what.After, Upto: what.Upto}
	r, err := b.find(what.Reader)
	if err != nil {
		return p, err
	}
	if p.Upto == 0 {
		p.Upto = b.g.queue.Stats().Last
	}
	limit := maxPage
	if what.Limit > 0 {
		limit = min(limit, what.Limit)
	}
	p.After = max(p.After, r.Acked())
	sel := storequeue.Selection{Filter: what.Filter, From: what.From, To: what.To}
	for looked, bytes := 0, 0; looked < maxLooked && bytes < maxPageBytes && ctx.Err() == nil; {
		msgs, err := r.Peek(p.After, 256)
		if err != nil {
			return p, err
		}
		if len(msgs) == 0 {
			p.End = true
			return p, nil
		}
		looked += len(msgs)
		for i := range msgs {
			m := &msgs[i]
			if m.Seq > p.Upto || len(p.Messages) == limit {
				p.End = m.Seq > p.Upto
				return p, nil
			}
			p.After = m.Seq
			if b.g.queue.Picks(&sel, m) {
				p.Messages = append(p.Messages, b.queued(m, &what))
				bytes += len(m.Payload)
			}
		}
	}
	return p, ctx.Err()
}

func (b *backlog) queued(m *storequeue.Message, what *admin.Read) admin.Queued {
	id := m.Origin
	if id == "" {
		id = fmt.Sprintf("%s/%d/%d", b.g.cfg.Gateway.ID, b.g.queue.Epoch(), m.Seq)
	}
	x := admin.Queued{
		Seq: m.Seq, ID: id, Time: m.Time.UTC(), Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, From: m.From, Expires: m.Expires,
		Type: m.ContentType, Size: len(m.Payload),
	}
	if what.Payload {
		x.Payload = m.Payload
	}
	if what.Record {
		m.Origin = id
		x.Record = storequeue.AppendMessage(nil, m)
	}
	return x
}

// Remove takes messages from a link's reader: exported to a file that is on
// disk, or for good, and then it is a loss.
func (b *backlog) Remove(ctx context.Context, what admin.Remove) (admin.Removed, error) {
	out := admin.Removed{Reader: what.Reader, Topics: []string{}}
	r, err := b.find(what.Reader)
	if err != nil {
		return out, err
	}
	if kindOf(what.Reader) == "session" {
		return out, errors.New("what waits for a local session is bounded by broker.limits.session_queue and goes with the session: headgate user rm, or a shorter session_expiry")
	}
	upto := what.Upto
	if upto == 0 {
		upto = b.g.queue.Stats().Last
	}
	out.Upto = upto
	sel := storequeue.Selection{Filter: what.Filter, From: what.From, To: what.To}
	if what.Count {
		out.Count, err = b.count(ctx, r, &sel, upto)
		return out, err
	}
	var notLost error
	loss, err := r.Remove(sel, upto, func(l storequeue.Loss) []storequeue.Change {
		if l.Reason = storequeue.ReasonDropped; what.Exported == "" {
			notLost = r.Lose(l)
		}
		return nil
	})
	if err := errors.Join(err, notLost); err != nil {
		return out, err
	}
	out.Count, out.From, out.To = loss.Count, loss.From.UTC(), loss.To.UTC()
	out.Topics = append(out.Topics, loss.Topics...)
	event := "queue_drop"
	if what.Exported != "" {
		event = "queue_export"
	}
	return out, b.audit(ctx, event, "reader", what.Reader, "filter", what.Filter, "file", what.Exported,
		"count", loss.Count, "from", loss.From, "to", loss.To)
}

func (b *backlog) count(ctx context.Context, r *storequeue.Reader, sel *storequeue.Selection, upto uint64) (n uint64, err error) {
	for after := r.Acked(); ctx.Err() == nil; {
		msgs, err := r.Peek(after, maxPage)
		if err != nil || len(msgs) == 0 {
			return n, err
		}
		for i := range msgs {
			if after = msgs[i].Seq; after > upto {
				return n, nil
			}
			if b.g.queue.Picks(sel, &msgs[i]) {
				n++
			}
		}
	}
	return n, ctx.Err()
}

// Requeue has what the cloud refused tried again now.
func (b *backlog) Requeue(ctx context.Context, name string) (admin.Requeued, error) {
	out := admin.Requeued{Links: map[string]int{}}
	known := []string{}
	for _, l := range b.g.links {
		known = append(known, l.name)
		if name != "" && name != l.name {
			continue
		}
		n, err := b.g.requeue(l)
		out.Links[l.name] = n
		if err != nil {
			return out, err
		}
	}
	if len(out.Links) == 0 {
		return out, fmt.Errorf("there is no link %q: the configuration has %s", name, strings.Join(known, ", "))
	}
	return out, b.audit(ctx, "queue_requeue", "links", out.Links)
}

// Verify reads one segment.
func (b *backlog) Verify(_ context.Context, from uint64) (admin.Verified, error) {
	c, ok := b.g.queue.CheckSegment(from)
	if !ok {
		return admin.Verified{}, nil
	}
	v := admin.Verified{Segment: c.Name, Records: c.Records, Next: c.Next}
	if c.Err != nil {
		v.Damaged = c.Err.Error()
	}
	return v, nil
}

func (b *backlog) lane(kind string, rs storequeue.ReaderStats) admin.Lane {
	l := admin.Lane{
		Reader: rs.Name, Kind: kind, Waiting: rs.Waiting, Bytes: uint64(max(rs.Bytes, 0)), Oldest: rs.Oldest, In: rs.In, Out: rs.Out,
		Lost: map[string]uint64{},
	}
	for why, n := range rs.Lost {
		l.Lost[string(why)] = n
	}
	if r := b.g.queue.Find(rs.Name); r != nil && rs.Waiting > 0 && l.Oldest.IsZero() {
		if msgs, err := r.Peek(r.Acked(), 1); err == nil && len(msgs) > 0 {
			l.Oldest = msgs[0].Time
		}
	}
	if l.Oldest = l.Oldest.UTC(); l.Oldest.Year() > 9999 { // of nothing: it was delivered meanwhile
		l.Oldest = time.Time{}
	}
	return l
}
