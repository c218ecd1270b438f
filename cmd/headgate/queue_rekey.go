package main

import (
	"fmt"

	"github.com/headgate-io/headgate/gateway"
	"github.com/spf13/cobra"
)

func queueRekey(path *string) *cobra.Command {
	var held, file string
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Give an encrypted queue a new key",
		Long: `Gives the encrypted queue of a gateway that is stopped a new master key, and a
new key for all that is stored from then on. What waits in the queue stays
readable. The old master key opens nothing any more, but for copies of the
folder that somebody made before. A crash at any moment does no harm: start the
gateway, or call it again.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&held, "key-file", "", "the key that systemd hands over as a credential; needed where it does not, in a shell for one")
	cmd.Flags().StringVar(&file, "new-key-file", "", "read the new key from this file instead of making one; for keys in systemd credentials")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		installed, err := gateway.Rekey(cfg, held, file)
		if err != nil {
			return err
		}
		if !installed {
			fmt.Fprintf(cmd.OutOrStdout(), "both keys open the queue: put %s where LoadCredential= takes the key from, and start the gateway; then the old one opens nothing any more\n", file)
			return nil
		}
		fmt.Fprintln(cmd.OutOrStdout(), "the queue has a new key")
		return nil
	}
	return cmd
}
