package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/headgate-io/headgate/northbound"
	"github.com/headgate-io/headgate/storequeue"
)

// A lane of a link is a reader of the queue: link/NAME for the last lane, which
// takes the rest, and link/NAME/LANE for the others.
const (
	linkReader = "link/" // before the link's name
	ownLane    = "/own"  // what the gateway announces; no lane of the configuration can be called that
)

// lanes are the readers of one link.
type lanes struct {
	own   *storequeue.Reader
	all   []*storequeue.Reader // as in the configuration
	left  []*storequeue.Reader // of lanes that are gone from it and have something left
	topic string               // of announcements
}

func laneReader(link string, cfg config.Queue, i int) string {
	if i == len(cfg.Lanes)-1 {
		return linkReader + link
	}
	return linkReader + link + "/" + cfg.Lanes[i].Name
}

// splitReader tells the link and the lane that a reader is for.
func splitReader(name string, cfg config.Queue) (link, lane string, ok bool) {
	rest, ok := strings.CutPrefix(name, linkReader)
	link, lane, named := strings.Cut(rest, "/")
	if !named && len(cfg.Lanes) > 1 {
		lane = cfg.Lanes[len(cfg.Lanes)-1].Name
	}
	return link, lane, ok
}

func (g *Gateway) openLanes(name string) (l lanes, err error) {
	l.topic = lostTopic(g.cfg)
	if l.own, err = g.queue.Reader(linkReader + name + "/" + ownLane); err != nil {
		return l, err
	}
	known := map[string]bool{l.own.Name(): true}
	for i := range g.cfg.Queue.Lanes {
		r, err := g.queue.Reader(laneReader(name, g.cfg.Queue, i))
		if err != nil {
			return l, err
		}
		known[r.Name()] = true
		l.all = append(l.all, r)
	}
	for _, st := range g.queue.Stats().Readers {
		link, _, ok := splitReader(st.Name, g.cfg.Queue)
		if !ok || link != name || known[st.Name] {
			continue
		}
		r, err := g.queue.Reader(st.Name)
		if err != nil {
			return l, err
		}
		if st.Waiting == 0 {
			if err := g.queue.Forget(r); err != nil {
				return l, err
			}
			continue
		}
		g.log.Warn("messages wait in a lane that is not configured any more: they are sent last", "link", name, "reader", st.Name, "messages", st.Waiting)
		l.left = append(l.left, r)
	}
	l.limit(g.cfg.Queue)
	return l, nil
}

// limit applies the lanes' limits. What is left of lanes that are gone has none.
func (l *lanes) limit(cfg config.Queue) {
	l.own.Limit(storequeue.Limits{Priority: 10})
	for _, r := range l.left {
		r.Limit(storequeue.Limits{Priority: -1})
	}
	for i, r := range l.all {
		c := cfg.Lanes[i]
		limits := storequeue.Limits{MaxBytes: c.MaxSize, MaxAge: c.MaxAge, Priority: c.Priority}
		if c.WhenFull == config.DropOldest {
			limits.WhenFull = storequeue.DropOldest
		}
		r.Limit(limits)
	}
}

// ordered lists the lanes in the order in which they are sent: announcements,
// then by priority and the order of the configuration, then what is left of
// lanes that are gone.
func (l *lanes) ordered(cfg config.Queue) []*storequeue.Reader {
	order := make([]int, len(l.all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(cfg.Lanes[y].Priority, cfg.Lanes[x].Priority) })
	all := []*storequeue.Reader{l.own}
	for _, i := range order {
		all = append(all, l.all[i])
	}
	return append(all, l.left...)
}

func sources(lanes []*storequeue.Reader) (all []northbound.Source) {
	for _, r := range lanes {
		all = append(all, r)
	}
	return all
}

// of is the lane that a topic goes to.
func (l *lanes) of(topic string, cfg config.Queue) *storequeue.Reader {
	if topic == l.topic {
		return l.own
	}
	return l.all[laneOf(topic, cfg)]
}

// laneOf is the number of the first lane that takes a topic; the last takes all.
func laneOf(topic string, cfg config.Queue) int {
	for i := range cfg.Lanes[:len(cfg.Lanes)-1] {
		for _, filter := range cfg.Lanes[i].Topics {
			if mqtt.Match(filter, topic) {
				return i
			}
		}
	}
	return len(cfg.Lanes) - 1
}

func (l *lanes) readers() []*storequeue.Reader {
	return slices.Concat([]*storequeue.Reader{l.own}, l.all, l.left)
}

// reader is the one that gave out a message.
func (l *lanes) reader(m *storequeue.Message) (*storequeue.Reader, error) {
	for _, r := range l.readers() {
		if len(m.For) > 0 && r.ID() == m.For[0].Reader {
			return r, nil
		}
	}
	return nil, fmt.Errorf("message %d is of no lane", m.Seq)
}
