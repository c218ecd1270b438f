package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// A Client is one local session. Its JSON names are stable.
type Client struct {
	ID            string `json:"client"`
	Identity      string `json:"identity"`
	Connected     bool   `json:"connected"`
	Subscriptions int    `json:"subscriptions"`
	InFlight      int    `json:"in_flight"` // QoS 1 and 2 sent and not acknowledged
	Waiting       uint64 `json:"waiting"`   // QoS 1 and 2 not acknowledged, those in flight among them

	// While it is connected, and since.
	Since    time.Time `json:"since,omitzero"`
	Remote   string    `json:"remote,omitempty"`
	Listener string    `json:"listener,omitempty"`
	MQTT     string    `json:"mqtt,omitempty"` // "3.1.1" or "5"
	Received uint64    `json:"received"`       // PUBLISH packets
	Sent     uint64    `json:"sent"`
	BytesIn  uint64    `json:"bytes_in"`
	BytesOut uint64    `json:"bytes_out"`
	Dropped  uint64    `json:"dropped"` // QoS 0 for which there was no room, and what is larger than the client takes
}

// slowWaiting is how many messages wait for a connected client that is slow.
const slowWaiting = 1000

// Slow reports whether the client is connected and does not keep up.
func (c *Client) Slow() bool { return c.Connected && (c.Dropped > 0 || c.Waiting >= slowWaiting) }

// GetClients asks the gateway behind socket for its clients, by client id.
func GetClients(ctx context.Context, socket string) ([]Client, error) {
	resp, err := ask(ctx, socket, http.MethodGet, "/v1/clients")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: answered %s", socket, resp.Status)
	}
	var all []Client
	if err := decode(resp, &all); err != nil {
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	}
	return all, nil
}

// clientSeries is how many clients have metrics of their own: the first by
// client id. The others are summed into one.
const clientSeries = 1000

func (p *page) clients(all []Client) {
	if len(all) > clientSeries {
		rest := Client{ID: "(others)"} // no identity: it is nobody's id
		for i := range all[clientSeries:] {
			rest.add(&all[clientSeries+i])
		}
		all = append(all[:clientSeries:clientSeries], rest)
	}
	for _, f := range []struct {
		name, kind, help string
		value            func(*Client) any
	}{
		{"client_received_messages_total", "counter", "PUBLISH packets from the client since it connected.", func(c *Client) any { return c.Received }},
		{"client_sent_messages_total", "counter", "PUBLISH packets to the client since it connected.", func(c *Client) any { return c.Sent }},
		{"client_received_bytes_total", "counter", "Bytes of MQTT from the client since it connected.", func(c *Client) any { return c.BytesIn }},
		{"client_sent_bytes_total", "counter", "Bytes of MQTT to the client since it connected.", func(c *Client) any { return c.BytesOut }},
		{"client_dropped_messages_total", "counter", "Messages for which the client had no room since it connected.", func(c *Client) any { return c.Dropped }},
		{"client_inflight_messages", "gauge", "Messages sent to the client and not acknowledged.", func(c *Client) any { return c.InFlight }},
		{"client_waiting_messages", "gauge", "Messages on disk that the client has not acknowledged.", func(c *Client) any { return c.Waiting }},
	} {
		p.family(f.name, f.kind, f.help)
		for i := range all {
			p.value(f.name, f.value(&all[i]), "client", all[i].ID, "identity", all[i].Identity)
		}
	}
}

// add sums o into c, which stands for many.
func (c *Client) add(o *Client) {
	c.Received += o.Received
	c.Sent += o.Sent
	c.BytesIn += o.BytesIn
	c.BytesOut += o.BytesOut
	c.Dropped += o.Dropped
	c.InFlight += o.InFlight
	c.Waiting += o.Waiting
}
