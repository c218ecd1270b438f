package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/headgate-io/headgate/gateway/export"
	"github.com/spf13/cobra"
)

// Exported is what export --json prints. Its names are stable.
type exported struct {
	File    string `json:"file"`
	Count   uint64 `json:"count"`
	Removed uint64 `json:"removed"`
}

func queueExport(path *string) *cobra.Command {
	var c choice
	var lock export.Lock
	var remove, passphrase, asJSON bool
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "Write what waits to a file, to be delivered from another gateway",
		Long: `Writes messages with their identity (hg-id) to a new file that is checked as a
whole when it is imported. With --remove they leave the queue once the file is on
disk, and count as exported, not as lost; after a crash in between they are in
both, and whoever drops repeats by hg-id sees each once. What is being sent at
that moment may arrive as well.`,
		Example: `  headgate queue export /media/stick/backlog.hgq --remove --recipient age1…
  headgate queue import /media/stick/backlog.hgq --identity key.txt`,
		Args: args(cobra.ExactArgs(1)),
	}
	c.flags(cmd, path)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&remove, "remove", false, "take the messages out of the queue when the file is on disk")
	cmd.Flags().StringVar(&lock.Recipient, "recipient", "", "encrypt for this age public key, age1…")
	cmd.Flags().BoolVar(&passphrase, "passphrase-stdin", false, "encrypt with the passphrase on standard input, one line")
	cmd.MarkFlagsMutuallyExclusive("recipient", "passphrase-stdin")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if err := c.parse(); err != nil {
			return err
		}
		if err := readPassphrase(cmd, passphrase, &lock.Passphrase); err != nil {
			return err
		}
		f, err := newExport(names[0]) // before rights are given up to work on a folder
		if err != nil {
			return err
		}
		var done exported
		err = withQueue(cmd, *path, false, func(ctx context.Context, q admin.Queue) error {
			done, err = c.export(ctx, q, f, lock, remove)
			return err
		})
		if err := errors.Join(err, f.end()); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), done)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s to %s", count(int(done.Count), "message"), names[0])
		if remove {
			fmt.Fprintf(cmd.OutOrStdout(), ", took %d out of the queue", done.Removed)
		}
		fmt.Fprintln(cmd.OutOrStdout())
		return nil
	}
	return cmd
}

// readPassphrase reads a line of standard input if it is wanted.
func readPassphrase(cmd *cobra.Command, wanted bool, to *string) error {
	if !wanted {
		return nil
	}
	line, err := readPassword(cmd, true)
	if err == nil && len(line) == 0 {
		err = usageError{errors.New("the passphrase on standard input is empty")}
	}
	*to = string(line)
	return err
}

// export writes the chosen messages, and takes them out only when the file is on disk.
func (c *choice) export(ctx context.Context, q admin.Queue, f *exportFile, lock export.Lock, remove bool) (exported, error) {
	done := exported{File: f.Name()}
	names, err := c.readers(ctx, q)
	if err != nil {
		return done, err
	}
	st, err := q.Report(ctx)
	if err != nil {
		return done, err
	}
	locked, err := lock.Wrap(f)
	if err != nil {
		return done, usageError{err}
	}
	w, err := export.NewWriter(locked, export.Header{
		Gateway: st.Gateway, Epoch: st.Epoch, Readers: names, Filter: c.filter, From: c.From, To: c.To, Created: time.Now().UTC(),
	})
	if err != nil {
		return done, err
	}
	upto := map[string]uint64{}
	for _, name := range names {
		upto[name], err = c.each(ctx, q, admin.Read{Reader: name, Record: true}, func(m *admin.Queued) (bool, error) {
			done.Count++
			return true, w.Add(m.Record)
		})
		if err != nil {
			return done, err
		}
	}
	if err := errors.Join(w.Close(), locked.Close()); err != nil {
		return done, err
	}
	if err := f.keep(); err != nil {
		return done, err
	}
	for _, name := range names {
		if !remove {
			break
		}
		r, err := q.Remove(ctx, admin.Remove{Reader: name, Filter: c.filter, From: c.From, To: c.To, Upto: upto[name], Exported: filepath.Base(f.Name())})
		if err != nil {
			return done, fmt.Errorf("%w; %s is whole, and its messages are in the queue too: import it, or delete it and export again", err, f.Name())
		}
		done.Removed += r.Count
	}
	return done, nil
}

// An exportFile is new, and empty again unless it is kept.
type exportFile struct {
	*os.File
	dir  *os.File
	kept bool
}

func newExport(path string) (*exportFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s is there already and export never overwrites: choose another name", path)
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &exportFile{f, dir, false}, nil
}

// keep has the file on disk when it returns nil.
func (f *exportFile) keep() error {
	if err := errors.Join(f.Sync(), f.dir.Sync()); err != nil {
		return fmt.Errorf("the file is not on disk, and nothing was taken out: %w", err)
	}
	f.kept = true
	return nil
}

// end leaves nothing half done behind.
func (f *exportFile) end() error {
	if !f.kept {
		f.Truncate(0)       // in case it cannot be removed: rights may be gone
		os.Remove(f.Name()) // nobody takes an empty one for an export
	}
	return errors.Join(f.Close(), f.dir.Close())
}
