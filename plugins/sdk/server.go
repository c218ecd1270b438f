package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

// service is the one plugin that go-plugin is asked to serve.
type service struct {
	plugin.NetRPCUnsupportedPlugin
	server *server
}

func (s *service) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	wire.RegisterAdapterServer(g, s.server)
	return nil
}

func (s *service) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("a plugin is no client")
}

// server serves one session of one adapter.
type server struct {
	wire.UnimplementedAdapterServer

	name, version string
	newAdapter    func(settings []byte) (southbound.Adapter, error)
	stderr        *os.File
	reading       chan struct{} // one slot: Read never runs twice at a time

	mu      sync.Mutex // covers opened and session; not held over calls into the adapter
	opened  bool
	session southbound.Session // nil before Open has succeeded and after Close
}

func (s *server) Describe(context.Context, *wire.DescribeRequest) (*wire.DescribeResponse, error) {
	return &wire.DescribeResponse{Name: s.name, Version: s.version}, nil
}

func (s *server) Open(ctx context.Context, req *wire.OpenRequest) (*wire.OpenResponse, error) {
	if !s.first() {
		return nil, status.Error(codes.FailedPrecondition, "this process has had its session; start another")
	}
	// What the adapter prints reaches the gateway's log, on stdout too.
	os.Stdout, os.Stderr = s.stderr, s.stderr
	adapter, err := s.newAdapter(req.GetSettings())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, text(err))
	}
	session, err := adapter.Open(ctx)
	if err != nil {
		return nil, grpcError(err)
	}
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
	_, writable := session.(southbound.Writer)
	resp := &wire.OpenResponse{Writable: writable}
	for _, tag := range session.Tags() {
		resp.Tags = append(resp.Tags, &wire.Tag{Name: tag.Name, Group: tag.Group, Type: tag.Type, Unit: tag.Unit})
	}
	return resp, nil
}

func (s *server) first() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.opened
	s.opened = true
	return first
}

func (s *server) current() (southbound.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return nil, status.Error(codes.Unavailable, "no session is open")
	}
	return s.session, nil
}

func (s *server) Read(ctx context.Context, _ *wire.ReadRequest) (*wire.ReadResponse, error) {
	session, err := s.current()
	if err != nil {
		return nil, err
	}
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return nil, grpcError(ctx.Err())
	}
	batch, err := session.Read(ctx)
	if err != nil {
		return nil, grpcError(err)
	}
	resp := &wire.ReadResponse{Group: batch.Group, Readings: make([]*wire.Reading, len(batch.Readings))}
	for i, r := range batch.Readings {
		if resp.Readings[i], err = encode(r); err != nil {
			return nil, status.Error(codes.Internal, text(fmt.Errorf("reading of %s: %w", r.Tag, err)))
		}
	}
	return resp, nil
}

func encode(r southbound.Reading) (*wire.Reading, error) {
	quality, err := wire.EncodeQuality(r.Quality)
	if err != nil {
		return nil, err
	}
	w := &wire.Reading{Tag: r.Tag, Quality: quality}
	if !r.Time.IsZero() {
		w.UnixNanoseconds = r.Time.UnixNano()
	}
	if !r.Quality.HasValue() {
		if r.Value != nil {
			return nil, fmt.Errorf("quality %s with a value; a bad reading has none", r.Quality)
		}
		return w, nil
	}
	w.Value, err = wire.EncodeValue(r.Value)
	return w, err
}

func (s *server) Write(ctx context.Context, req *wire.WriteRequest) (*wire.WriteResponse, error) {
	session, err := s.current()
	if err != nil {
		return nil, err
	}
	writer, ok := session.(southbound.Writer)
	if !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "%s takes no commands", s.name)
	}
	value, err := wire.DecodeValue(req.GetValue())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, text(err))
	}
	cmd := southbound.Command{ID: req.GetId(), Tag: req.GetTag(), Value: value}
	if ns := req.GetDeadlineUnixNanoseconds(); ns != 0 {
		cmd.Deadline = time.Unix(0, ns)
		if time.Now().After(cmd.Deadline) {
			return nil, status.Error(codes.FailedPrecondition, "the command's deadline has passed")
		}
	}
	if err := writer.Write(ctx, cmd); err != nil {
		return nil, grpcError(err)
	}
	return &wire.WriteResponse{}, nil
}

func (s *server) Close(context.Context, *wire.CloseRequest) (*wire.CloseResponse, error) {
	s.mu.Lock()
	session := s.session
	s.session = nil
	s.mu.Unlock()
	if session == nil {
		return &wire.CloseResponse{}, nil
	}
	if err := session.Close(); err != nil {
		return nil, grpcError(err)
	}
	return &wire.CloseResponse{}, nil
}

// grpcError gives an adapter's error the code that the gateway acts on.
func grpcError(err error) error {
	code := codes.Unknown
	switch {
	case errors.Is(err, southbound.ErrRejected):
		code = codes.FailedPrecondition
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return status.Error(code, text(err))
}

// text bounds an error: gRPC carries it in a header.
func text(err error) string {
	const most = 1024
	s := err.Error()
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}
