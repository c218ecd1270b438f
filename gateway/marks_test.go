package gateway

import (
	"fmt"

	"github.com/headgate-io/headgate/storequeue"
)

// Marks tells for which links, in which lanes and at which QoS a message would be
// stored, for tests from outside.
func (g *Gateway) Marks(topic, from string) map[string]string {
	m := storequeue.Message{Topic: topic, From: from}
	g.outbound(&m)
	found := map[string]string{}
	for _, mark := range m.For {
		for _, l := range g.links {
			for i, r := range append(l.lanes.all, l.lanes.own) {
				switch {
				case r.ID() != mark.Reader:
				case i == len(l.lanes.all):
					found[l.name] = fmt.Sprintf(" %d", mark.QoS)
				default:
					found[l.name] = fmt.Sprintf("%s %d", g.cfg.Queue.Lanes[i].Name, mark.QoS)
				}
			}
		}
	}
	return found
}
