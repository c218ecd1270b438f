package main

import (
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
	"github.com/spf13/cobra"
)

func simulateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "simulate", Short: "Pretend to be a field device"}
	var listen, faults string
	var files pki.ServerFiles
	var cfg simulator.Config
	modbus := &cobra.Command{
		Use:   "modbus",
		Short: "A Modbus device with three units whose registers move",
		Long: `A Modbus gateway with three units whose registers move. Where it listens says
how it speaks: host:port is Modbus TCP; tls://, udp://, rtu+tcp:// and
ascii+tcp:// take host:port, too. rtu:///path and ascii:///path make a
pseudo-terminal and a link to it at path, to be read like a serial port.

With --fault, answers go wrong by chance. Faults: ` + strings.Trim(fmt.Sprint(simulator.Faults()), "[]") + `.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Faults, err = simulator.ParseFaults(faults); err != nil {
				return err
			}
			if cfg.TLS, err = simulatorTLS(listen, files); err != nil {
				return err
			}
			sim, err := simulator.Listen(listen, cfg)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "Modbus on %s\n", sim.URL())
			for _, d := range simulator.Devices() {
				fmt.Fprintf(out, "unit %d  %s\n", d.Unit, d.ID)
				for _, t := range d.Tags {
					fmt.Fprintf(out, "        %-10s %s:%d %s %s\n", t.Name, t.Table, t.Address, t.Type, t.Unit)
				}
			}
			return sim.Run(cmd.Context())
		},
	}
	flags := modbus.Flags()
	flags.StringVar(&listen, "listen", "127.0.0.1:1502", "address and port, or a URL")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "another seed is another course of the values, and of the faults")
	flags.StringVar(&faults, "fault", "", "what goes wrong, separated by commas")
	flags.Float64Var(&cfg.FaultRate, "fault-rate", 0.25, "share of the answers that go wrong")
	flags.DurationVar(&cfg.Late, "late", 0, "the least that a late answer takes (default 1.2s)")
	flags.IntVar(&cfg.Baud, "baud", 0, "rtu:// and ascii://: characters take as long as at this speed")
	flags.StringVar(&files.Certificate, "certificate", "", "tls://: PEM file of the device's certificate")
	flags.StringVar(&files.Key, "key", "", "tls://: PEM file of its key")
	flags.StringVar(&files.ClientCA, "ca", "", "tls://: PEM file of the authority that vouches for the gateway")
	cmd.AddCommand(modbus)
	return cmd
}

// simulatorTLS is nil unless the address asks for TLS.
func simulatorTLS(listen string, files pki.ServerFiles) (*tls.Config, error) {
	if !strings.HasPrefix(listen, "tls://") {
		return nil, nil
	}
	files.Policy = pki.Required
	return pki.Server(files)()
}
