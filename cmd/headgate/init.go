package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/spf13/cobra"
)

func initCommand() *cobra.Command {
	var dir, id, data string
	var names []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration that is safe as it stands, with a CA and certificates of its own",
		Long: `Makes a local CA, a certificate for the broker, and headgate.yaml: TLS on
127.0.0.1:8883, no accounts, and nothing allowed that no rule allows. It never
overwrites.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "folder to write to")
	cmd.Flags().StringVar(&id, "id", "", "gateway id, [A-Za-z0-9._-]{1,64} (default: the host's name)")
	cmd.Flags().StringVar(&data, "data", "data", "data folder, relative to --dir")
	cmd.Flags().StringSliceVar(&names, "name", nil, "host names and addresses of the broker besides localhost (repeat, or separate by commas)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if id == "" {
			id = hostID()
		}
		if err := config.CheckID(id); err != nil {
			return usageError{fmt.Errorf("--id %w", err)}
		}
		file := filepath.Join(dir, "headgate.yaml")
		if err := initialise(dir, file, id, data, names); err != nil {
			return err
		}
		ca, err := pki.Inspect(filepath.Join(dir, "pki", pki.CACertificate))
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), `wrote %[1]s and %[2]s
CA fingerprint (SHA-256) %[3]s

next:
  headgate user add NAME --role operator --config %[1]s
  headgate run --config %[1]s
  mosquitto_sub --cafile %[2]s -h localhost -p 8883 -u NAME -P PASSWORD -t 'hg/#' -v
`, file, filepath.Join(dir, "pki", pki.CACertificate), ca.Fingerprint)
		return nil
	}
	return cmd
}

// hostID is the host's name without its domain.
func hostID() string {
	host, err := os.Hostname()
	if err != nil {
		return "gateway"
	}
	name, _, _ := strings.Cut(host, ".")
	return name
}

// initialise makes everything or says why not; the configuration comes last,
// so that what is there is whole.
func initialise(dir, file, id, data string, names []string) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already and init never overwrites: choose another --dir, or move it away", file)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := config.Example(id, data)
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
	}
	if err := pki.Init(filepath.Join(dir, "pki"), names); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	return os.MkdirAll(cfg.Gateway.Data, 0o700)
}
