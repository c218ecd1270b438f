package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// maxQuestion is what a caller may send: a batch of records, some of which may be
// as large as a packet.
const maxQuestion = 512 << 20

// queueRoutes adds what can be done with the queue. What shows messages or
// changes anything is for the gateway's own user and root; members of its group
// may look at numbers.
func (s *Server) queueRoutes(mux *http.ServeMux) {
	route(mux, "report", false, func(ctx context.Context, _ struct{}) (QueueReport, error) { return s.Queue.Report(ctx) })
	route(mux, "verify", false, s.Queue.Verify)
	route(mux, "read", true, s.Queue.Read)
	route(mux, "remove", true, s.Queue.Remove)
	route(mux, "plan", true, s.Queue.Plan)
	route(mux, "add", true, s.Queue.Add)
	route(mux, "requeue", true, s.Queue.Requeue)
}

func route[Q, A any](mux *http.ServeMux, verb string, owners bool, fn func(context.Context, Q) (A, error)) {
	mux.HandleFunc("POST /v1/queue/"+verb, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if owners && !ownerAsks(r.Context()) {
			w.WriteHeader(http.StatusForbidden)
			answerError(w, errors.New("messages are shown to, and changed by, root and the gateway's own user only: use sudo"))
			return
		}
		var q Q
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			answerError(w, err)
			return
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(longPatience)); err != nil {
			return
		}
		a, err := fn(r.Context(), q)
		var answer []byte
		if err == nil {
			answer, err = json.Marshal(a)
		}
		if err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			answerError(w, err)
			return
		}
		w.Write(answer) // the caller may have gone
	})
}

func answerError(w io.Writer, err error) {
	json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the caller may have gone
}

// ownerAsks is true for root and the gateway's own user.
func ownerAsks(ctx context.Context) bool {
	uid, known := ctx.Value(callerKey{}).(uint32)
	return known && (uid == 0 || int(uid) == os.Geteuid())
}

// A Remote is the queue of the gateway that answers on a socket.
type Remote struct{ Socket string }

// Report implements Queue, as all that follows.
func (r Remote) Report(ctx context.Context) (QueueReport, error) {
	return post[QueueReport](ctx, r.Socket, "report", struct{}{})
}

func (r Remote) Read(ctx context.Context, what Read) (Page, error) {
	return post[Page](ctx, r.Socket, "read", what)
}

func (r Remote) Remove(ctx context.Context, what Remove) (Removed, error) {
	return post[Removed](ctx, r.Socket, "remove", what)
}

func (r Remote) Plan(ctx context.Context, what Import) (Imported, error) {
	return post[Imported](ctx, r.Socket, "plan", what)
}

func (r Remote) Add(ctx context.Context, what Batch) (Imported, error) {
	return post[Imported](ctx, r.Socket, "add", what)
}

func (r Remote) Requeue(ctx context.Context, link string) (Requeued, error) {
	return post[Requeued](ctx, r.Socket, "requeue", link)
}

func (r Remote) Verify(ctx context.Context, from uint64) (Verified, error) {
	return post[Verified](ctx, r.Socket, "verify", from)
}

func post[A any](ctx context.Context, socket, verb string, question any) (a A, err error) {
	body, err := json.Marshal(question)
	if err != nil {
		return a, err
	}
	resp, err := askWith(ctx, socket, http.MethodPost, "/v1/queue/"+verb, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return a, fmt.Errorf("ask %s: the gateway that runs is an older one: restart it", socket)
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Error string `json:"error"`
		}
		if decode(resp, &problem) != nil || problem.Error == "" {
			return a, fmt.Errorf("ask %s: answered %s", socket, resp.Status)
		}
		return a, errors.New(problem.Error)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxQuestion)).Decode(&a); err != nil {
		return a, fmt.Errorf("ask %s: %w", socket, err)
	}
	return a, nil
}
