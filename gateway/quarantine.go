package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/headgate-io/headgate/northbound"
	"github.com/headgate-io/headgate/storequeue"
)

// What a cloud refuses for good is kept in the queue for a reader of its own,
// and tried again at the next start, or when somebody says so: by then the
// cloud's access list may be mended.
const (
	quarantineReader = "quarantine/"
	maxQuarantine    = 10_000 // messages a link; beyond it they are lost, and announced
)

// dropped takes what a link will not deliver. It is kept if there is hope, and
// otherwise announced.
func (g *Gateway) dropped(l *link, m storequeue.Message, why northbound.Drop) {
	if why == northbound.Refused && l.quarantine.Waiting() < maxQuarantine {
		aside := m
		aside.Seq, aside.For = 0, []storequeue.Mark{{Reader: l.quarantine.ID(), QoS: m.QoS}}
		err := g.queue.Append(context.Background(), aside) // the cursor passes it next: it has to be on disk
		if err == nil {
			return
		}
		g.log.Error("keep a message that the cloud refused", "link", l.name, "topic", m.Topic, "error", err)
	}
	lane, err := l.lanes.reader(&m)
	if err != nil {
		g.log.Error("count a lost message", "link", l.name, "error", err)
		return
	}
	lane.Drop(&m, storequeue.Reason(why.String())) // counted when the cursor passes it
}

// requeue gives a link what was quarantined until now, and tells how many
// messages that were. They get new sequence numbers: the cloud never took them
// under the old ones.
func (g *Gateway) requeue(l *link) (n int, err error) {
	g.requeueing.Lock()
	defer g.requeueing.Unlock()
	upto := g.queue.Stats().Last // what is refused again from now on stays aside
	for after := l.quarantine.Acked(); ; {
		msgs, err := l.quarantine.Poll(after, 256)
		if err != nil {
			return n, err
		}
		if i := slices.IndexFunc(msgs, func(m storequeue.Message) bool { return m.Seq > upto }); i >= 0 {
			msgs = msgs[:i]
		}
		if len(msgs) == 0 {
			break
		}
		after = msgs[len(msgs)-1].Seq
		for i := range msgs {
			msgs[i].For = []storequeue.Mark{{Reader: l.lanes.of(msgs[i].Topic, g.cfg.Queue).ID(), QoS: msgs[i].QoS}}
		}
		err = g.queue.Append(context.Background(), msgs...)
		if errors.Is(err, storequeue.ErrFull) { // no reason not to start
			g.log.Warn("no room to try again what the cloud refused: it stays aside", "link", l.name, "error", err)
			break
		}
		if err == nil {
			err = l.quarantine.Checkpoint(after)
		}
		if err != nil {
			return n, fmt.Errorf("requeue for link %s: %w", l.name, err)
		}
		n += len(msgs)
	}
	if n > 0 {
		g.log.Warn("messages that the cloud refused before are tried again", "link", l.name, "messages", n)
	}
	return n, nil
}
