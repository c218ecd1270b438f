package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/spf13/cobra"
)

func certRequest(path *string) *cobra.Command {
	var dir, link, commonName, out string
	var names []string
	cmd := &cobra.Command{
		Use:   "csr NAME | --link LINK",
		Short: "Make a key, and ask for a certificate with it",
		Long: `Writes a new key (ECDSA P-256, or for a link of the kind it has) and prints a
certificate signing request for it. Nothing is overwritten. With --link the key
waits beside the link's as KEY.next, and the names are those of its present
certificate; headgate cert import --link puts what comes back in force.`,
		Args: func(_ *cobra.Command, of []string) error {
			if (len(of) == 1) == (link != "") || len(of) > 1 {
				return usageError{errors.New("give NAME, for NAME.key, or --link LINK")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder of the new key")
	cmd.Flags().StringVar(&link, "link", "", "ask for the next certificate of this link")
	cmd.Flags().StringVar(&commonName, "cn", "", "common name (default NAME, or the link's)")
	cmd.Flags().StringSliceVar(&names, "name", nil, "host names and addresses: subject alternative names")
	cmd.Flags().StringVar(&out, "out", "", "new file for the request (default: standard output)")
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		key, req, err := newRequest(*path, link, dir, commonName, append(of, names...))
		if err != nil {
			return err
		}
		if out != "" {
			if err := pki.WritePublic(out, req.PEM()); err != nil {
				return err
			}
		}
		if err := req.WriteKey(key); err != nil {
			if out != "" {
				_ = os.Remove(out) // of no use without the key
			}
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "wrote the key %s\n", key)
		if out == "" {
			_, err = cmd.OutOrStdout().Write(req.PEM())
		}
		return err
	}
	return cmd
}

// newRequest is for of[0].key in dir, with the other names, or for a link.
func newRequest(path, link, dir, commonName string, of []string) (key string, req *pki.Request, err error) {
	if link == "" {
		if commonName == "" {
			commonName = of[0]
		}
		req, err = pki.NewRequest(commonName, of[1:])
		return filepath.Join(dir, of[0]+".key"), req, err
	}
	l, _, err := findLink(path, link)
	if err != nil {
		return "", nil, err
	}
	key = pki.PendingKey(l.Key)
	_, err = os.Stat(l.Certificate)
	if err == nil && commonName == "" && len(of) == 0 {
		req, err = pki.RequestToRenew(l.Certificate)
		return key, req, err
	}
	if commonName == "" {
		commonName = l.ClientID
	}
	req, err = pki.NewRequest(commonName, of)
	return key, req, err
}

func findLink(path, name string) (config.Link, *config.Config, error) {
	cfg, err := loadConfig(path)
	if err != nil {
		return config.Link{}, nil, err
	}
	for _, l := range cfg.Northbound {
		if l.Name == name {
			return l, cfg, nil
		}
	}
	return config.Link{}, nil, usageError{fmt.Errorf("there is no link %q: give a name below northbound", name)}
}

func certImport(path *string) *cobra.Command {
	var link, key, ca string
	cmd := &cobra.Command{
		Use:   "import FILE... --link LINK",
		Short: "Put a certificate that was issued for a link in force",
		Long: `Takes the certificate and its chain from PEM files, in any order, with the key
that headgate cert csr --link left, or --key. They are checked as the link checks
them, and replace the link's files as a whole; those before stay as .old. A
gateway that runs sees it within a second.`,
		Args: args(cobra.MinimumNArgs(1)),
	}
	cmd.Flags().StringVar(&link, "link", "", "the link; required")
	cmd.Flags().StringVar(&key, "key", "", "the certificate's key (default: the link's KEY.next, or its present key)")
	cmd.Flags().StringVar(&ca, "ca", "", "new bundle of CAs of the cloud: replaces the link's ca")
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		if link == "" {
			return usageError{errors.New("give --link: a name below northbound")}
		}
		l, _, err := findLink(*path, link)
		if err != nil {
			return err
		}
		target := gateway.LinkFiles(l)
		if key == "" {
			if key = pki.PendingKey(l.Key); !exists(key) {
				key = l.Key
			}
		}
		if err := pki.Import(target, files, key, ca); err != nil {
			return err
		}
		c, err := pki.Inspect(l.Certificate)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "link %s has the certificate of %s until %s\n", link, c.Subject, c.NotAfter.Format("2006-01-02"))
		return nil
	}
	return cmd
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func certRenew(path *string) *cobra.Command {
	var dir, link string
	cmd := &cobra.Command{
		Use:   "renew NAME | --link LINK",
		Short: "Renew a certificate now, with a new key",
		Long: `NAME is a certificate of the local CA, broker for the broker's own: it is signed
anew with the same names and lifetime. With --link it is done as the link's renew
says. The pair before stays as .old. A gateway that runs sees it within a second.`,
		Args: func(_ *cobra.Command, of []string) error {
			if (len(of) == 1) == (link != "") || len(of) > 1 {
				return usageError{errors.New("give the NAME of a certificate of the local CA, or --link LINK")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the CA (default: as for sub)")
	cmd.Flags().StringVar(&link, "link", "", "renew the certificate of this link")
	cmd.RunE = func(cmd *cobra.Command, of []string) error {
		if link != "" {
			l, cfg, err := findLink(*path, link)
			if err != nil {
				return err
			}
			if l.Renew == nil {
				return fmt.Errorf("link %s does not say how it is renewed: add renew to it, or use headgate cert csr and import", link)
			}
			if err := gateway.Renewer(cfg, l).Once(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s and %s\n", l.Certificate, l.Key)
			return nil
		}
		dir, err := caFolder(dir, *path)
		if err != nil {
			return err
		}
		certificate, key, err := pki.Reissue(dir, of[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s and %s\n", certificate, key)
		return nil
	}
	return cmd
}
