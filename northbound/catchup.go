package northbound

import (
	"net"
	"time"
)

// Catching up. In order, there is one stream. With live places there are two, and
// each lane stands in l.lanes twice: its live place among the first half, and
// behind all of those what waited when the link came up.

// replays reports whether what a lane gives is sent after later messages.
func (l *Link) replays(lane int) bool {
	n := len(l.cfg.Live)
	return n > 0 && lane >= n
}

// split begins the two streams anew. After an outage that left no more than fits
// into one window there is one, unless what waits is to be shaped. In a new
// process nobody knows whether later messages were sent already.
func (l *Link) split(window int) {
	few := uint64(0)
	if l.splits && l.cfg.Rate == 0 {
		few = uint64(window)
	}
	l.splits = true
	for i, live := range l.cfg.Live {
		l.given[i] = live.Given()
		if live.Split(few, l.ledger.sentLive(live.Name(), l.settled)) {
			l.redo[i].join(&l.redo[len(l.cfg.Live)+i])
		}
	}
}

// backlog is how many messages are behind. Without live places what fits into a
// window is on its way, and not behind.
func (l *Link) backlog() (n uint64) {
	live := uint64(0)
	for i, lane := range l.lanes {
		if i < len(l.cfg.Live) {
			live += lane.Waiting()
		} else {
			n += lane.Waiting()
		}
	}
	if len(l.cfg.Live) == 0 && n <= uint64(l.cfg.InFlight) {
		return 0
	}
	return n - min(n, live)
}

// A pacer says how much may be sent of what waited: not more bytes a second than
// configured, and beside a live stream not more at once than is answered within
// queueTime beyond what the way takes. Else new messages would wait behind it in
// the buffers of the network.
type pacer struct {
	rate   float64 // bytes a second; 0: no bound
	tokens float64 // bytes that may be sent
	filled time.Time
	size   float64 // of a packet, about

	bound int           // of messages in flight
	way   time.Duration // shortest time to an answer
}

const (
	queueTime  = 500 * time.Millisecond
	firstBound = 32
	burstTime  = 100 * time.Millisecond // of the rate
)

func newPacer(rate int64) pacer {
	return pacer{rate: float64(rate), filled: time.Now(), size: 256, bound: firstBound}
}

func (p *pacer) burst() float64 { return max(1, p.rate*burstTime.Seconds()) }

// allowance is how many messages may be sent now for the rate's sake.
func (p *pacer) allowance(now time.Time, most int) int {
	if p.rate <= 0 {
		return most
	}
	p.tokens = min(p.burst(), p.tokens+p.rate*now.Sub(p.filled).Seconds())
	p.filled = now
	if p.tokens <= 0 {
		return 0
	}
	return min(most, 1+int(p.tokens/p.size))
}

// pause is how long it takes until a burst may be sent.
func (p *pacer) pause(now time.Time) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	lacks := p.burst() - p.tokens - p.rate*now.Sub(p.filled).Seconds()
	return max(0, time.Duration(lacks/p.rate*float64(time.Second)))
}

func (p *pacer) spend(bytes int) {
	if p.rate > 0 {
		p.tokens -= float64(bytes)
	}
	p.size += (float64(bytes) - p.size) / 8
}

// learn takes how long a message took from here to its answer.
func (p *pacer) learn(took time.Duration) {
	if took <= 0 {
		return
	}
	if p.way == 0 || took < p.way {
		p.way = took
	}
	switch bearable := p.way + queueTime; {
	case took > bearable:
		p.bound = max(1, int(float64(p.bound)*float64(bearable)/float64(took)))
	case took < p.way+queueTime/2:
		p.bound = min(2*p.bound, maxInFlight)
	}
}

// room is how many messages of what waited may be sent now.
func (s *sender) room() int {
	most := nextMax
	if len(s.link.cfg.Live) > 0 {
		open, took := s.window.lag()
		s.pace.learn(took)
		most = s.pace.bound - open
	}
	return s.pace.allowance(time.Now(), most)
}

// counted counts what goes over a connection's wire.
type counted struct {
	net.Conn
	status *status
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.status.bytesIn.Add(uint64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.status.bytesOut.Add(uint64(n))
	return n, err
}
