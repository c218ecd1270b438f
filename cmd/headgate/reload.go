package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/spf13/cobra"
)

func reloadCommand() *cobra.Command {
	var asJSON, dry bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the running gateway take over a changed configuration",
		Long: `Reads the configuration again, shows what changes, and takes over what it can
without dropping anybody: rules, roles, lockout and limits. The rest is listed
and waits for a restart. A configuration with any problem is refused as a whole:
exit code 78, and the old one stays in force. Certificates and users need no
reload: their files are looked at all the time.`,
		Args: args(cobra.NoArgs),
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path) // says where the gateway answers, and saves asking it about what is wrong
		if err != nil {
			return err
		}
		r, err := admin.AskReload(cmd.Context(), gateway.Socket(cfg), dry)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), r)
		}
		for _, w := range r.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
		}
		printReload(cmd.OutOrStdout(), r)
		if asked, err := filepath.Abs(configPath(*path)); err == nil && asked != r.File {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: the gateway runs with %s, not with %s\n", r.File, asked)
		}
		return nil
	}
	return cmd
}

func printReload(w io.Writer, r admin.Reload) {
	did, wait := "in force now", "not in force: restart the gateway for them"
	if r.DryRun {
		did, wait = "would be in force", "would take a restart of the gateway"
	}
	if len(r.Applied)+len(r.Restart) == 0 {
		fmt.Fprintln(w, "nothing has changed")
	}
	for _, part := range []struct {
		changes []admin.Change
		what    string
	}{{r.Applied, did}, {r.Restart, wait}} {
		if len(part.changes) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s:\n", part.what)
		for _, c := range part.changes {
			fmt.Fprintf(w, "  %v\n", c)
		}
	}
}
