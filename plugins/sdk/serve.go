package sdk

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

// Serve runs a plugin and returns when the gateway is done with it. It is the
// last call in main. name is the name of the installed file, [a-z0-9-]+.
//
// newAdapter is called once, with the device's settings as a JSON object. It
// does no I/O; an error from it is shown to whoever wrote the settings, so it
// says which key is wrong and what is right.
//
// An interrupt from a terminal is ignored: the gateway decides when to end.
// Started by hand, Serve says what the program is for and exits with status 2.
func Serve(name string, newAdapter func(settings []byte) (southbound.Adapter, error)) {
	if os.Getenv(wire.Handshake.MagicCookieKey) != wire.Handshake.MagicCookieValue {
		fmt.Fprintf(os.Stderr, "%s is a plugin of Headgate and is started by the gateway, not by hand.\n"+
			"Install it in /usr/lib/headgate/plugins and give a device `adapter: %s`.\n", name, name)
		os.Exit(2)
	}
	// stderr is kept: go-plugin replaces os.Stdout and os.Stderr with pipes.
	stderr := os.Stderr
	slog.SetDefault(slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	// Ends with the process: standard input ends when the gateway does.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	s := &server{
		name:       name,
		version:    version(),
		newAdapter: newAdapter,
		stderr:     stderr,
		reading:    make(chan struct{}, 1),
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: wire.Handshake,
		Plugins:         plugin.PluginSet{"adapter": &service{server: s}},
		GRPCServer:      plugin.DefaultGRPCServer,
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: stderr, JSONFormat: true}),
	})
}

// version is what the build knows of the plugin's own version.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
