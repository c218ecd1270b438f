package enrol

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
)

const (
	commandPatience = 5 * time.Minute
	commandGrace    = 2 * time.Second // for output of what it leaves behind
	maxSaid         = 4 << 10         // bytes of its output that are kept
)

// runCommand has a program of the owner's get req signed. It is started without
// a shell and without the gateway's environment, and killed with all that it
// started.
func (r *Renewer) runCommand(ctx context.Context, req *pki.Request) ([]*x509.Certificate, error) {
	dir, err := os.MkdirTemp(r.cfg.Folder, "renew-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	csr, output := filepath.Join(dir, "request.pem"), filepath.Join(dir, "certificate.pem")
	if err := os.WriteFile(csr, req.PEM(), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.cfg.Command[0], r.cfg.Command[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + dir,
		"HEADGATE_LINK=" + r.cfg.Link, "HEADGATE_REQUEST=" + csr, "HEADGATE_OUTPUT=" + output,
		"HEADGATE_CERTIFICATE=" + r.cfg.Files.Certificate, "HEADGATE_KEY=" + r.cfg.Files.Key,
	}
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = commandGrace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the command: %w: correct renew.command, and let the gateway's user run it", err)
	}
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("the command ran for %v and was killed%s: make it end sooner", r.patience, said)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, fmt.Errorf("the command failed (%w)%s: run it by hand", err, said)
	}
	return readOutput(output)
}

func readOutput(file string) ([]*x509.Certificate, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("the command left no certificate: %w: it has to write PEM to $HEADGATE_OUTPUT", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read what the command left: %w", err)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, fmt.Errorf("the command left a damaged certificate, or a %s: it has to write certificates only, as PEM, to $HEADGATE_OUTPUT", block.Type)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("the command left no certificate: it has to write PEM to $HEADGATE_OUTPUT")
	}
	return all, nil
}

// A tail keeps the last maxSaid bytes.
type tail struct {
	mu   sync.Mutex // covers text
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[max(len(p)-maxSaid, 0):]...)
	t.text = t.text[max(len(t.text)-maxSaid, 0):]
	return len(p), nil
}

// String is for an error: the beginning of what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return firstLine(t.text)
}
