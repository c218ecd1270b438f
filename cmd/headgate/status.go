package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var asJSON, watch, clients bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "One screen: devices, cloud, queue, clients",
		Args:  args(cobra.NoArgs),
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		show := func(ctx context.Context) error {
			if clients {
				return showClients(ctx, cmd.OutOrStdout(), gateway.Socket(cfg), asJSON)
			}
			st, err := admin.GetStatus(ctx, gateway.Socket(cfg))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), st)
			}
			printStatus(cmd.OutOrStdout(), st, time.Now())
			return nil
		}
		if !watch {
			return show(cmd.Context())
		}
		return every(cmd.Context(), time.Second, func(ctx context.Context) error {
			fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
			return show(ctx)
		})
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&clients, "clients", false, "list the local clients instead")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again every second")
	return cmd
}

// every calls fn now and then once an interval, until ctx ends or fn fails.
func every(ctx context.Context, interval time.Duration, fn func(context.Context) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := fn(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func printStatus(w io.Writer, st admin.Status, now time.Time) {
	fmt.Fprintf(w, "gateway  %s   up %s   %s\n", st.Gateway.ID, age(st.Gateway.Started, now), st.Gateway.Version)
	online := 0
	for _, d := range st.Devices {
		if d.State == "online" {
			online++
		}
	}
	fmt.Fprintf(w, "devices  %d online · %d offline\n", online, len(st.Devices)-online)
	for _, d := range st.Devices {
		if d.State != "online" {
			if d.State == "" {
				fmt.Fprintf(w, "           %s   not read yet\n", d.ID)
				continue
			}
			fmt.Fprintf(w, "           %s   offline for %s   %s\n", d.ID, age(d.Since, now), d.Error)
		}
	}
	printPolls(w, st)
	for _, l := range st.Links {
		if l.Connected {
			fmt.Fprintf(w, "cloud    %s   connected for %s   %s   %d waiting · %d delivered · %d dropped · %d set aside\n",
				l.Name, age(l.Since, now), l.Server, l.Waiting, l.Delivered, l.Forbidden+l.Expired, l.Refused)
			printCatchUp(w, l.CatchUp)
		} else {
			fmt.Fprintf(w, "cloud    %s   %s for %s   %d waiting   %s\n", l.Name, red("offline"), age(l.Since, now), l.Waiting, l.Error)
		}
	}
	if len(st.Links) == 0 {
		fmt.Fprintln(w, "cloud    none configured: add a northbound entry to the configuration")
	}
	full := ""
	if st.Queue.Full != "" {
		full = "   " + red("FULL: publishers are refused: "+st.Queue.Full)
	}
	fmt.Fprintf(w, "queue    %s of %s on disk · %s · %d refused · %d lost%s\n",
		size(st.Queue.Bytes), size(st.Queue.MaxBytes), count(st.Queue.Segments, "segment"), st.Queue.Refused, st.Queue.LostMessages(), full)
	for _, l := range st.Queue.Lost {
		fmt.Fprintf(w, "           %s: %d messages of %s readers (%s)\n", red("lost"), l.Count, l.Kind, l.Reason)
	}
	if st.Queue.Corrupt > 0 {
		fmt.Fprintf(w, "           %s: %s put aside; check the disk\n", red("damaged"), count(st.Queue.Corrupt, "file"))
	}
	printClients(w, &st.Clients)
	printCertificates(w, st.Certificates)
}

func printCatchUp(w io.Writer, c *admin.CatchUpStatus) {
	if c == nil {
		return
	}
	eta := "it does not get smaller"
	if c.ETA >= 0 {
		eta = "done in " + (time.Duration(c.ETA) * time.Second).String()
	}
	fmt.Fprintf(w, "           catching up: %d of %d left · %.0f a second · %s\n", c.Left, c.Of, c.PerSecond, eta)
}

// printPolls tells of polls that did not take place, and what would spare some.
func printPolls(w io.Writer, st admin.Status) {
	for _, b := range st.Buses {
		if b.Silent > 0 {
			fmt.Fprintf(w, "           bus %s: %s without an answer\n", b.Name, count(b.Silent, "unit"))
		}
	}
	for _, d := range st.Devices {
		if d.Missed > 0 {
			fmt.Fprintf(w, "           %s   %d of %d polls did not take place in time\n", d.ID, d.Missed, d.Polls+d.Missed)
		}
		if d.Holes != "" {
			fmt.Fprintf(w, "           %s   reads around what it does not have; to spare it the search after each start, add %s\n", d.ID, d.Holes)
		}
	}
}

// printCertificates names the one that ends first, and all that need somebody.
func printCertificates(w io.Writer, all []admin.CertificateStatus) {
	if len(all) == 0 {
		return
	}
	first := slices.MinFunc(all, func(a, b admin.CertificateStatus) int { return a.NotAfter.Compare(b.NotAfter) })
	fmt.Fprintf(w, "certs    %d · the first ends on %s (%s %s)\n", len(all), first.NotAfter.Format(time.DateOnly), first.Use, first.Name)
	for _, c := range all {
		if c.Alarm != "" {
			fmt.Fprintf(w, "           %s: %s %s: %s; %s\n", red(c.Alarm), c.Use, c.Name, c.File, c.Cure)
		}
		if c.Renewal != "" {
			fmt.Fprintf(w, "           %s %s: %s\n", c.Use, c.Name, c.Renewal)
		}
	}
}

func printClients(w io.Writer, c *admin.ClientStatus) {
	fmt.Fprintf(w, "clients  %d connected · %d sessions · %d logins failed · %d denied\n", c.Connected, c.Sessions, c.LoginFailures, c.Denied)
	fmt.Fprintf(w, "retained %d messages · %s · %d refused\n", c.Retained, size(c.RetainedBytes), c.RetainedRefused)
	if c.LockedUsers+c.LockedAddresses > 0 {
		fmt.Fprintf(w, "           %s: %d users, %d addresses\n", red("locked out"), c.LockedUsers, c.LockedAddresses)
	}
	if c.Slow > 0 {
		more := ""
		if c.Slow > len(c.SlowClients) {
			more = ", …"
		}
		fmt.Fprintf(w, "           %s: %d: %s%s\n", red("do not keep up"), c.Slow, strings.Join(c.SlowClients, ", "), more)
	}
}

func showClients(ctx context.Context, w io.Writer, socket string, asJSON bool) error {
	all, err := admin.GetClients(ctx, socket)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, all)
	}
	now := time.Now()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLIENT\tIDENTITY\tFROM\tCONNECTED\tIN\tOUT\tDROPPED\tIN FLIGHT\tWAITING")
	for _, c := range all {
		since := "away"
		if c.Connected {
			since = age(c.Since, now)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", c.ID, c.Identity, c.Remote, since, c.Received, c.Sent, c.Dropped, c.InFlight, c.Waiting)
	}
	return t.Flush()
}

func age(since, now time.Time) string {
	if since.IsZero() {
		return "never"
	}
	d := now.Sub(since).Round(time.Second)
	if d >= 24*time.Hour {
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
	return d.String()
}

func size(n int64) string {
	const kib = 1 << 10
	switch {
	case n >= kib*kib*kib:
		return fmt.Sprintf("%.1f GiB", float64(n)/(kib*kib*kib))
	case n >= kib*kib:
		return fmt.Sprintf("%.1f MiB", float64(n)/(kib*kib))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/kib)
}

// red marks what needs a look, on a terminal that wants colour.
func red(s string) string {
	fi, err := os.Stdout.Stat()
	if err != nil || fi.Mode()&os.ModeCharDevice == 0 || os.Getenv("NO_COLOR") != "" {
		return s
	}
	return "\x1b[31m" + s + "\x1b[0m"
}
