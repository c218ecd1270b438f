package gateway

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/headgate-io/headgate/northbound"
	"github.com/headgate-io/headgate/storequeue"
)

// losses gathers what will not be delivered until it is announced on
// hg/{gateway}/lost: how many, which topics, from when to when, and why.
type losses struct {
	mu      sync.Mutex // covers the fields below
	all     map[lossKey]*loss
	damaged map[uint64]bool // sequence numbers that were told, maxDamaged at most
}

type lossKey struct{ link, client, reason string }

// A loss is one announcement; its JSON names are stable.
type loss struct {
	Link   string   `json:"link,omitempty"`   // none with damaged: whom they were for cannot be read
	Client string   `json:"client,omitempty"` // of the local broker; "*": of many
	Reason string   `json:"reason"`           // forbidden, expired, refused or damaged; of a client session_queue
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

func (l *losses) add(link string, why northbound.Drop, m *storequeue.Message) {
	at := m.Time.UnixMilli()
	l.merge(&loss{Link: link, Reason: why.String(), Count: 1, Topics: []string{m.Topic}, From: at, To: at})
}

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
		payload, err := json.Marshal(e)
		if err == nil {
			err = g.broker.Publish(ctx, self, storequeue.Message{
				Topic: "hg/" + g.cfg.Gateway.ID + "/lost", Payload: payload, QoS: 1, Text: true, ContentType: "application/json",
			})
		}
		if err != nil { // a full queue, for one: it is said with the next
			g.log.Error("announce lost messages: trying again", "error", err)
			g.lost.merge(e)
			continue
		}
		g.log.Error("messages will not be delivered", "link", e.Link, "client", e.Client, "reason", e.Reason, "count", e.Count,
			"topics", e.Topics, "from", time.UnixMilli(e.From), "to", time.UnixMilli(e.To))
	}
}
