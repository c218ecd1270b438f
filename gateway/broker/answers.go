package broker

import (
	"context"
	"sync"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// answers keeps PUBACK and PUBREC in the order of the PUBLISH packets they
// answer [MQTT-4.6.0-2] [MQTT-4.6.0-3], though refusals are known at once and
// everything else after a commit. It also counts what is unanswered.
type answers struct {
	c     *conn
	freed chan struct{} // room for one: a place in the window became free

	mu        sync.Mutex // covers the fields below
	open      int        // QoS 1 and 2 that the client may count as in flight
	submitted uint64
	committed uint64
	late      []lateAnswer // at most one for each place in the window
}

// A lateAnswer goes out when everything submitted before it was committed.
type lateAnswer struct {
	after uint64
	ack   mqtt.Ack
}

func (a *answers) init(c *conn) {
	a.c = c
	a.freed = make(chan struct{}, 1)
}

// take claims a place in the receive window. An MQTT 5 client that was told the
// window and goes beyond it breaks the protocol; one of 3.1.1 cannot know, so
// it is read no further until a place is free.
func (a *answers) take(ctx context.Context) error {
	for {
		a.mu.Lock()
		free := a.open+len(a.late) < a.c.limits.ReceiveMaximum
		if free {
			a.open++
		}
		a.mu.Unlock()
		if free {
			return nil
		}
		if a.c.version == mqtt.V5 {
			return violation(mqtt.ReceiveMaximumExceeded, "MQTT-3.3.4-9", "more QoS 1 and 2 in flight than CONNACK allowed")
		}
		select {
		case <-a.freed:
		case <-a.c.quit:
			return errGone
		case <-ctx.Done():
			return errGone
		}
	}
}

// free gives a place back.
func (a *answers) free() {
	a.mu.Lock()
	a.open--
	a.mu.Unlock()
	select {
	case a.freed <- struct{}{}:
	default:
	}
}

// submit notes that a message went to the queue.
func (a *answers) submit() {
	a.mu.Lock()
	a.submitted++
	a.mu.Unlock()
}

// commit answers the oldest message that went to the queue; nil: not at all.
func (a *answers) commit(ack *mqtt.Ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ack != nil {
		a.c.send(ack)
	}
	a.committed++
	for len(a.late) > 0 && a.late[0].after <= a.committed {
		a.c.send(&a.late[0].ack)
		a.late = a.late[1:]
		select {
		case a.freed <- struct{}{}:
		default:
		}
	}
}

// now answers a message that does not go to the queue, in its turn.
func (a *answers) now(ack mqtt.Ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.submitted == a.committed {
		a.c.send(&ack)
		return
	}
	a.late = append(a.late, lateAnswer{a.submitted, ack})
}
