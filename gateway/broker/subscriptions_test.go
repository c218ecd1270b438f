package broker

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/headgate-io/headgate/gateway/mqtt"
)

// TestIndexAgainstMatch compares the index with asking mqtt.Match about every
// subscription, while subscriptions come and go.
func TestIndexAgainstMatch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var index subscriptions
	have := map[*session]map[string]*subscription{}
	sessions := make([]*session, 20)
	for i := range sessions {
		sessions[i] = &session{clientID: fmt.Sprint(i)}
		sessions[i].several.Store(true)
		have[sessions[i]] = map[string]*subscription{}
	}
	count := 0
	for range 5000 {
		s := sessions[rnd.IntN(len(sessions))]
		filter := randomFilter(rnd)
		if old := have[s][filter]; old != nil && rnd.IntN(2) == 0 {
			index.remove(s, old)
			delete(have[s], filter)
			count--
		} else {
			if old == nil {
				count++
			}
			have[s][filter] = newSubscription(subscriptionRecord{Filter: filter, QoS: byte(rnd.IntN(3)), ID: uint32(1 + rnd.IntN(9))}, nil)
			index.add(s, have[s][filter])
		}
		compare(t, &index, have, randomTopic(rnd))
	}
	if index.len() != count {
		t.Errorf("%d subscriptions, counted %d", count, index.len())
	}
	for s, subs := range have {
		for _, sub := range subs {
			index.remove(s, sub)
		}
	}
	if index.len() != 0 || len(index.root.children) != 0 {
		t.Errorf("%d subscriptions and %d branches are left", index.len(), len(index.root.children))
	}
}

func compare(t *testing.T, index *subscriptions, have map[*session]map[string]*subscription, topic string) {
	t.Helper()
	var m matches
	index.match(topic, nil, &m)
	got := map[*session]*match{}
	for i := range m.found {
		if got[m.found[i].s] != nil {
			t.Fatalf("%q: a session twice", topic)
		}
		got[m.found[i].s] = &m.found[i]
	}
	for s, subs := range have {
		ids, qos := 0, byte(0)
		for _, sub := range subs {
			if mqtt.Match(sub.match, topic) {
				ids++
				qos = max(qos, sub.qos)
			}
		}
		f := got[s]
		if (f != nil) != (ids > 0) || f != nil && (len(f.ids) != ids || f.qos != qos) {
			t.Fatalf("%q: got %+v, want %d filters with QoS %d", topic, f, ids, qos)
		}
	}
}

func randomTopic(rnd *rand.Rand) string {
	levels := make([]string, 1+rnd.IntN(3))
	for i := range levels {
		levels[i] = []string{"a", "b", "", "$x"}[rnd.IntN(4)]
	}
	if topic := strings.Join(levels, "/"); topic != "" {
		return topic
	}
	return "a"
}

func randomFilter(rnd *rand.Rand) string {
	levels := strings.Split(randomTopic(rnd), "/")
	for i := range levels {
		if rnd.IntN(3) == 0 {
			levels[i] = "+"
		}
	}
	if rnd.IntN(3) == 0 {
		levels = append(levels, "#")
	}
	return strings.Join(levels, "/")
}

func TestRetainedAgainstMatch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	r := retained{by: map[string]share{}}
	have := map[string]bool{}
	for range 3000 {
		m := message(randomTopic(rnd))
		if rnd.IntN(3) == 0 {
			m.Payload = nil
		}
		r.put(m)
		if have[m.Topic] = m.Payload != nil; !have[m.Topic] {
			delete(have, m.Topic)
		}
		filter := randomFilter(rnd)
		got := r.match(filter)
		want := 0
		for topic := range have {
			if mqtt.Match(filter, topic) {
				want++
			}
		}
		for _, k := range got {
			if topic := k.message().Topic; !mqtt.Match(filter, topic) {
				t.Fatalf("%q got %q", filter, topic)
			}
		}
		if len(got) != want || r.size().count != len(have) {
			t.Fatalf("%q: %d messages, want %d; %d kept, want %d", filter, len(got), want, r.size().count, len(have))
		}
	}
	for topic := range have {
		m := message(topic)
		m.Payload = nil
		r.put(m)
	}
	if r.total.bytes != 0 || r.total.count != 0 || len(r.root.children) != 0 {
		t.Errorf("left: %d bytes, %d messages", r.total.bytes, r.total.count)
	}
}
