package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var show, asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find everything that is wrong with the configuration",
		Long: `Reads the configuration and conf.d beside it and tells every problem with file, line
and column, the place in the file, and what to do. If there is none it looks at
the data folder, and at the certificates, keys and plugins that are named. Exits with 0 or 78.`,
		Args: args(cobra.NoArgs),
	}
	path := configFlag(cmd)
	cmd.Flags().BoolVar(&show, "show", false, "print the configuration as it takes effect, defaults included")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		cfg, err := loadConfig(*path)
		var problems *config.Problems
		switch {
		case asJSON && errors.As(err, &problems):
			return errors.Join(err, printJSON(out, problems))
		case err != nil:
			return err
		}
		if errs := gateway.Check(cfg); len(errs) > 0 {
			return configError{errors.Join(errs...)}
		}
		for _, w := range append(gateway.Warnings(cfg), gateway.CertificateWarnings(cfg, time.Now())...) {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
		}
		switch {
		case show:
			fmt.Fprint(out, cfg.Show())
		case asJSON:
			return printJSON(out, struct {
				Problems []struct{} `json:"problems"`
			}{[]struct{}{}})
		default:
			fmt.Fprintf(out, "%s is right: %s, %s, %s, %s\n", configPath(*path), count(len(cfg.Broker.Listeners), "listener"),
				count(len(cfg.Access.Rules), "rule"), count(len(cfg.Northbound), "link"), count(len(cfg.Devices), "device"))
		}
		return nil
	}
	return cmd
}

// count is "1 rule", "2 rules".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
