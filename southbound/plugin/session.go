package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/headgate-io/headgate/plugins/sdk/wire"
	"github.com/headgate-io/headgate/southbound"
)

// session is one process and the connection to it.
type session struct {
	name     string
	patience patience
	process  *process
	conn     *grpc.ClientConn
	client   wire.AdapterClient
	health   grpc_health_v1.HealthClient
	tags     []southbound.Tag
	watched  chan struct{} // closed when watch has ended
}

// writer is a session whose plugin takes commands.
type writer struct{ *session }

func (s *session) describe(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience.describe)
	defer cancel()
	resp, err := s.client.Describe(ctx, &wire.DescribeRequest{})
	if err != nil {
		return Info{}, s.explain(ctx, "describe", err)
	}
	if len(resp.GetName()) > wire.MaxName || len(resp.GetVersion()) > wire.MaxName {
		return Info{}, s.violation(fmt.Errorf("name or version longer than %d bytes", wire.MaxName))
	}
	return Info{Name: printable(resp.GetName()), Version: printable(resp.GetVersion())}, nil
}

func (s *session) open(ctx context.Context, device string, settings []byte) (writable bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience.open)
	defer cancel()
	resp, err := s.client.Open(ctx, &wire.OpenRequest{Device: device, Settings: settings})
	if status.Code(err) == codes.InvalidArgument {
		return false, fmt.Errorf("open plugin %s: %s; correct the `settings:` of device %s",
			s.name, printable(status.Convert(err).Message()), device)
	}
	if err != nil {
		return false, s.explain(ctx, "open", err)
	}
	if s.tags, err = decodeTags(resp.GetTags()); err != nil {
		return false, s.violation(err)
	}
	return resp.GetWritable(), nil
}

// abandon ends a session that watch does not look after.
func (s *session) abandon() error {
	return errors.Join(s.conn.Close(), s.process.end())
}

// watch checks that the plugin still answers, and closes the connection when
// its process has ended, which ends every call. It ends with the process.
func (s *session) watch() {
	defer close(s.watched)
	defer s.conn.Close()
	tick := time.NewTicker(s.patience.ping)
	defer tick.Stop()
	for {
		select {
		case <-s.process.exited:
			return
		case <-tick.C:
		}
		err := s.ping()
		if status.Code(err) == codes.DeadlineExceeded {
			s.process.fail(fmt.Errorf("it did not answer a health check within %v and was killed", s.patience.pong))
		} else if err != nil {
			s.process.kill()
		}
	}
}

func (s *session) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience.pong)
	defer cancel()
	_, err := s.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})
	return err
}

func (s *session) Tags() []southbound.Tag { return slices.Clone(s.tags) }

// Read has no deadline of its own: an interval may be long. watch ends it when
// the plugin hangs.
func (s *session) Read(ctx context.Context) (southbound.Batch, error) {
	resp, err := s.client.Read(ctx, &wire.ReadRequest{})
	if err != nil {
		return southbound.Batch{}, s.explain(ctx, "read", err)
	}
	batch, err := decodeBatch(s.tags, resp, time.Now())
	if err != nil {
		return southbound.Batch{}, s.violation(err)
	}
	return batch, nil
}

// Write refuses what cannot be meant for the device before it is sent.
func (w writer) Write(ctx context.Context, cmd southbound.Command) error {
	req, err := w.request(ctx, cmd)
	if err != nil {
		return fmt.Errorf("write %s: %w: %w", cmd.Tag, southbound.ErrRejected, err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.patience.write)
	defer cancel()
	_, err = w.client.Write(ctx, req)
	if status.Code(err) == codes.FailedPrecondition {
		return fmt.Errorf("write %s: %w: %s", cmd.Tag, southbound.ErrRejected, printable(status.Convert(err).Message()))
	}
	if err != nil {
		return w.explain(ctx, "write "+cmd.Tag+" to", err)
	}
	return nil
}

func (w writer) request(ctx context.Context, cmd southbound.Command) (*wire.WriteRequest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(w.tags, func(t southbound.Tag) bool { return t.Name == cmd.Tag }) {
		return nil, errors.New("no such tag")
	}
	value, err := wire.EncodeValue(cmd.Value)
	if err != nil {
		return nil, err
	}
	req := &wire.WriteRequest{Id: cmd.ID, Tag: cmd.Tag, Value: value}
	if !cmd.Deadline.IsZero() {
		if !time.Now().Before(cmd.Deadline) {
			return nil, errors.New("its deadline has passed")
		}
		req.DeadlineUnixNanoseconds = cmd.Deadline.UnixNano()
	}
	return req, nil
}

// Close lets the plugin close its session and then kills the process.
func (s *session) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience.close)
	defer cancel()
	_, err := s.client.Close(ctx, &wire.CloseRequest{})
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled: // it is dead already
		err = nil
	case codes.OK:
	case codes.DeadlineExceeded:
		err = fmt.Errorf("close plugin %s: no answer within %v; it was killed", s.name, s.patience.close)
	default:
		err = s.explain(ctx, "close", err)
	}
	err = errors.Join(err, s.process.end())
	<-s.watched
	return err
}

// violation is the error for an answer that the contract does not allow.
func (s *session) violation(err error) error {
	return fmt.Errorf("plugin %s breaks the contract: %w; tell its author", s.name, err)
}

// explain says why a call failed: the caller's context, the process's end with
// its last words, or what the plugin answered.
func (s *session) explain(ctx context.Context, verb string, err error) error {
	verb += " plugin " + s.name
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", verb, ctx.Err())
	}
	st, answered := status.FromError(err)
	switch {
	case answered && st.Code() == codes.ResourceExhausted:
		return s.violation(fmt.Errorf("answer larger than %d bytes", wire.MaxMessage))
	case answered && st.Code() == codes.DeadlineExceeded: // the plugin noticed first, or its device did not answer
		return fmt.Errorf("%s: %w: %s", verb, context.DeadlineExceeded, printable(st.Message()))
	case answered && st.Code() != codes.Unavailable && st.Code() != codes.Canceled:
		return fmt.Errorf("%s: %s", verb, printable(st.Message()))
	case answered:
		err = errors.New("connection lost")
	}
	return fmt.Errorf("%s: %w%s", verb, err, s.obituary())
}

// obituary waits for the end of a process that is about to end and says how it
// did; empty if it lives.
func (s *session) obituary() string {
	timer := time.NewTimer(2 * drainTime)
	defer timer.Stop()
	select {
	case <-s.process.exited:
	case <-timer.C:
		return ""
	}
	text := ""
	if ending := s.process.ending(); ending != "" {
		text += "; " + ending
	}
	if words := s.process.log.lastWords(); words != "" {
		text += "; its last words: " + printable(words)
	}
	return text
}

// printable bounds a plugin's text and removes what could upset a terminal.
func printable(s string) string {
	const most = 1024
	s = strings.ToValidUTF8(s[:min(most, len(s))], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
