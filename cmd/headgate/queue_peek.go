package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/spf13/cobra"
)

// A peeked message is one line of peek --json. Its names are stable.
type peeked struct {
	Reader  string    `json:"reader"`
	Seq     uint64    `json:"seq"`
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Topic   string    `json:"topic"`
	QoS     byte      `json:"qos"`
	Retain  bool      `json:"retain"`
	From    string    `json:"from"`
	Expires time.Time `json:"expires,omitzero"`
	Type    string    `json:"content_type,omitempty"`
	Size    int       `json:"size"`
	Text    *string   `json:"payload,omitempty"`        // with --payload, if it is UTF-8
	Base64  []byte    `json:"payload_base64,omitempty"` // with --payload, if it is not
}

func queuePeek(path *string) *cobra.Command {
	var c choice
	var most int
	var payload, asJSON bool
	cmd := &cobra.Command{
		Use:   "peek",
		Short: "Show what waits, without taking anything",
		Args:  args(cobra.NoArgs),
	}
	c.flags(cmd, path)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().Lookup("json").Usage = "print a JSON object a line, with stable names"
	cmd.Flags().IntVarP(&most, "number", "n", 100, "at most that many messages of each reader, the oldest; 0: all")
	cmd.Flags().BoolVar(&payload, "payload", false, "show payloads too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.parse(); err != nil {
			return err
		}
		return withQueue(cmd, *path, false, func(ctx context.Context, q admin.Queue) error {
			names, err := c.readers(ctx, q)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			for _, name := range names {
				left := most
				_, err := c.each(ctx, q, admin.Read{Reader: name, Limit: most, Payload: payload}, func(m *admin.Queued) (bool, error) {
					left--
					return left != 0, printPeeked(out, name, m, payload, asJSON)
				})
				if err != nil {
					return err
				}
			}
			return out.Flush()
		})
	}
	return cmd
}

func printPeeked(out *bufio.Writer, reader string, m *admin.Queued, payload, asJSON bool) error {
	if !asJSON {
		fmt.Fprintf(out, "%s  %s  %s  qos %d  %d bytes  %s", m.Time.Local().Format(time.RFC3339), m.ID, plain(m.Topic), m.QoS, m.Size, plain(m.From))
		if payload {
			fmt.Fprintf(out, "  %s", plain(string(m.Payload)))
		}
		_, err := fmt.Fprintln(out)
		return err
	}
	p := peeked{Reader: reader, Seq: m.Seq, ID: m.ID, Time: m.Time, Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, From: m.From, Expires: m.Expires, Type: m.Type, Size: m.Size}
	if text := string(m.Payload); payload && utf8.ValidString(text) {
		p.Text = &text
	} else if payload {
		p.Base64 = m.Payload
	}
	return json.NewEncoder(out).Encode(p)
}
