package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/headgate-io/headgate/gateway/demo"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func demoCommand() *cobra.Command {
	var howLong time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: no hardware, no cloud account, no configuration",
		Long: `Starts a simulated Modbus device, the gateway, and a stand-in cloud broker with
mutual TLS in a temporary folder, and removes it at the end. Keys: c cuts the
link, c again mends it, q ends. Without a terminal, or with --for, the link is
cut and mended by itself. Exits with 0 only if nothing was lost.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().DurationVar(&howLong, "for", 0, "end after this time")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if howLong < 0 {
			return usageError{errors.New("--for is a time to come, 20s for example")}
		}
		opt := demo.Options{Out: cmd.ErrOrStderr(), For: howLong, Version: version}
		if fd := int(os.Stdin.Fd()); howLong == 0 && term.IsTerminal(fd) {
			state, err := term.MakeRaw(fd)
			if err != nil {
				return err
			}
			defer term.Restore(fd, state)
			opt.Keys, opt.Width = keys(cmd.Context()), 80
			if width, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && width > 0 {
				opt.Width = width
			}
			fmt.Fprint(opt.Out, "c cuts the link and mends it, q ends\r\n")
		}
		sum, err := demo.Run(cmd.Context(), opt)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		return report(cmd, sum, asJSON, opt.Width > 0)
	}
	return cmd
}

// keys reads single keys until the process ends: a read of a terminal cannot
// be called off.
func keys(ctx context.Context) <-chan byte {
	ch := make(chan byte)
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := os.Stdin.Read(b); err != nil {
				return
			}
			select {
			case ch <- b[0]:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch
}

func report(cmd *cobra.Command, sum demo.Summary, asJSON, raw bool) error {
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), sum); err != nil {
			return err
		}
	} else {
		end := "\n"
		if raw {
			end = "\r\n"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "sent %d · stored %d · delivered %d · lost %d · duplicated %d · first reading after %.1f s%s",
			sum.Sent, sum.Stored, sum.Delivered, sum.Lost, sum.Duplicated, sum.First, end)
	}
	switch {
	case sum.Lost > 0:
		return errors.New("messages were lost: please report this")
	case sum.Delivered == 0:
		return errors.New("nothing arrived in the cloud: please report this")
	}
	return nil
}
