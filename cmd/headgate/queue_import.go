package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/export"
	"github.com/spf13/cobra"
)

// An importer brings one file into a queue.
type importer struct {
	file *os.File
	key  export.Key

	again, skip bool
	topics      map[string]bool
	head        export.Header
	count       uint64
	skipped     uint64
}

// Imported is what import --json prints. Its names are stable.
type imported struct {
	File    string `json:"file"`
	ID      string `json:"id"`
	Gateway string `json:"gateway"` // that exported it
	Count   uint64 `json:"count"`   // in the file
	Resumed uint64 `json:"resumed"` // of those, in the queue from an earlier try
	Skipped uint64 `json:"skipped"` // of the others, left out because they would not leave
	Checked bool   `json:"check_only"`
}

func queueImport(path *string) *cobra.Command {
	var x importer
	var identity string
	var passphrase, check, asJSON bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in a file that another gateway exported, and deliver it from here",
		Long: `Reads the whole file first: one that is damaged, cut short or altered is refused
before anything is taken in. Its messages leave through this gateway's routes and
rules, under the identity (hg-id) that they got at the other one. A file that was
imported before is refused. After a crash on the way, import it again: it goes on
where it stopped, with at most a few repeats, removable by hg-id.`,
		Args: args(cobra.ExactArgs(1)),
	}
	jsonFlag(cmd, &asJSON)
	f := cmd.Flags()
	f.StringVar(&identity, "identity", "", "file with the age secret key that opens an encrypted one")
	f.BoolVar(&passphrase, "passphrase-stdin", false, "read the passphrase of an encrypted one from standard input, one line")
	f.BoolVar(&check, "check", false, "only read the file, and say what is in it and what would not leave")
	f.BoolVar(&x.again, "again", false, "also if it was imported before: everything in it is a repeat")
	f.BoolVar(&x.skip, "skip-blocked", false, "leave out messages that no route or rule lets leave")
	cmd.MarkFlagsMutuallyExclusive("identity", "passphrase-stdin")
	cmd.RunE = func(cmd *cobra.Command, names []string) (err error) {
		if err := readPassphrase(cmd, passphrase, &x.key.Passphrase); err != nil {
			return err
		}
		if err := x.openFile(names[0], identity); err != nil {
			return err
		}
		defer x.file.Close()
		if err := x.verify(cmd.Context()); err != nil {
			return fmt.Errorf("%s: %w; nothing was imported", names[0], err)
		}
		done := imported{File: names[0], ID: x.head.ID, Gateway: x.head.Gateway, Count: x.count, Checked: check}
		err = withQueue(cmd, *path, false, func(ctx context.Context, q admin.Queue) error {
			st, err := x.plan(ctx, q, cmd.ErrOrStderr(), check)
			done.Resumed = st.Done
			if err != nil || check {
				return err
			}
			err = x.bring(ctx, q, st.Done)
			done.Skipped = x.skipped
			return err
		})
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), done)
		}
		x.print(cmd.OutOrStdout(), done)
		return nil
	}
	return cmd
}

// openFile opens the file, and reads the key to it if there is one.
func (x *importer) openFile(name, identity string) (err error) {
	if identity != "" {
		text, err := os.ReadFile(identity)
		if err != nil {
			return err
		}
		x.key.Identities = string(text)
	}
	x.file, err = openRegular(name)
	return err
}

func (x *importer) print(w io.Writer, done imported) {
	verb := "imported"
	if done.Checked {
		verb = "whole, nothing was imported:"
	}
	fmt.Fprintf(w, "%s %s of gateway %s, exported %s", verb, count(int(done.Count-done.Skipped), "message"), plain(done.Gateway), x.head.Created.Local().Format(time.RFC3339))
	if done.Skipped > 0 {
		fmt.Fprintf(w, "; left out %s", count(int(done.Skipped), "message"))
	}
	fmt.Fprintln(w)
}

// openRegular does not wait for the writer of a FIFO.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file: it is read twice, so copy what it holds into one", path))
	}
	return f, nil
}

// open reads the header from the start.
func (x *importer) open() (*export.Reader, error) {
	if _, err := x.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	clear, err := x.key.Unwrap(x.file)
	if err != nil {
		return nil, err
	}
	return export.NewReader(clear)
}

// maxTopics is how many topics are asked about before anything is imported.
const maxTopics = 100_000

// verify reads the file to its end.
func (x *importer) verify(ctx context.Context) error {
	r, err := x.open()
	if err != nil {
		return err
	}
	x.head, x.topics = r.Header, map[string]bool{}
	for ctx.Err() == nil {
		m, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			x.count = r.Count
			return nil
		}
		if err != nil {
			return err
		}
		if len(x.topics) < maxTopics {
			x.topics[m.Topic] = true
		}
	}
	return ctx.Err()
}

// plan refuses a file that was imported before, or of which something would not leave.
func (x *importer) plan(ctx context.Context, q admin.Queue, out io.Writer, check bool) (admin.Imported, error) {
	st, err := q.Plan(ctx, admin.Import{
		ID: x.head.ID, Gateway: x.head.Gateway, Count: x.count, Topics: slices.Sorted(maps.Keys(x.topics)), Again: x.again && !check, Look: check,
	})
	if err != nil {
		return st, err
	}
	const shown = 10
	for i, topic := range slices.Sorted(maps.Keys(st.Blocked)) {
		if i == shown {
			fmt.Fprintf(out, "warning: and %d more topics\n", len(st.Blocked)-shown)
			break
		}
		fmt.Fprintf(out, "warning: %s would not leave: %s\n", plain(topic), st.Blocked[topic])
	}
	switch {
	case check:
		return st, nil
	case !st.Finished.IsZero():
		return st, fmt.Errorf("this file was imported on %s: everything in it would be a repeat; give --again to import it all the same", st.Finished.Local().Format(time.RFC3339))
	case len(st.Blocked) > 0 && !x.skip:
		return st, errors.New("some messages would not leave: mend routes and rules (headgate reload), or give --skip-blocked to import the others; nothing was imported")
	}
	return st, nil
}

// Bounds of what is sent to the queue at once.
const (
	batchRecords = 256
	batchBytes   = 1 << 20
)

// bring imports all but the first done messages.
func (x *importer) bring(ctx context.Context, q admin.Queue, done uint64) error {
	r, err := x.open()
	if err != nil {
		return err
	}
	if r.Header.ID != x.head.ID {
		return errors.New("the file changed while it was read: import it again")
	}
	batch, size := admin.Batch{ID: x.head.ID, At: done, Skip: x.skip}, 0
	for {
		_, record, err := r.Next()
		batch.Last = errors.Is(err, io.EOF)
		if err != nil && !batch.Last {
			return fmt.Errorf("%w; %d of %d messages are in: import the file again when it can be read, and it goes on there", err, batch.At, x.count)
		}
		if !batch.Last && r.Count > done {
			batch.Records = append(batch.Records, record)
			size += len(record)
		}
		if !batch.Last && len(batch.Records) < batchRecords && size < batchBytes {
			continue
		}
		st, err := q.Add(ctx, batch)
		x.skipped += st.Skipped
		if err != nil || batch.Last {
			return err
		}
		batch.At, batch.Records, size = st.Done, batch.Records[:0], 0
	}
}
