package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/spf13/cobra"
)

func certCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "Certificates: of the local CA, and of links"}
	path := configFlag(cmd)
	cmd.AddCommand(certIssue(path), certRevoke(path), certShow(), certRequest(path), certImport(path), certRenew(path))
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
		dir, err := caFolder(dir, *path)
		if err != nil {
			return err
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

// caFolder is dir, or where the local CA is found.
func caFolder(dir, config string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	ca := findCA(config)
	if ca == "" {
		return "", usageError{errors.New("no local CA is found: give its folder with --dir")}
	}
	return filepath.Dir(ca), nil
}

func certRevoke(path *string) *cobra.Command {
	var dir, identity string
	cmd := &cobra.Command{
		Use:   "revoke SERIAL|FILE... or --identity NAME",
		Short: "Refuse a client's certificate from now on",
		Long: `Puts certificates of the local CA on its list, ca.crl beside it. A gateway whose
listeners name that list as client_crl cuts their sessions within a second. It
cannot be taken back: issue a new certificate instead.`,
		Args: func(cmd *cobra.Command, of []string) error {
			if (len(of) == 0) == (identity == "") {
				return usageError{errors.New("give serial numbers or certificate files, or --identity NAME")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the CA (default: as for sub)")
	cmd.Flags().StringVar(&identity, "identity", "", "revoke all certificates of a client")
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		dir, err := caFolder(dir, *path)
		if err != nil {
			return err
		}
		serials, err := serialsToRevoke(cmd, dir, identity, of)
		if err != nil {
			return err
		}
		added, err := pki.Revoke(dir, serials)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		for _, s := range added {
			fmt.Fprintf(out, "revoked %s\n", s)
		}
		if len(added) == 0 {
			fmt.Fprintln(out, "nothing changed: revoked before")
		}
		warnOfUnusedList(cmd, *path, filepath.Join(dir, pki.RevocationList))
		return nil
	}
	return cmd
}

func serialsToRevoke(cmd *cobra.Command, dir, identity string, of []string) ([]string, error) {
	if identity != "" {
		return pki.SerialsOf(dir, identity)
	}
	var serials []string
	for _, s := range of {
		if _, err := os.Stat(s); err == nil {
			if s, err = pki.SerialOf(dir, s); err != nil {
				return nil, err
			}
		} else if known, err := pki.OnRecord(dir, s); err != nil {
			return nil, err
		} else if !known {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s is not on record as issued by the local CA in %s: compare it with headgate cert show FILE, a mistyped number revokes nobody\n", s, dir)
		}
		serials = append(serials, s)
	}
	return serials, nil
}

// warnOfUnusedList says aloud that a listener does not look at the list.
func warnOfUnusedList(cmd *cobra.Command, path, list string) {
	cfg, err := loadConfig(path)
	if err == nil {
		list, err = filepath.Abs(list)
	}
	if err != nil {
		return // the list may be for another gateway
	}
	for _, l := range cfg.Broker.Listeners {
		if l.ClientCertificate != config.Off && l.ClientCRL != list {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: listener %s does not look at that list: add client_crl: %s to it\n", l.Address, list)
		}
	}
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
			fmt.Fprintf(cmd.OutOrStdout(), "subject      %s\nserial       %s\nissuer       %s\nnames        %s\nuse          %s\nkey          %s\nvalid        %s to %s\nfingerprint  %s\nkey digest   %s\n",
				c.Subject, c.Serial, c.Issuer, strings.Join(c.Names, ", "), strings.Join(c.Use, ", "), c.Key,
				c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), c.Fingerprint, c.KeyDigest)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
