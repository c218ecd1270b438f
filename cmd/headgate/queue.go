package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/mqtt"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "See, move and mend what waits on disk",
		Long: `Asks the running gateway, or opens the folder of one that is stopped: what it
did is said on standard error. Messages are shown to, and changed by, root and
the gateway's own user only.`,
	}
	path := configFlag(cmd)
	cmd.AddCommand(queueStatus(path), queuePeek(path), queueExport(path), queueImport(path),
		queueDrain(path), queueVerify(path), queueDrop(path), queueRequeue(path), queueRekey(path))
	return cmd
}

// withQueue runs fn on the queue of the running gateway, or of the folder if
// none runs; only the running one's if live.
func withQueue(cmd *cobra.Command, path string, live bool, fn func(context.Context, admin.Queue) error) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	ctx, remote := cmd.Context(), admin.Remote{Socket: gateway.Socket(cfg)}
	_, err = remote.Report(ctx)
	if err == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "asking the running gateway at %s\n", remote.Socket)
		return fn(ctx, remote)
	}
	if !errors.Is(err, admin.ErrNotRunning) || live {
		return err
	}
	log, err := newLogger(cmd.ErrOrStderr(), "warn", "text")
	if err != nil {
		return err
	}
	q, stop, err := gateway.OpenStopped(cfg, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "the gateway is stopped: working on its folder %s\n", cfg.Gateway.Data)
	return errors.Join(fn(ctx, q), stop())
}

// A choice is which messages a verb is about.
type choice struct {
	reader, filter, from, to string

	From, To time.Time // as parsed
}

func (c *choice) flags(cmd *cobra.Command, path *string) {
	f := cmd.Flags()
	f.StringVar(&c.reader, "reader", "", "what waits for this reader (default: all links' readers)")
	f.StringVar(&c.filter, "filter", "", "on topics that this filter takes")
	f.StringVar(&c.from, "from", "", "accepted then or later: 2026-11-29T08:00:00Z, 2026-11-29, or 2h for two hours ago")
	f.StringVar(&c.to, "to", "", "accepted before")
	completeReaders(cmd, path)
}

// completeReaders offers the readers of the running gateway.
func completeReaders(cmd *cobra.Command, path *string) {
	_ = cmd.RegisterFlagCompletionFunc("reader", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		cfg, err := loadConfig(*path)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		r, err := admin.Remote{Socket: gateway.Socket(cfg)}.Report(cmd.Context())
		var names []string
		for _, l := range r.Lanes {
			names = append(names, l.Reader)
		}
		_ = err // nothing is offered then
		return names, cobra.ShellCompDirectiveNoFileComp
	}) // fails only without the flag
}

func (c *choice) parse() (err error) {
	if c.From, err = parseTime("--from", c.from, time.Now()); err != nil {
		return err
	}
	if c.To, err = parseTime("--to", c.to, time.Now()); err != nil {
		return err
	}
	return c.checkFilter()
}

func (c *choice) checkFilter() error {
	if c.filter == "" {
		return nil
	}
	if err := mqtt.CheckFilter(c.filter); err != nil {
		return usageError{fmt.Errorf("--filter %q: %w", c.filter, err)}
	}
	return nil
}

// parseTime takes a moment, or how long ago it was.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	ago, days := text, time.Duration(0)
	if n, rest, ok := strings.Cut(text, "d"); ok {
		if v, err := strconv.Atoi(n); err == nil {
			ago, days = rest, time.Duration(v)*24*time.Hour
		}
	}
	if ago == "" {
		return now.Add(-days), nil
	}
	d, err := time.ParseDuration(ago)
	if err != nil || d < 0 {
		return time.Time{}, usageError{fmt.Errorf("%s %q is no time: write 2026-11-29T08:00:00Z, 2026-11-29 or 2h (ago)", flag, text)}
	}
	return now.Add(-days - d), nil
}

// readers are those that the choice is about.
func (c *choice) readers(ctx context.Context, q admin.Queue) ([]string, error) {
	r, err := q.Report(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range r.Lanes {
		if l.Reader == c.reader || c.reader == "" && l.Kind == "link" {
			names = append(names, l.Reader)
		}
	}
	if c.reader != "" && len(names) == 0 {
		return nil, fmt.Errorf("there is no reader %q: headgate queue status lists them", c.reader)
	}
	return names, nil
}

// each calls fn with the chosen messages of a reader, page by page, until fn
// says stop. It returns the sequence up to which it looked.
func (c *choice) each(ctx context.Context, q admin.Queue, ask admin.Read, fn func(*admin.Queued) (more bool, err error)) (upto uint64, err error) {
	ask.Filter, ask.From, ask.To = c.filter, c.From, c.To
	for {
		page, err := q.Read(ctx, ask)
		if err != nil {
			return 0, err
		}
		for i := range page.Messages {
			if more, err := fn(&page.Messages[i]); err != nil || !more {
				return page.Upto, err
			}
		}
		ask.After, ask.Upto = page.After, page.Upto
		if page.End {
			return page.Upto, nil
		}
	}
}

// sure asks on the terminal, unless yes was given.
func sure(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usageError{fmt.Errorf("%s: there is no terminal to ask on: give --yes", question)}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s? [y/N] ", question)
	answers := make(chan string, 1)
	go func() { // ends with the line, or with the process
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n') // nothing is no
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answers:
		if a == "y" || a == "yes" {
			return nil
		}
	case <-cmd.Context().Done():
	}
	return errors.New("nothing was changed")
}
