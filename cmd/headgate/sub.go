package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/spf13/cobra"
)

type subscriber struct {
	filters       []string
	qos           int
	verbose, json bool
	format        string
	count         int
	timeout       int
	durable       bool
	noRetained    bool
}

// errEnough leaves what comes after the last message asked for unacknowledged.
var errEnough = errors.New("enough")

func subCommand() *cobra.Command {
	var s subscriber
	cmd := &cobra.Command{
		Use:   "sub -t FILTER",
		Short: "Print messages, with mosquitto_sub's flags",
		Args:  args(cobra.NoArgs),
	}
	conn := connectionFlags(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&s.filters, "topic", "t", nil, "topic filter (repeat for more)")
	f.IntVarP(&s.qos, "qos", "q", 0, "0, 1 or 2")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "print the topic before the message")
	f.StringVarP(&s.format, "format", "F", "", "%t topic, %p payload, %q QoS, %r retained, %I time, %l length, %% percent")
	f.IntVarP(&s.count, "count", "C", 0, "end after this many messages")
	f.IntVarP(&s.timeout, "timeout", "W", 0, "end after this many seconds; without the -C messages that is a failure")
	f.BoolVarP(&s.durable, "disable-clean-session", "c", false, "keep the session: messages wait while this is not running (needs -i)")
	f.BoolVarP(&s.noRetained, "retained-off", "R", false, "do not print retained messages")
	f.BoolVar(&s.json, "json", false, "print a JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(s.filters) == 0 || s.qos < 0 || s.qos > 2 {
			return usageError{errors.New("say what to listen to: -t FILTER, and -q 0, 1 or 2")}
		}
		if s.durable && conn.id == "" {
			return usageError{errors.New("a session that is kept needs a name: -i ID")}
		}
		return s.run(cmd, conn)
	}
	return cmd
}

func (s *subscriber) run(cmd *cobra.Command, conn *connection) error {
	ctx := cmd.Context()
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.timeout)*time.Second)
		defer cancel()
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	left := s.count
	enough := make(chan struct{}) // closed with the last message asked for
	options := client.Options{CleanStart: !s.durable, OnMessage: func(m *client.Message) error {
		if s.count > 0 && left == 0 {
			return errEnough
		}
		if s.noRetained && m.Retain {
			return nil
		}
		s.print(out, m, time.Now())
		if err := out.Flush(); err != nil {
			return err
		}
		if left--; left == 0 {
			close(enough)
		}
		return nil
	}}
	if s.durable {
		options.SessionExpiry = 0xFFFFFFFF
	}
	cl, err := conn.dial(ctx, options)
	if err != nil {
		return err
	}
	defer cl.Disconnect()
	if err := s.subscribe(ctx, cl); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	select {
	case <-enough:
		return nil
	case <-cl.Done():
		return cl.Err()
	case <-ctx.Done():
		if s.count > 0 && cmd.Context().Err() == nil {
			return fmt.Errorf("after %d s %d messages are missing", s.timeout, left)
		}
		return nil
	}
}

func (s *subscriber) subscribe(ctx context.Context, cl *client.Client) error {
	var subs []mqtt.Subscription
	for _, f := range s.filters {
		subs = append(subs, mqtt.Subscription{Filter: f, QoS: byte(s.qos)})
	}
	codes, err := cl.Subscribe(ctx, subs...)
	if err != nil {
		return err
	}
	for i, code := range codes {
		if code == mqtt.UnspecifiedError { // what brokers say to a filter that no rule allows
			return fmt.Errorf("subscribe to %s: refused by the broker, as a rule because it is not authorized: ask headgate access explain", s.filters[i])
		}
		if code >= 0x80 {
			return fmt.Errorf("subscribe to %s: refused by the broker: %v", s.filters[i], code)
		}
	}
	return nil
}

func (s *subscriber) print(w io.Writer, m *client.Message, at time.Time) {
	switch {
	case s.json:
		json.NewEncoder(w).Encode(struct {
			Time    time.Time           `json:"tst"`
			Topic   string              `json:"topic"`
			QoS     byte                `json:"qos"`
			Retain  bool                `json:"retain"`
			Payload string              `json:"payload"`
			User    []mqtt.UserProperty `json:"user_properties,omitempty"`
		}{at, m.Topic, m.QoS, m.Retain, string(m.Payload), m.UserProperties})
	case s.format != "":
		retained := map[bool]string{false: "0", true: "1"}[m.Retain]
		fmt.Fprintln(w, strings.NewReplacer("%%", "%", "%t", m.Topic, "%p", string(m.Payload), "%q", fmt.Sprint(m.QoS),
			"%r", retained, "%I", at.Format("2006-01-02T15:04:05-0700"), "%l", fmt.Sprint(len(m.Payload))).Replace(s.format))
	case s.verbose:
		fmt.Fprintf(w, "%s %s\n", m.Topic, m.Payload)
	default:
		fmt.Fprintf(w, "%s\n", m.Payload)
	}
}
