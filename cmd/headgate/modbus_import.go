package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/headgate-io/headgate/gateway/migrate"
	"github.com/spf13/cobra"
)

func modbusImport() *cobra.Command {
	var from string
	var how migrate.Options
	cmd := &cobra.Command{
		Use:   "import --from telegraf|edgex|neuron FILE...",
		Short: "Make buses, devices and tags of another program's configuration, and print them",
		Long: `Prints buses and devices with groups and tags that read the same values: write
them to a file in conf.d beside the configuration. telegraf: the file with
[[inputs.modbus]]. edgex: device profiles and the file with deviceList. neuron: a
node's tags as exported, saved as CSV. What is not carried over is told with its
line; if tags or devices are left out, the exit code is 1. See docs/modbus.md.`,
		Args: args(cobra.MinimumNArgs(1)),
	}
	cmd.Flags().StringVar(&from, "from", "", "the program: "+strings.Join(migrate.From(), ", "))
	cmd.Flags().StringVar(&how.URL, "url", "", "neuron: where the device is, tcp://192.0.2.10 for example")
	cmd.Flags().DurationVar(&how.Interval, "interval", 0, "how often to read what the files give no interval for")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if from == "" {
			return usageError{errors.New("name the program with --from: " + strings.Join(migrate.From(), ", "))}
		}
		var files []migrate.File
		for _, name := range names {
			text, err := readBounded(name, migrate.MaxFile)
			if err != nil {
				return err
			}
			files = append(files, migrate.File{Name: name, Text: text})
		}
		result, err := migrate.Read(from, files, how)
		if err != nil {
			return err
		}
		for _, n := range result.Notes {
			fmt.Fprintln(cmd.ErrOrStderr(), n)
		}
		if err := result.Write(cmd.OutOrStdout()); err != nil {
			return err
		}
		if result.LeftOut > 0 {
			return fmt.Errorf("%d left out, %d tags carried over: do as each line says, or add what is missing by hand", result.LeftOut, result.Tags())
		}
		return nil
	}
	return cmd
}

// readBounded reads a regular file, and one byte beyond most of a longer one.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}
