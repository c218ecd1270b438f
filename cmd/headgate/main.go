// Headgate is an edge gateway for plants and remote sites: it reads field
// devices, serves local MQTT clients, keeps what they say safe on its own disk
// and brings it to a cloud broker when there is a link.
//
// Every verb is one file here and a call into a package below.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/admin"
	"github.com/spf13/cobra"
)

// Set by the build: the version, and when it was made, in Unix time.
var version, built = "dev", ""

// Exit codes: scripts rely on them.
const (
	exitProblem    = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitConfig     = 78
)

// usageError is a wrong way to call a verb.
type usageError struct{ error }

// errToldAlready is an answer "no" that has been printed.
var errToldAlready = errors.New("no")

// errConfig marks a configuration that is wrong or not there.
var errConfig = errors.New("configuration")

// configError keeps the words of the error it marks.
type configError struct{ error }

func (e configError) Unwrap() []error { return []error{e.error, errConfig} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:]))
}

func execute(ctx context.Context, args []string) int {
	cmd := root()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errToldAlready) {
		fmt.Fprintln(os.Stderr, "headgate:", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errConfig), errors.Is(err, gateway.ErrSetup), errors.Is(err, admin.ErrRefused):
		return exitConfig
	case errors.Is(err, admin.ErrNotRunning):
		return exitNotRunning
	}
	return exitProblem
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "headgate",
		Short:         "An edge gateway that loses nothing it acknowledged",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          args(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
	})
	cmd.AddCommand(runCommand(), initCommand(), checkCommand(), demoCommand(), reloadCommand(), statusCommand(),
		pubCommand(), subCommand(), userCommand(), certCommand(), accessCommand(), routeCommand(), simulateCommand(), modbusCommand(), queueCommand(), verifyCommand(), versionCommand(), hashCommand())
	return cmd
}

// args turns cobra's complaint about arguments into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if err := check(cmd, got); err != nil {
			return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}
