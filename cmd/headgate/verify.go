package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/client"
	"github.com/headgate-io/headgate/northbound"
	"github.com/spf13/cobra"
)

type verifier struct {
	filters []string
	lasts   time.Duration
	count   uint64
	durable bool
	once    bool
	json    bool
}

func verifyCommand() *cobra.Command {
	var v verifier
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Listen at the cloud and report gaps, repeats and disorder by message identity",
		Long: `Listen at the cloud's broker and judge what arrives by hg-id and hg-prev, in user properties or in an envelope: a message that its
successor names and that never comes is missing. Ends with Ctrl-C, --for or --count.
Exit code 1 if anything is missing or out of order (with --once: or repeated).
A message that is lost by policy is announced on hg/{gateway}/lost.`,
		Args: args(cobra.NoArgs),
	}
	conn := connectionFlags(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&v.filters, "topic", "t", []string{"#"}, "topic filter at the cloud (repeat for more)")
	f.DurationVar(&v.lasts, "for", 0, "end after this time")
	f.Uint64VarP(&v.count, "count", "C", 0, "end after this many messages")
	f.BoolVarP(&v.durable, "disable-clean-session", "c", false, "keep the session: what arrives while this is not running is judged too (needs -i)")
	f.BoolVar(&v.once, "once", false, "a repeat is a problem too: routes with qos 2")
	f.BoolVar(&v.json, "json", false, "print the findings as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if v.durable && conn.id == "" {
			return usageError{errors.New("a session that is kept needs a name: -i ID")}
		}
		return v.run(cmd, conn)
	}
	return cmd
}

func (v *verifier) run(cmd *cobra.Command, conn *connection) error {
	ctx := cmd.Context()
	if v.lasts > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.lasts)
		defer cancel()
	}
	audit, heard, enough := northbound.NewAudit(), uint64(0), make(chan struct{})
	options := client.Options{CleanStart: !v.durable, OnMessage: func(m *client.Message) error {
		if m.Retain { // of an earlier time, perhaps of an earlier life
			return nil
		}
		if v.count > 0 && heard == v.count {
			return errEnough
		}
		hear(audit, m)
		if heard++; heard == v.count {
			close(enough)
		}
		return nil
	}}
	if v.durable {
		options.SessionExpiry = 0xFFFFFFFF
	}
	cl, err := conn.dial(ctx, options)
	if err != nil {
		return err
	}
	qos := 1
	if v.once {
		qos = 2
	}
	s := subscriber{filters: v.filters, qos: qos}
	if err := s.subscribe(ctx, cl); err != nil && !errors.Is(err, errEnough) {
		cl.Disconnect()
		return err
	}
	select {
	case <-enough:
	case <-ctx.Done():
	case <-cl.Done():
	}
	cl.Disconnect() // after it nobody calls OnMessage
	if err := cl.Err(); err != nil && !errors.Is(err, errEnough) {
		fmt.Fprintln(cmd.ErrOrStderr(), "headgate: the connection ended before its time:", err)
	}
	return v.report(cmd.OutOrStdout(), audit)
}

func hear(audit *northbound.Audit, m *client.Message) {
	var id, prev string
	replay := false
	for _, p := range m.UserProperties {
		switch p.Key {
		case "hg-id":
			if id == "" { // the link's own stands before what a publisher wrote
				id = p.Value
			}
		case "hg-prev":
			if prev == "" {
				prev = p.Value
			}
		case "hg-replay":
			replay = replay || p.Value == "1"
		}
	}
	if id == "" { // of a link without user properties
		e, _, _ := northbound.Unwrap(m.Payload)
		id, prev, replay = e.ID, strconv.FormatUint(e.Prev, 10), e.Replay == 1
	}
	audit.Hear(m.Topic, id, prev, replay)
}

// report prints the findings and says whether they are good.
func (v *verifier) report(w io.Writer, audit *northbound.Audit) error {
	all := audit.Findings()
	good := true
	for _, f := range all {
		good = good && f.Missing == 0 && f.Disordered == 0 && f.Unjudged == 0 && (!v.once || f.Repeats == 0)
	}
	if v.json {
		err := json.NewEncoder(w).Encode(struct {
			Good    bool                 `json:"good"`
			Logs    []northbound.Finding `json:"logs"`
			Unnamed uint64               `json:"without_identity"`
		}{good, append([]northbound.Finding{}, all...), audit.Unnamed()})
		if err != nil {
			return err
		}
	} else {
		printFindings(w, all, audit.Unnamed())
	}
	if !good {
		return errToldAlready
	}
	return nil
}

func printFindings(w io.Writer, all []northbound.Finding, unnamed uint64) {
	if len(all) == 0 {
		fmt.Fprintln(w, "Nothing with an identity arrived: does a gateway send here, and may this user subscribe?")
	}
	for _, f := range all {
		fmt.Fprintf(w, "%s  %d messages, %d to %d: %d missing, %d out of order, %d repeats", f.Log, f.Messages, f.First, f.Last, f.Missing, f.Disordered, f.Repeats)
		if f.Replayed > 0 {
			fmt.Fprintf(w, ", %d replayed", f.Replayed)
		}
		fmt.Fprintln(w)
		if len(f.Ranges) > 0 {
			var text []string
			for _, r := range f.Ranges {
				if r.From == r.To {
					text = append(text, fmt.Sprint(r.From))
				} else {
					text = append(text, fmt.Sprintf("%d-%d", r.From, r.To))
				}
			}
			fmt.Fprintf(w, "  missing: %s\n  compare with hg/%s/lost; what is neither there nor here waits in the gateway: headgate queue status\n",
				strings.Join(text, ", "), gatewayOf(f.Log))
		}
		if f.Unjudged > 0 {
			fmt.Fprintf(w, "  %d could not be judged: too many topics or gaps; narrow it with -t\n", f.Unjudged)
		}
	}
	if unnamed > 0 {
		fmt.Fprintf(w, "%d messages without hg-id, not judged\n", unnamed)
	}
}

func gatewayOf(log string) string {
	name, _, _ := strings.Cut(log, "/")
	return name
}
