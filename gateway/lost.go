package gateway

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/storequeue"
)

// What will not be delivered is announced on hg/{gateway}/lost: how many, which
// topics, from when to when, and why. What links lost is counted in the queue,
// across crashes; losses gathers what local clients did not get, and what is
// damaged.
type losses struct {
	mu      sync.Mutex // covers the fields below
	all     map[lossKey]*loss
	damaged map[uint64]bool // sequence numbers that were told, maxDamaged at most
}

type lossKey struct{ link, client, reason string }

// A loss is one announcement; its JSON names are stable.
type loss struct {
	Link   string   `json:"link,omitempty"`   // none with damaged: whom they were for cannot be read
	Lane   string   `json:"lane,omitempty"`   // of the link, if there is more than one
	Client string   `json:"client,omitempty"` // of the local broker; "*": of many
	Reason string   `json:"reason"`           // forbidden, expired, refused, max_size, max_age, damaged, dropped or state; of a client session_queue
	Count  uint64   `json:"count"`
	Topics []string `json:"topics"` // the first ten; none with damaged
	From   int64    `json:"from"`   // when the first and the last of them was accepted, Unix milliseconds
	To     int64    `json:"to"`     // with damaged: was found
}

const (
	lossTopics    = 10
	lossClients   = 100 // announced one by one
	announceEvery = 10 * time.Second
)

// skip adds a message that a local client will not get.
func (l *losses) skip(client string, m *storequeue.Message) {
	at := m.Time.UnixMilli()
	l.merge(&loss{Client: client, Reason: "session_queue", Count: 1, Topics: []string{m.Topic}, From: at, To: at})
}

// maxDamaged bounds what is remembered of damaged messages; it is a disk for
// the bin long before.
const maxDamaged = 10_000

// addDamaged counts the message with that sequence number, once.
func (l *losses) addDamaged(seq uint64) {
	l.mu.Lock()
	known := l.damaged[seq] || len(l.damaged) >= maxDamaged
	if !known {
		if l.damaged == nil {
			l.damaged = map[uint64]bool{}
		}
		l.damaged[seq] = true
	}
	l.mu.Unlock()
	if known {
		return
	}
	now := time.Now().UnixMilli()
	l.merge(&loss{Reason: "damaged", Count: 1, Topics: []string{}, From: now, To: now})
}

// merge adds a loss to what is to be announced.
func (l *losses) merge(more *loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[lossKey]*loss{}
	}
	k := lossKey{more.Link, more.Client, more.Reason}
	e := l.all[k]
	if e == nil && more.Client != "" && len(l.all) >= lossClients {
		more.Client, k.client = "*", "*"
		e = l.all[k]
	}
	if e == nil {
		l.all[k] = more
		return
	}
	e.Count += more.Count
	e.From, e.To = min(e.From, more.From), max(e.To, more.To)
	for _, topic := range more.Topics {
		if len(e.Topics) < lossTopics && !slices.Contains(e.Topics, topic) {
			e.Topics = append(e.Topics, topic)
		}
	}
}

func (l *losses) take() []*loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*loss
	for _, e := range l.all {
		out = append(out, e)
	}
	clear(l.all)
	return out
}

// announceLosses says every ten seconds, and once more at the end, what was
// dropped since.
func (g *Gateway) announceLosses(ctx context.Context) error {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.sayLosses(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			g.sayLosses(last)
			return nil
		}
	}
}

func (g *Gateway) sayLosses(ctx context.Context) {
	for _, e := range g.lost.take() {
		if err := g.say(ctx, e, nil, nil); err != nil { // a full queue, for one: it is said with the next
			g.log.Error("announce lost messages: trying again", "error", err)
			g.lost.merge(e)
		}
	}
	if err := g.sayCounted(ctx); err != nil {
		g.log.Error("announce lost messages: trying again", "error", err)
	}
}

// say announces a loss. It has room in a full queue.
func (g *Gateway) say(ctx context.Context, e *loss, note []byte, marks []storequeue.Mark) error {
	payload, err := json.Marshal(e)
	if err == nil {
		err = g.broker.Publish(ctx, self, storequeue.Message{
			Topic: lostTopic(g.cfg), Payload: payload, QoS: 1, Text: true, ContentType: "application/json", Own: true, Note: note, For: marks,
		})
	}
	if err == nil {
		g.log.Error("messages will not be delivered", "link", e.Link, "lane", e.Lane, "client", e.Client, "reason", e.Reason, "count", e.Count,
			"topics", e.Topics, "from", time.UnixMilli(e.From), "to", time.UnixMilli(e.To))
	}
	return err
}

func lostTopic(cfg *config.Config) string { return "hg/" + cfg.Gateway.ID + "/lost" }

// toldReader reads the announcements of what the queue counted. Each has the
// loss's ID as its note: once it is in the log, it is struck out, after a crash
// as well, so that each is counted once.
const toldReader = "lost"

// strikeTold strikes out what was announced.
func (g *Gateway) strikeTold() error {
	for {
		msgs, err := g.told.Poll(g.told.Acked(), 100)
		if err != nil || len(msgs) == 0 {
			return err
		}
		var ids []string
		for i := range msgs {
			ids = append(ids, string(msgs[i].Note))
		}
		if err := g.told.StrikeOut(msgs[len(msgs)-1].Seq, ids...); err != nil {
			return err
		}
	}
}

// quietFor is how long the losses of a link that is down are gathered before
// they are announced: until then nobody but local clients would hear of them,
// and the announcements themselves must not fill the disk.
const quietFor = time.Hour

func (g *Gateway) sayCounted(ctx context.Context) error {
	if err := g.strikeTold(); err != nil {
		return err
	}
	up := map[string]bool{}
	for _, l := range g.links {
		up[l.name] = l.Stats().Connected
	}
	late := time.Since(g.saidAll) >= quietFor
	all, err := g.queue.Losses(func(reader string) bool {
		link, _, ok := splitReader(reader, g.cfg.Queue)
		return late || !ok || up[link]
	})
	if err != nil {
		return err
	}
	if late {
		g.saidAll = time.Now()
	}
	for i := range all {
		l := &all[i]
		e := &loss{Reason: string(l.Reason), Count: l.Count, Topics: l.Topics, From: l.From.UnixMilli(), To: l.To.UnixMilli()}
		e.Link, e.Lane, _ = splitReader(l.Reader, g.cfg.Queue)
		if e.Topics == nil {
			e.Topics = []string{}
		}
		if err := g.say(ctx, e, []byte(l.ID), []storequeue.Mark{{Reader: g.told.ID()}}); err != nil {
			return err
		}
	}
	return g.strikeTold()
}
