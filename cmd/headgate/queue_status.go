package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func queueStatus(path *string) *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What waits, for whom, since when, and until when",
		Long: `Rates are those of the last second, with --watch of the last ten. On a terminal
--watch redraws once a second until q; elsewhere it prints a line a second. It
wants a running gateway: in the folder of a stopped one nothing moves, and who
looks on would keep it from starting.`,
		Args: args(cobra.NoArgs),
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&watch, "watch", false, "look on, with a progress bar")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withQueue(cmd, *path, watch, func(ctx context.Context, q admin.Queue) error {
			w := &watcher{q: q, out: cmd.OutOrStdout(), json: asJSON, most: map[string]uint64{}}
			if watch {
				return w.watch(ctx)
			}
			if _, err := w.look(ctx); err != nil {
				return err
			}
			if w.last().Source == "gateway" { // rates take two looks
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			r, err := w.look(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(w.out, r)
			}
			printQueue(w.out, r, time.Now(), nil)
			return nil
		})
	}
	return cmd
}

// A watcher looks again and again, and knows what it saw in the last ten seconds.
type watcher struct {
	q    admin.Queue
	out  io.Writer
	json bool
	seen []admin.QueueReport
	at   []time.Time
	most map[string]uint64 // that waited for each reader
}

const watched = 10 // reports

func (w *watcher) last() *admin.QueueReport { return &w.seen[len(w.seen)-1] }

func (w *watcher) look(ctx context.Context) (*admin.QueueReport, error) {
	r, err := w.q.Report(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if len(w.seen) > 0 {
		r.Rates(&w.seen[0], now.Sub(w.at[0]))
	} else {
		r.Rates(&r, 0)
	}
	if len(w.seen) == watched {
		w.seen, w.at = w.seen[1:], w.at[1:]
	}
	w.seen, w.at = append(w.seen, r), append(w.at, now)
	for _, l := range r.Lanes {
		if l.Waiting == 0 || l.Waiting > w.most[l.Reader] {
			w.most[l.Reader] = l.Waiting
		}
	}
	return w.last(), nil
}

// watch shows a report a second until ctx ends or q is pressed.
func (w *watcher) watch(ctx context.Context) error {
	fd := int(os.Stdin.Fd())
	screen := !w.json && term.IsTerminal(int(os.Stdout.Fd()))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if screen && term.IsTerminal(fd) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer term.Restore(fd, state)
		pressed := keys(ctx)
		go func() { // ends with q, Ctrl-C, or ctx
			for {
				select {
				case k := <-pressed:
					if k == 'q' || k == 3 {
						cancel()
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	err := every(ctx, time.Second, func(ctx context.Context) error {
		r, err := w.look(ctx)
		if err != nil {
			return err
		}
		switch {
		case w.json:
			return printJSON(w.out, r)
		case !screen:
			_, err = fmt.Fprintln(w.out, queueLine(r))
			return err
		}
		var text strings.Builder
		printQueue(&text, r, time.Now(), w.most)
		text.WriteString("\nq ends\n")
		_, err = fmt.Fprint(w.out, "\x1b[H\x1b[2J"+strings.ReplaceAll(text.String(), "\n", "\r\n"))
		return err
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// queueLine is a report in one line: the links together.
func queueLine(r *admin.QueueReport) string {
	var waiting, out, bytes uint64
	var in, rate float64
	for _, l := range r.Lanes {
		if l.Kind == "link" {
			waiting, out, bytes = waiting+l.Waiting, out+l.Out, bytes+l.Bytes
			in, rate = in+l.InRate, rate+l.OutRate
		}
	}
	return fmt.Sprintf("%s %d waiting · %s · %.1f/s in · %.1f/s out · %s of %s on disk",
		time.Now().Format(time.RFC3339), waiting, size(int64(bytes)), in, rate, size(r.Bytes), size(r.MaxBytes))
}

// printQueue shows a report; with most, how much of the most that ever waited is gone.
func printQueue(w io.Writer, r *admin.QueueReport, now time.Time, most map[string]uint64) {
	source := "running"
	if r.Source == "folder" {
		source = "stopped"
	}
	fmt.Fprintf(w, "queue    %s   %s   %s of %s on disk · %s", plain(r.Gateway), source, size(r.Bytes), size(r.MaxBytes), count(r.Segments, "segment"))
	if r.WritePerByte > 0 {
		fmt.Fprintf(w, " · %.1f bytes written per payload byte", r.WritePerByte)
	}
	fmt.Fprintln(w)
	if r.Corrupt > 0 {
		fmt.Fprintf(w, "           %s: %s set aside in %s: look at the disk, run headgate queue verify\n", red("DAMAGED"), count(r.Corrupt, "file"), r.Folder)
	}
	if r.Full != "" {
		fmt.Fprintf(w, "           %s: publishers are refused: %s\n", red("FULL"), r.Full)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "READER\tWAITING\tBYTES\tOLDEST\tIN/S\tOUT/S\tDONE IN\tLOST")
	for _, l := range r.Lanes {
		oldest := "-"
		if !l.Oldest.IsZero() {
			oldest = age(l.Oldest, now)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%.1f\t%.1f\t%s\t%s\n", plain(l.Reader), l.Waiting, size(int64(l.Bytes)), oldest, l.InRate, l.OutRate, eta(l), lostText(l.Lost))
	}
	t.Flush()
	for _, l := range r.Lanes {
		if top := most[l.Reader]; top > 0 && l.Kind == "link" {
			fmt.Fprintf(w, "%s %s\n", bar(float64(top-l.Waiting)/float64(top)), plain(l.Reader))
		}
	}
}

func eta(l admin.Lane) string {
	switch {
	case l.Waiting == 0:
		return "-"
	case l.ETA < 0:
		return "not draining"
	}
	return (time.Duration(l.ETA) * time.Second).String()
}

func lostText(lost map[string]uint64) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(lost)) {
		parts = append(parts, fmt.Sprintf("%d %s", lost[why], why))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// bar shows how much is done, from 0 to 1.
func bar(done float64) string {
	const width = 30
	n := int(done * width)
	return fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("#", n), strings.Repeat("-", width-n), done*100)
}

// plain makes text from messages safe to show: no control characters, nothing
// that a terminal takes for more than text.
func plain(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff {
			fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
