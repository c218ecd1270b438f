package main

import (
	"fmt"

	"github.com/headgate-io/headgate/southbound/modbus/simulator"
	"github.com/spf13/cobra"
)

func simulateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "simulate", Short: "Pretend to be a field device"}
	var listen string
	var seed uint64
	modbus := &cobra.Command{
		Use:   "modbus",
		Short: "A Modbus TCP server with three units whose registers move",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			sim, err := simulator.Listen(listen, simulator.Config{Seed: seed})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "Modbus TCP on %s\n", sim.Addr())
			for _, d := range simulator.Devices() {
				fmt.Fprintf(out, "unit %d  %s\n", d.Unit, d.ID)
				for _, t := range d.Tags {
					fmt.Fprintf(out, "        %-10s %s:%d %s %s\n", t.Name, t.Table, t.Address, t.Type, t.Unit)
				}
			}
			return sim.Run(cmd.Context())
		},
	}
	modbus.Flags().StringVar(&listen, "listen", "127.0.0.1:1502", "address and port")
	modbus.Flags().Uint64Var(&seed, "seed", 0, "another seed is another course of the values")
	cmd.AddCommand(modbus)
	return cmd
}
