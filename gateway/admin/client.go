package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// ErrNotRunning means that no gateway answers on the socket.
var ErrNotRunning = errors.New("the gateway is not running")

// errMayNot is the same whether the kernel or the gateway refuses.
var errMayNot = errors.New("you may not; use sudo or join the group headgate")

const (
	maxAnswer = 64 << 20 // bytes a client reads of an answer
	patience  = 30 * time.Second

	longPatience = 10 * time.Minute // with what goes through a whole backlog
)

// GetStatus asks the gateway behind socket.
func GetStatus(ctx context.Context, socket string) (Status, error) {
	var st Status
	resp, err := ask(ctx, socket, http.MethodGet, "/v1/status")
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("ask %s: answered %s", socket, resp.Status)
	}
	if err := decode(resp, &st); err != nil {
		return st, fmt.Errorf("ask %s: %w", socket, err)
	}
	return st, nil
}

// ask sends a request; the caller closes the answer's body.
func ask(ctx context.Context, socket, method, path string) (*http.Response, error) {
	return askWith(ctx, socket, method, path, nil)
}

func askWith(ctx context.Context, socket, method, path string, body io.Reader) (*http.Response, error) {
	timeout := patience
	if body != nil {
		timeout = longPatience
	}
	client := newClient(socket, timeout)
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, body)
	if err != nil {
		return nil, err
	}
	return do(client, req, socket)
}

func newClient(socket string, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives: true,
		},
	}
}

func do(client *http.Client, req *http.Request, socket string) (*http.Response, error) {
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nothing answers on %s; start it with: systemctl start headgate, or without the package: headgate run", ErrNotRunning, socket)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("ask %s: %w", socket, errMayNot)
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", socket, err)
	case resp.StatusCode == http.StatusForbidden:
		defer resp.Body.Close()
		var problem struct {
			Error string `json:"error"`
		}
		if err := decode(resp, &problem); err != nil {
			return nil, fmt.Errorf("ask %s: answered %s", socket, resp.Status)
		}
		return nil, fmt.Errorf("ask %s: %s", socket, problem.Error)
	}
	return resp, nil
}

func decode(resp *http.Response, v any) error {
	return json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v)
}
