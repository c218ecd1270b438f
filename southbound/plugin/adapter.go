package plugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

// Config says which plugin serves which device.
type Config struct {
	Path       string       // of the executable, absolute; see Find
	Device     string       // the device's id
	Settings   []byte       // the device's `settings:` as a JSON object; empty is {}
	RuntimeDir string       // where sockets are made: exists, is ours alone, at most 60 bytes long
	Logger     *slog.Logger // nil: slog.Default
}

// patience is how long each step may take.
type patience struct {
	start, describe, open, write, close time.Duration
	ping, pong                          time.Duration // interval and deadline of health checks
}

var usualPatience = patience{
	start: 10 * time.Second, describe: 5 * time.Second, open: 30 * time.Second,
	write: 30 * time.Second, close: 2 * time.Second,
	ping: 5 * time.Second, pong: 5 * time.Second,
}

type adapter struct {
	Config
	name     string
	logger   *slog.Logger
	patience patience
}

// New returns an adapter whose every session is a process of its own. It does
// no I/O: what is wrong with the file or the settings is an error of Open. A
// session takes commands, and is a southbound.Writer, if the plugin's is.
func New(cfg Config) southbound.Adapter { return newAdapter(cfg) }

func newAdapter(cfg Config) *adapter {
	logger := cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	if len(cfg.Settings) == 0 {
		cfg.Settings = []byte("{}")
	}
	name := filepath.Base(cfg.Path)
	return &adapter{
		Config:   cfg,
		name:     name,
		logger:   logger.With("plugin", name, "device", cfg.Device),
		patience: usualPatience,
	}
}

// Info is what a plugin says of itself.
type Info struct {
	Name    string
	Version string // for people
}

// Describe starts the plugin at cfg.Path, asks what it is and ends it. Device
// and Settings are not used.
func Describe(ctx context.Context, cfg Config) (Info, error) {
	a := newAdapter(cfg)
	s, err := a.start(ctx)
	if err != nil {
		return Info{}, err
	}
	info, err := s.describe(ctx)
	return info, errors.Join(err, s.abandon())
}

func (a *adapter) Open(ctx context.Context) (southbound.Session, error) {
	s, err := a.start(ctx)
	if err != nil {
		return nil, err
	}
	writable, err := s.open(ctx, a.Device, a.Settings)
	if err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	go s.watch()
	if writable {
		return writer{s}, nil
	}
	return s, nil
}

// start starts the process and connects to it. When ctx ends meanwhile, the
// process is killed, which ends whatever go-plugin waits for.
func (a *adapter) start(ctx context.Context) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start plugin %s: %w", a.name, err)
	}
	if err := a.checkRuntimeDir(); err != nil {
		return nil, fmt.Errorf("start plugin %s: %w", a.name, err)
	}
	file, err := openExecutable(a.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum, err := checksum(file)
	if err != nil {
		return nil, err
	}
	p := newProcess(a.Path, file, newLineLog(a.logger, time.Now))
	stop := context.AfterFunc(ctx, p.kill)
	conn, err := a.handshake(p)
	if !stop() && err == nil {
		err = errors.Join(ctx.Err(), conn.Close())
	}
	s := &session{name: a.name, patience: a.patience, process: p, conn: conn, watched: make(chan struct{})}
	if err != nil {
		ended := p.end()
		return nil, errors.Join(s.explain(ctx, "start", err), ended)
	}
	s.client = wire.NewAdapterClient(conn)
	s.health = grpc_health_v1.NewHealthClient(conn)
	a.logger.Info("plugin started", "pid", p.ID(), "path", a.Path, "sha256", sum)
	return s, nil
}

// checkRuntimeDir refuses what would fail later with a worse message: the
// kernel takes at most 107 bytes of socket path, and go-plugin appends two
// names of its own.
func (a *adapter) checkRuntimeDir() error {
	const most = 107 - len("/plugin-dir4294967295/plugin4294967295")
	if !filepath.IsAbs(a.RuntimeDir) || len(a.RuntimeDir) > most {
		return fmt.Errorf("runtime folder %q: need an absolute path of at most %d bytes", a.RuntimeDir, most)
	}
	info, err := os.Stat(a.RuntimeDir)
	if err != nil {
		return fmt.Errorf("look at runtime folder: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("runtime folder %s: need a folder that only its owner may write; run chmod 0750", a.RuntimeDir)
	}
	return nil
}

// handshake starts p by way of go-plugin and prepares a connection to it.
func (a *adapter) handshake(p *process) (*grpc.ClientConn, error) {
	cfg := &plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake,
		Plugins:          plugin.PluginSet{},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     a.patience.start,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: a.RuntimeDir},
		// With any other level go-plugin parses what the plugin logs, and
		// panics at some of it.
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			p.prepare(cmd, dir)
			return p, nil
		},
	}
	addr, err := plugin.NewClient(cfg).Start()
	if err != nil {
		return nil, handshakeError(err)
	}
	if cfg.TLSConfig == nil || cfg.TLSConfig.RootCAs == nil {
		return nil, errors.New("it sent no certificate; build it with plugins/sdk")
	}
	return dial(addr, cfg.TLSConfig)
}

// handshakeError puts go-plugin's words for the usual case into ours.
func handshakeError(err error) error {
	text := err.Error()
	if strings.Contains(text, "exited before we could connect") || strings.Contains(text, "Failed to read any lines") {
		return errors.New("it ended before it was ready")
	}
	return errors.New(printable(text))
}

func dial(addr net.Addr, keys *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(keys)),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(wire.MaxMessage),
			grpc.MaxCallSendMsgSize(wire.MaxMessage),
		),
		grpc.WithMaxHeaderListSize(16<<10),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithIdleTimeout(0),
	)
}
