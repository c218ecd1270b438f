package enrol

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
)

// Config is what a Renewer needs to know. One of EST and Command is set.
type Config struct {
	Link       string
	Files      pki.ClientFiles // what is renewed
	CommonName string          // of a first certificate
	At         float64         // part of its life after which a certificate is renewed, below 1
	EST        *EST
	Command    []string // a program and its arguments
	Folder     string   // for files of the command
	Logger     *slog.Logger
}

// A Renewer renews one link's certificate. Run is called once; the other
// methods are safe for concurrent use.
type Renewer struct {
	cfg      Config
	log      *slog.Logger
	patience time.Duration // with a command

	mu     sync.Mutex // covers the fields below
	next   time.Time
	failed string // why, the last time; empty: it went well
	count  int    // renewals since the start
}

// New returns a renewer for which Run has to be called, or Once.
func New(cfg Config) *Renewer {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Renewer{cfg: cfg, log: cfg.Logger.With("link", cfg.Link), patience: commandPatience}
}

// State says in words when the next renewal is, or why the last one failed.
func (r *Renewer) State() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.next.UTC().Format("2006-01-02 15:04 MST")
	switch {
	case r.next.IsZero():
		return ""
	case r.failed != "":
		return "renewal failed: " + r.failed + "; next try " + next
	}
	return "next renewal " + next
}

const (
	firstPause = time.Minute
	maxPause   = 6 * time.Hour
	lookAgain  = time.Minute // the clock may jump, and files may be replaced
)

// Run renews the certificate whenever it is time, until ctx ends.
func (r *Renewer) Run(ctx context.Context) {
	var retry time.Time // monotonic; zero: the last one went well
	pause := firstPause
	for {
		wait := r.wait(retry)
		if wait <= 0 {
			err := r.Once(ctx)
			if ctx.Err() != nil {
				return
			}
			wait, pause = r.after(err, pause)
			retry = time.Time{}
			if err != nil {
				retry = time.Now().Add(wait)
			}
		}
		t := time.NewTimer(min(wait, lookAgain))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// wait is how long it is until the next attempt.
func (r *Renewer) wait(retry time.Time) time.Duration {
	due := r.due()
	left := due.Sub(r.now())
	r.mu.Lock()
	defer r.mu.Unlock()
	if retry.IsZero() {
		r.next = due
		return left
	}
	return time.Until(retry)
}

// after notes how an attempt ended and gives the pause before the next look, with
// jitter after an error, and the bound of the one after that.
func (r *Renewer) after(err error, pause time.Duration) (wait, next time.Duration) {
	if err == nil { // who issues what is due at once is not asked at once
		return min(firstPause, max(r.left()/3, time.Second)), firstPause
	}
	wait = pause/2 + rand.N(pause/2)
	var later *laterError
	if errors.As(err, &later) {
		wait = later.after
	}
	if left := r.left(); left > 0 { // a short life is renewed in time all the same
		wait = min(wait, max(left/10, time.Second))
	}
	r.mu.Lock()
	news := r.failed != err.Error()
	r.failed, r.next = err.Error(), r.now().Add(wait)
	r.mu.Unlock()
	if news {
		r.log.Warn("the certificate was not renewed: trying again; what is in use goes on", "error", err, "in", wait.Round(time.Second))
	}
	return wait, min(2*pause, maxPause)
}

// left is the rest of the present certificate's life.
func (r *Renewer) left() time.Duration {
	c, err := pki.Inspect(r.cfg.Files.Certificate)
	if err != nil {
		return 0
	}
	return c.NotAfter.Sub(r.now())
}

// due is when the present certificate is to be renewed: at once if there is
// none. A part of its life, other for each certificate, keeps the sites of a fleet
// apart.
func (r *Renewer) due() time.Time {
	c, err := pki.Inspect(r.cfg.Files.Certificate)
	if err != nil {
		return r.now()
	}
	life := c.NotAfter.Sub(c.NotBefore)
	spread := min(life/50, 12*time.Hour)
	var part float64
	if b, err := hex.DecodeString(strings.ReplaceAll(c.Fingerprint, ":", "")); err == nil {
		part = float64(b[0]) / 256
	}
	return c.NotBefore.Add(time.Duration(r.cfg.At*float64(life)) + time.Duration(part*float64(spread)))
}

func (r *Renewer) now() time.Time {
	if r.cfg.Files.Now == nil {
		return time.Now()
	}
	return r.cfg.Files.Now()
}

// Once renews the certificate now: a new key, a request, the check, and the new
// pair is in place of the old one. After an error everything is as it was.
func (r *Renewer) Once(ctx context.Context) error {
	req, err := r.request()
	if err != nil {
		return err
	}
	ask := r.runCommand
	if r.cfg.EST != nil {
		ask = func(ctx context.Context, req *pki.Request) ([]*x509.Certificate, error) {
			return r.cfg.EST.enrol(ctx, r.cfg.Files, req)
		}
	}
	certs, err := ask(ctx, req)
	if err != nil {
		return err
	}
	chain, err := pki.Chain(req.Public, certs)
	if err != nil {
		return err
	}
	if err := pki.Install(r.cfg.Files, chain, req.Key); err != nil {
		return err
	}
	r.mu.Lock()
	r.failed, r.count = "", r.count+1
	r.mu.Unlock()
	if c, err := pki.Inspect(r.cfg.Files.Certificate); err == nil {
		r.log.Info("the certificate was renewed", "event", "renewed", "serial", c.Serial, "not_after", c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// request asks for the same names as the present certificate has.
func (r *Renewer) request() (*pki.Request, error) {
	req, err := pki.RequestToRenew(r.cfg.Files.Certificate)
	if errors.Is(err, os.ErrNotExist) {
		return pki.NewRequest(r.cfg.CommonName, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("renew what cannot be read: %w", err)
	}
	return req, nil
}
