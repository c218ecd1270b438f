package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
)

// impostors are programs that do not get as far as serving.
var impostors = map[string]func(){
	"mute":    func() { select {} },
	"quitter": func() { fmt.Fprintln(os.Stderr, "no licence found"); os.Exit(3) },
	"stranger": func() {
		fmt.Println("1|1|tcp|10.0.0.1:22|grpc|")
		select {}
	},
	"babbler": func() {
		fmt.Println("tcp|10.0.0.1:22")
		select {}
	},
	"endless": func() {
		line := []byte(strings.Repeat("1|", 1<<16))
		for {
			os.Stdout.Write(line)
		}
	},
	"elsewhere": func() {
		path := filepath.Join(filepath.Dir(os.Args[0]), "socket")
		if _, err := net.Listen("unix", path); err == nil {
			fmt.Printf("1|1|unix|%s|grpc|\n", path)
		}
		select {}
	},
	"climber": func() {
		fmt.Printf("1|1|unix|%s/../%s|grpc|\n", os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "socket")
		select {}
	},
	"file": func() {
		path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "socket")
		os.WriteFile(path, nil, 0o600)
		fmt.Printf("1|1|unix|%s|grpc|\n", path)
		select {}
	},
	"naked": func() {
		path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "socket")
		if _, err := net.Listen("unix", path); err == nil {
			fmt.Printf("1|1|unix|%s|grpc|\n", path)
		}
		select {}
	},
	"ancient": func() {
		fmt.Println("1|99|unix|/nowhere|grpc|")
		select {}
	},
}

// liar is a plugin that speaks the protocol and breaks the contract.
type liar struct {
	plugin.NetRPCUnsupportedPlugin
	wire.UnimplementedAdapterServer
	do string
}

func serveLiar() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: wire.Handshake,
		Plugins:         plugin.PluginSet{"adapter": &liar{}},
		GRPCServer:      plugin.DefaultGRPCServer,
	})
}

func (l *liar) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	wire.RegisterAdapterServer(g, l)
	return nil
}

func (l *liar) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func (l *liar) Open(_ context.Context, req *wire.OpenRequest) (*wire.OpenResponse, error) {
	var settings probeSettings
	if err := json.Unmarshal(req.GetSettings(), &settings); err != nil {
		return nil, err
	}
	l.do = settings.Do
	a := &wire.Tag{Name: "a", Group: "g", Type: "float64"}
	b := &wire.Tag{Name: "b", Group: "h", Type: "float64"}
	switch l.do {
	case "no tags":
		return &wire.OpenResponse{}, nil
	case "tag twice":
		b.Name = "a"
	case "slash in group":
		b.Group = "../h"
	}
	return &wire.OpenResponse{Tags: []*wire.Tag{a, b}}, nil
}

func (l *liar) Read(context.Context, *wire.ReadRequest) (*wire.ReadResponse, error) {
	r := &wire.Reading{Tag: "a", Quality: wire.Quality_GOOD, Value: &wire.Value{Kind: &wire.Value_Double{Double: 1}}}
	resp := &wire.ReadResponse{Group: "g", Readings: []*wire.Reading{r}}
	switch l.do {
	case "not a number":
		r.Value.Kind = &wire.Value_Double{Double: math.NaN()}
	case "unknown tag":
		r.Tag = "z"
	case "too large":
		r.Value.Kind = &wire.Value_Bytes{Bytes: make([]byte, 5<<20)}
	case "not UTF-8":
		r.Tag = "\xff"
	}
	return resp, nil
}
