package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A Frame is one request or answer on a bus. Its JSON names are stable.
type Frame struct {
	Time        time.Time `json:"time"`
	Sent        bool      `json:"sent"`
	Transaction uint16    `json:"transaction"`
	Unit        byte      `json:"unit"`
	PDU         []byte    `json:"pdu"` // base64; of what was no frame, its bytes
	Note        string    `json:"note,omitempty"`
}

// traceWait is how long whoever watches a trace may take for a line.
const traceWait = 10 * time.Second

// trace answers with a line for each frame until the caller goes. Frames carry
// what devices hold, so they are for those who may see messages.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	if !ownerAsks(r.Context()) {
		http.Error(w, "frames are shown to root and the gateway's own user only: use sudo", http.StatusForbidden)
		return
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	enc := json.NewEncoder(w)
	send := func(f Frame) error {
		if err := control.SetWriteDeadline(time.Now().Add(traceWait)); err != nil {
			return err
		}
		if err := enc.Encode(f); err != nil {
			return err
		}
		return control.Flush()
	}
	w.Header().Set("Content-Type", "application/jsonl")
	begun := func() error {
		if err := control.SetWriteDeadline(time.Now().Add(traceWait)); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return control.Flush()
	}
	if err := s.Trace(r.Context(), r.URL.Query().Get("of"), begun, send); errors.Is(err, ErrNoBus) {
		http.Error(w, err.Error(), http.StatusNotFound)
	}
}

// ErrNoBus is wrapped when there is no bus of that name, nor a device on one.
var ErrNoBus = errors.New("no such Modbus bus or device")

// Trace calls each with the frames of a bus, or of the bus of a device, of the
// gateway behind socket, until ctx ends or each returns an error.
func Trace(ctx context.Context, socket, of string, each func(Frame) error) error {
	client := newClient(socket, 0)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/v1/trace?of="+url.QueryEscape(of), nil)
	if err != nil {
		return err
	}
	resp, err := do(client, req, socket)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text := make([]byte, 512)
		n, _ := resp.Body.Read(text) // what it says, if anything
		return fmt.Errorf("ask %s: %s: %s", socket, resp.Status, text[:n])
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var f Frame
		if err := dec.Decode(&f); err != nil {
			return fmt.Errorf("the gateway ended the trace: %w", err)
		}
		if err := each(f); err != nil {
			return err
		}
	}
}
