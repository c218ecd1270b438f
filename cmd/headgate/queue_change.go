package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/spf13/cobra"
)

func queueDrain(path *string) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Wait until nothing waits for the links: exit 0, or 1 if it takes too long",
		Args:  args(cobra.NoArgs),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after that long (default: never)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withQueue(cmd, *path, true, func(ctx context.Context, q admin.Queue) error {
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			w := &watcher{q: q, out: cmd.OutOrStdout(), most: map[string]uint64{}}
			waiting, drained := uint64(0), errors.New("drained")
			err := every(ctx, time.Second, func(ctx context.Context) error {
				r, err := w.look(ctx)
				if err != nil {
					return err
				}
				waiting = 0
				for _, l := range r.Lanes {
					if l.Kind == "link" {
						waiting += l.Waiting
					}
				}
				fmt.Fprintln(w.out, queueLine(r))
				if waiting == 0 {
					return drained
				}
				return nil
			})
			switch {
			case errors.Is(err, drained):
				return nil
			case err != nil && ctx.Err() == nil:
				return err
			}
			return fmt.Errorf("%d messages still wait: headgate status says whether the links are up", waiting)
		})
	}
	return cmd
}

func queueVerify(path *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read everything on disk: exit 0, or 1 if anything is damaged",
		Args:  args(cobra.NoArgs),
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withQueue(cmd, *path, false, func(ctx context.Context, q admin.Queue) error {
			report := struct {
				Records  uint64           `json:"records"`
				Damaged  int              `json:"damaged"` // segments
				Corrupt  int              `json:"corrupt"` // files set aside before
				Segments []admin.Verified `json:"segments"`
			}{Segments: []admin.Verified{}}
			st, err := q.Report(ctx)
			if err != nil {
				return err
			}
			report.Corrupt = st.Corrupt
			for from, first := uint64(0), true; first || from > 0; first = false {
				v, err := q.Verify(ctx, from)
				if err != nil {
					return err
				}
				if from = v.Next; v.Segment == "" {
					break
				}
				report.Segments = append(report.Segments, v)
				report.Records += v.Records
				if v.Damaged != "" {
					report.Damaged++
				}
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				for _, v := range report.Segments {
					if v.Damaged != "" {
						fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %s\n", red("damaged"), v.Segment, plain(v.Damaged))
					}
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d messages in %s read, %d damaged, %d files set aside before\n",
					report.Records, count(len(report.Segments), "segment"), report.Damaged, report.Corrupt)
			}
			if err == nil && report.Damaged+report.Corrupt > 0 {
				return errors.New("the queue has damage: look at the disk; what cannot be read is announced on hg/" + st.Gateway + "/lost, the rest is delivered")
			}
			return err
		})
	}
	return cmd
}

func queueDrop(path *string) *cobra.Command {
	var c choice
	var before string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "drop --reader R",
		Short: "Take messages out of the queue for good, counted and announced as lost",
		Long: `What is being sent at that moment may still arrive. The others keep their order
and their identity. The loss is announced on hg/{gateway}/lost with the reason
"dropped".`,
		Args: args(cobra.NoArgs),
	}
	f := cmd.Flags()
	f.StringVar(&c.reader, "reader", "", "what waits for this reader; headgate queue status lists them")
	f.StringVar(&c.filter, "filter", "", "on topics that this filter takes (default: all)")
	f.StringVar(&before, "before", "", "accepted before: 2026-11-29T08:00:00Z, 2026-11-29, or 2h for two hours ago")
	f.BoolVar(&yes, "yes", false, "do not ask")
	jsonFlag(cmd, &asJSON)
	completeReaders(cmd, path)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.reader == "" {
			return usageError{errors.New("say whose messages: --reader R; headgate queue status lists readers")}
		}
		if c.To, err = parseTime("--before", before, time.Now()); err == nil {
			err = c.checkFilter()
		}
		if err != nil {
			return err
		}
		return withQueue(cmd, *path, false, func(ctx context.Context, q admin.Queue) error {
			ask := admin.Remove{Reader: c.reader, Filter: c.filter, To: c.To, Count: true}
			would, err := q.Remove(ctx, ask)
			if err != nil {
				return err
			}
			if would.Count > 0 {
				if err := sure(cmd, yes, fmt.Sprintf("drop %s that wait for %s", count(int(would.Count), "message"), c.reader)); err != nil {
					return err
				}
				ask.Count, ask.Upto = false, would.Upto
				if would, err = q.Remove(ctx, ask); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), would)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "dropped %s of %s\n", count(int(would.Count), "message"), would.Reader)
			return nil
		})
	}
	return cmd
}

func queueRequeue(path *string) *cobra.Command {
	var link string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "requeue",
		Short: "Try again now what the cloud refused and was set aside",
		Args:  args(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&link, "link", "", "of this link (default: of all)")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withQueue(cmd, *path, false, func(ctx context.Context, q admin.Queue) error {
			done, err := q.Requeue(ctx, link)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), done)
			}
			for name, n := range done.Links {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s tried again\n", name, count(n, "message"))
			}
			return nil
		})
	}
	return cmd
}
