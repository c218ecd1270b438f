package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/spf13/cobra"
)

func certCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "Certificates of the local CA"}
	path := configFlag(cmd)
	cmd.AddCommand(certIssue(path), certShow())
	return cmd
}

func certIssue(path *string) *cobra.Command {
	var dir string
	var server bool
	var names []string
	cmd := &cobra.Command{
		Use:   "issue NAME",
		Short: "Sign a new key for a client, whose identity is NAME, or for a server",
		Args:  args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the CA, where the certificate goes too (default: as for sub)")
	cmd.Flags().BoolVar(&server, "server", false, "a certificate for a server")
	cmd.Flags().StringSliceVar(&names, "name", nil, "host names and addresses of the server")
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		if dir == "" {
			ca := findCA(*path)
			if ca == "" {
				return usageError{errors.New("no local CA is found: give its folder with --dir")}
			}
			dir = filepath.Dir(ca)
		}
		kind := pki.ForClient
		if server {
			kind = pki.ForServer
		}
		certificate, key, err := pki.Issue(dir, of[0], kind, pki.Options{Names: names})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s and %s\n", certificate, key)
		return nil
	}
	return cmd
}

func certShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Tell what a certificate says",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			c, err := pki.Inspect(files[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), c)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "subject      %s\nissuer       %s\nnames        %s\nuse          %s\nkey          %s\nvalid        %s to %s\nfingerprint  %s\n",
				c.Subject, c.Issuer, strings.Join(c.Names, ", "), strings.Join(c.Use, ", "), c.Key,
				c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), c.Fingerprint)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
