package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Server answers on a unix socket, and with health and metrics alone on a
// loopback address. Fields are set before Run.
type Server struct {
	Socket  string
	Address string // host:port; empty: none
	Status  func() Status
	Clients func() []Client // by client id
	Queue   Queue           // nil: nothing can be asked about it
	Latency *Latency
	// Trace hands frames of a bus to send until ctx ends, and calls begun
	// before. Its error may wrap ErrNoBus. Nil: there is no such question.
	Trace  func(ctx context.Context, of string, begun func() error, send func(Frame) error) error
	Reload func(by string, dry bool) (Reload, error) // its error has every problem
	Ready  func() error                              // nil: listeners are up and the queue takes messages
	Logger *slog.Logger
}

// Run serves until ctx ends. A socket left by a process that died is replaced;
// one that answers is an error. An address that is taken is said aloud and done
// without: monitoring must not stop the plant.
func (s *Server) Run(ctx context.Context) error {
	ln, err := s.listen()
	if err != nil {
		return fmt.Errorf("open admin socket: %w", err)
	}
	var public sync.WaitGroup
	defer public.Wait()
	if s.Address != "" {
		tcp, err := net.Listen("tcp", s.Address)
		if err != nil {
			s.Logger.Error("no health and metrics over TCP: set admin.address to a free one, or to \"\"", "error", err)
		} else {
			public.Go(func() { // ends with ctx
				if err := s.serve(ctx, tcp, toLoopback(s.health())); err != nil {
					s.Logger.Error("health and metrics over TCP ended", "error", err)
				}
			})
		}
	}
	if err := s.serve(ctx, ln, onlyPeers(s.routes())); err != nil {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	return nil
}

func (s *Server) serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ConnContext:       withCaller,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       10 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() }) // ends Serve
	defer stop()
	if err := srv.Serve(bound(ln)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) listen() (net.Listener, error) {
	conn, err := net.DialTimeout("unix", s.Socket, time.Second)
	if err == nil {
		conn.Close()
		return nil, fmt.Errorf("another gateway answers on %s: stop it first", s.Socket)
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", s.Socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.Socket, 0o660); err != nil {
		ln.Close()
		return nil, err
	}
	return peerListener{ln.(*net.UnixListener), s.Logger}, nil
}

// routes is all there is; health is what may be seen without asking who.
func (s *Server) routes() *http.ServeMux {
	mux := s.health()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.Status()) // the caller may have gone: nothing to do about it
	})
	mux.HandleFunc("GET /v1/clients", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.Clients())
	})
	mux.HandleFunc("POST /v1/reload", s.reload)
	if s.Trace != nil {
		mux.HandleFunc("GET /v1/trace", s.trace)
	}
	if s.Queue != nil {
		s.queueRoutes(mux)
	}
	return mux
}

func (s *Server) health() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Write(metrics(s.Status(), s.Clients(), s.Latency))
	})
	return mux
}
