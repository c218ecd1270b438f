package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/spf13/cobra"
)

const packagedConfig = "/etc/headgate/headgate.yaml"

func runCommand() *cobra.Command {
	var level, format string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway",
		Long: `Runs the gateway until SIGTERM or SIGINT; SIGHUP does what headgate reload does.
Logs go to standard error. Exits with 78 when the configuration or the data
folder needs a person, and with 1 when a restart may help.`,
		Args: args(cobra.NoArgs),
	}
	path := configFlag(cmd)
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*path)
		if err != nil {
			return err
		}
		logger, err := newLogger(os.Stderr, level, format)
		if err != nil {
			return err
		}
		if cfg.Queue.Encryption {
			if err := keepFromDumps(); err != nil {
				return err
			}
		}
		file, err := filepath.Abs(configPath(*path))
		if err != nil {
			return err
		}
		hangup := make(chan os.Signal, 1) // one that waits is as good as many
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		g, err := gateway.New(cfg, gateway.Options{
			Version: version, Built: buildTime(), Logger: logger, File: file, Hangup: hangup, PasswordHelper: hashHelper(),
		})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		go boundGarbage(ctx) // until cancel
		roomToWait()
		return g.Run(ctx)
	}
	return cmd
}

// newLogger writes without the time where journald adds its own.
func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError{errors.New("--log-level is debug, info, warn or error")}
	}
	opts := &slog.HandlerOptions{Level: l}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usageError{errors.New("--log-format is text or json")}
}

func configFlag(cmd *cobra.Command) *string {
	return cmd.PersistentFlags().String("config", "", "configuration file (default "+packagedConfig+", else ./headgate.yaml)")
}

func configPath(path string) string {
	if path != "" {
		return path
	}
	if _, err := os.Stat(packagedConfig); errors.Is(err, fs.ErrNotExist) {
		return "headgate.yaml"
	}
	return packagedConfig
}

func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(configPath(path))
	if err != nil {
		return nil, configError{err}
	}
	return cfg, nil
}

func usersFile(cfg *config.Config) string { return gateway.UsersFile(cfg) }
