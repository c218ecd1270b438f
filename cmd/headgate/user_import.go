package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/headgate-io/headgate/gateway/access"
	"github.com/spf13/cobra"
)

func userImport(path *string) *cobra.Command {
	var file string
	var roles []string
	cmd := &cobra.Command{
		Use:   "import --mosquitto FILE",
		Short: "Take over the users of a mosquitto password_file",
		Long: `Takes over users with their passwords, as mosquitto 2 keeps them ($7$). At its next
login each is hashed anew, as passwords are here. Users that are there already
stay as they are. Lines that cannot be taken over are told, one by one; then
the exit code is 1.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&file, "mosquitto", "", "mosquitto's password_file")
	rolesFlag(cmd, &roles)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			return usageError{errors.New("name the password_file with --mosquitto FILE")}
		}
		users, err := openUsers(*path)
		if err != nil {
			return err
		}
		f, err := openFile(file)
		if err != nil {
			return err
		}
		defer f.Close()
		list, refused := access.ReadMosquittoUsers(f)
		added, err := users.Import(list, roles)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "added %d users, %d were there, %d lines refused\n", len(added), len(list)-len(added), len(refused))
		tellRefused(cmd.ErrOrStderr(), file, refused)
		if len(refused) > 0 {
			return fmt.Errorf("%d lines of %s were not taken over: do as each says", len(refused), file)
		}
		return warnOfNobody(cmd, *path, roles, added...)
	}
	return cmd
}

func tellRefused(w io.Writer, file string, refused []access.LineError) {
	for _, r := range refused {
		fmt.Fprintf(w, "%s:%d: %v\n", file, r.Line, r.Err)
	}
}
