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

// maxAnswer bounds what a client reads of an answer.
const maxAnswer = 64 << 20

// GetStatus asks the gateway behind socket.
func GetStatus(ctx context.Context, socket string) (Status, error) {
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives: true,
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/v1/status", nil)
	if err != nil {
		return Status{}, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return Status{}, fmt.Errorf("%w: nothing answers on %s; start it with: systemctl start headgate", ErrNotRunning, socket)
	case errors.Is(err, os.ErrPermission):
		return Status{}, fmt.Errorf("ask %s: you may not; use sudo or join the group headgate", socket)
	case err != nil:
		return Status{}, fmt.Errorf("ask %s: %w", socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Status{}, fmt.Errorf("ask %s: answered %s", socket, resp.Status)
	}
	var st Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&st); err != nil {
		return Status{}, fmt.Errorf("ask %s: %w", socket, err)
	}
	return st, nil
}
