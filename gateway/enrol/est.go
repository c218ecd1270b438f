package enrol

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway/pki"
)

// EST is a server that renews certificates (RFC 7030).
type EST struct {
	URL         string // https://host[:port][/.well-known/est[/label]]
	CA          string // PEM file, the only CAs that may vouch for it
	Credentials string // file with USER:PASSWORD for the first certificate; empty: none
}

const (
	estPatience = 30 * time.Second
	maxAnswer   = 1 << 20 // bytes
)

// wellKnown is where EST lives on a server [RFC 7030, 3.2.2].
const wellKnown = "/.well-known/est"

// A laterError is an answer that asks to come again.
type laterError struct{ after time.Duration }

func (e *laterError) Error() string {
	return fmt.Sprintf("the server has not decided yet and asks to come again in %v: approve the request there", e.after)
}

// enrol has req signed. files name the certificate to be renewed; if there is
// none that may be shown, the first one is asked for with Credentials.
func (e *EST) enrol(ctx context.Context, files pki.ClientFiles, req *pki.Request) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, estPatience)
	defer cancel()
	base, err := e.base()
	if err != nil {
		return nil, err
	}
	operation, own := "/simplereenroll", pki.ClientFiles{CA: e.CA, Certificate: files.Certificate, Key: files.Key, Now: files.Now}
	tlsConfig, err := pki.Client(own)(base.Hostname())
	user, password := "", ""
	if err != nil && e.Credentials != "" {
		if user, password, err = e.credentials(); err != nil {
			return nil, err
		}
		operation = "/simpleenroll"
		tlsConfig, err = pki.Client(pki.ClientFiles{CA: e.CA, Now: files.Now})(base.Hostname())
	}
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		// No proxy from the environment: who is asked is in the configuration.
		Transport:     &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	issued, err := fetch(ctx, client, base.String()+operation, req, [2]string{user, password})
	if err != nil {
		return nil, err
	}
	if len(issued) > 1 {
		return issued, nil
	}
	// Intermediates are among the CAs [RFC 7030, 4.1]; a chain can do without.
	cas, err := fetch(ctx, client, base.String()+"/cacerts", nil, [2]string{})
	if err != nil {
		return issued, nil
	}
	return append(issued, cas...), nil
}

func (e *EST) base() (*url.URL, error) {
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("%q is no EST server: write https://host:port", e.URL)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	if u.Path == "" {
		u.Path = wellKnown
	}
	return u, nil
}

// credentials are on one line, USER:PASSWORD, in a file that is closed to others.
func (e *EST) credentials() (user, password string, err error) {
	info, err := os.Stat(e.Credentials)
	if err != nil {
		return "", "", fmt.Errorf("read the credentials: %w: put USER:PASSWORD there", err)
	}
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return "", "", fmt.Errorf("the credentials %s are open to others (mode %04o): run chmod 600 on the file", e.Credentials, mode)
	}
	text, err := os.ReadFile(e.Credentials)
	if err != nil {
		return "", "", fmt.Errorf("read the credentials: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !ok || user == "" || len(text) > 4096 {
		return "", "", fmt.Errorf("the credentials %s are not USER:PASSWORD on one line: correct the file", e.Credentials)
	}
	return user, password, nil
}

// fetch posts req, or gets what needs none, and reads certificates.
func fetch(ctx context.Context, client *http.Client, address string, req *pki.Request, login [2]string) ([]*x509.Certificate, error) {
	method, body := http.MethodGet, ""
	if req != nil {
		method, body = http.MethodPost, base64.StdEncoding.EncodeToString(req.DER)
	}
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if req != nil {
		r.Header.Set("Content-Type", "application/pkcs10")
		r.Header.Set("Content-Transfer-Encoding", "base64")
	}
	if login[0] != "" {
		r.SetBasicAuth(login[0], login[1])
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the EST server: %w", err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", address, err)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s is over %d bytes: is that an EST server?", address, maxAnswer)
	case answer.StatusCode == http.StatusAccepted:
		return nil, &laterError{retryAfter(answer.Header.Get("Retry-After"))}
	case answer.StatusCode != http.StatusOK:
		return nil, refusal(address, answer.StatusCode, text)
	}
	der, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
	if err != nil {
		return nil, errors.New("the answer is not base64: is that an EST server?")
	}
	return certsOnly(der)
}

func retryAfter(header string) time.Duration {
	seconds, err := strconv.Atoi(header)
	if err != nil || seconds < 1 {
		return time.Minute
	}
	return min(time.Duration(seconds)*time.Second, 24*time.Hour)
}

func refusal(address string, status int, text []byte) error {
	cure := "see its log"
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		cure = "let this gateway's certificate, or its credentials, in there"
	case http.StatusNotFound, http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		cure = "correct est.url"
	}
	return fmt.Errorf("%s answers %d %s%s: %s", address, status, http.StatusText(status), firstLine(text), cure)
}

// firstLine is what a person may want to see of somebody's answer.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text[:min(len(text), 300)])), "\n")
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, line)
	if line == "" {
		return ""
	}
	return fmt.Sprintf(" (%.200s)", line)
}
