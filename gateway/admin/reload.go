package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Reload is what came of reading the configuration again. Its JSON names are
// stable.
type Reload struct {
	File     string   `json:"file"`
	DryRun   bool     `json:"dry_run"`
	Applied  []Change `json:"applied"`       // in force now; with DryRun: would be
	Restart  []Change `json:"needs_restart"` // not in force until the next start
	Warnings []string `json:"warnings"`
}

// A Change is one setting that differs.
type Change struct {
	Path string `json:"path"`
	Old  string `json:"old,omitempty"` // empty: it was not there
	New  string `json:"new,omitempty"` // empty: it is gone
}

// String is the change on one line.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return "+ " + c.Path + ": " + c.New
	case c.New == "":
		return "- " + c.Path + ": " + c.Old
	}
	return "~ " + c.Path + ": " + c.Old + " → " + c.New
}

// ErrRefused marks the error of a reload that changed nothing.
var ErrRefused = errors.New("configuration refused")

// refused keeps the gateway's words.
type refused struct{ text string }

func (r refused) Error() string        { return r.text }
func (r refused) Is(target error) bool { return target == ErrRefused }

// AskReload has the gateway behind socket read its configuration again. A
// configuration that it refuses is an ErrRefused with every problem in it.
func AskReload(ctx context.Context, socket string, dry bool) (Reload, error) {
	query := url.Values{"dry_run": {strconv.FormatBool(dry)}}
	resp, err := ask(ctx, socket, http.MethodPost, "/v1/reload?"+query.Encode())
	if err != nil {
		return Reload{}, err
	}
	defer resp.Body.Close()
	var r Reload
	if resp.StatusCode == http.StatusUnprocessableEntity {
		var problem struct {
			Error string `json:"error"`
		}
		if err := decode(resp, &problem); err != nil {
			return r, fmt.Errorf("ask %s: %w", socket, err)
		}
		return r, refused{problem.Error}
	}
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("ask %s: answered %s", socket, resp.Status)
	}
	if err := decode(resp, &r); err != nil {
		return r, fmt.Errorf("ask %s: %w", socket, err)
	}
	return r, nil
}

// reload answers POST /v1/reload.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	dry := r.URL.Query().Get("dry_run") == "true"
	report, err := s.Reload(Caller(r.Context()), dry)
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the caller may have gone
		return
	}
	json.NewEncoder(w).Encode(report)
}
