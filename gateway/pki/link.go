package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// ClientFiles name what a link needs. Certificate and Key are both empty for a
// link that proves itself otherwise.
type ClientFiles struct {
	CA          string // PEM, the only CAs that are trusted; the system's are not
	Certificate string
	Key         string
	CRL         string // PEM or DER, signed by CAs of CA: servers' certificates that are refused; empty: none

	ServerName string   // asked for and verified instead of the server's host name; empty: the host name
	ALPN       []string // offered to the server; empty: none

	Now func() time.Time // default time.Now

	// Report, if set, hears of files that changed and cannot be used, while the
	// link goes on with what it has, once per fault; it is called by Config.
	Report func(error)
	// Verified, if set, hears of each server whose chain, root last, is right.
	Verified func(chain []*x509.Certificate)
}

// Client is the Config of Credentials for files, for a caller that needs no
// more.
func Client(files ClientFiles) func(serverName string) (*tls.Config, error) {
	return NewCredentials(files).Config
}

// Credentials are a link's TLS files, which may be replaced at any time. The
// methods are safe for concurrent use.
type Credentials struct {
	files ClientFiles

	mu       sync.Mutex    // covers the fields below
	good     *credentials  // the last that were right; nil until they were once
	used     *credentials  // that Config gave out last
	reported string        // the last fault
	known    []fs.FileInfo // of files that are those in use; nil: to be compared
}

// credentials passed the staged check.
type credentials struct {
	roots   []*x509.Certificate
	pair    *tls.Certificate // nil: none
	revoked *revocations     // nil: none
}

// NewCredentials reads nothing yet.
func NewCredentials(files ClientFiles) *Credentials { return &Credentials{files: files} }

// Config gives the link's TLS configuration for the server of that host name or
// address. It reads the files at each call, so ask it at each connect. Files
// that fail the check are not used: the last good ones are, until they end. Its
// error names the file, the fault and what to do.
func (c *Credentials) Config(serverName string) (*tls.Config, error) {
	if c.files.ServerName != "" {
		serverName = c.files.ServerName
	}
	if serverName == "" {
		return nil, errors.New("no name to verify the server by: put the server's host name into its address")
	}
	now := timeOf(c.files.Now)
	finishInstall(c.files.Certificate, c.files.Key)
	fresh, err := c.files.read(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.good, c.reported = fresh, ""
	case c.good == nil || c.good.ended(now):
		return nil, fmt.Errorf("TLS files for %s: %w", serverName, err)
	case c.files.Report != nil && c.reported != err.Error():
		c.reported = err.Error()
		c.files.Report(fmt.Errorf("the changed TLS files are not used, the ones before still are: %w", err))
	}
	c.used, c.known = c.good, nil
	return c.files.config(c.good, serverName), nil
}

// Check reads the files and says what is wrong with them.
func (c *Credentials) Check() error {
	_, err := c.files.read(timeOf(c.files.Now))
	return err
}

// A Change is what became of the files since a link last connected with them.
type Change uint8

// The changes.
const (
	Unchanged Change = iota
	Renewed          // what the link uses still holds
	Ended            // the certificate in use ends within an hour, or a CA that it relied on is gone
)

// Changed compares the files with what Config gave out last. Files that are
// wrong are no change: nothing can be done with them.
func (c *Credentials) Changed() Change {
	now := timeOf(c.files.Now)
	stamps := stamp(c.files.CA, c.files.Certificate, c.files.Key, c.files.CRL)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used == nil || c.known != nil && slices.EqualFunc(stamps, c.known, sameStamp) {
		return Unchanged
	}
	fresh, err := c.files.read(now)
	if err != nil {
		return Unchanged
	}
	if fresh.same(c.used) {
		c.known = stamps
		return Unchanged
	}
	for _, old := range c.used.roots {
		if !fresh.trusts(old) {
			return Ended
		}
	}
	if c.used.ended(now.Add(time.Hour)) {
		return Ended
	}
	return Renewed
}

func (c *credentials) trusts(root *x509.Certificate) bool {
	for _, r := range c.roots {
		if r.Equal(root) {
			return true
		}
	}
	return false
}

func (c *credentials) same(other *credentials) bool {
	if len(c.roots) != len(other.roots) || (c.pair == nil) != (other.pair == nil) {
		return false
	}
	for _, r := range c.roots {
		if !other.trusts(r) {
			return false
		}
	}
	return c.pair == nil || bytes.Equal(c.pair.Leaf.Raw, other.pair.Leaf.Raw)
}

// ended says that at that time nobody would take them any more.
func (c *credentials) ended(at time.Time) bool {
	return c.pair != nil && at.After(c.pair.Leaf.NotAfter)
}

// read is the staged check: what it returns can be used.
func (f *ClientFiles) read(now time.Time) (*credentials, error) {
	if f.CA == "" {
		return nil, errors.New("no CA is named: name the file with the CA that signed the server's certificate")
	}
	c := &credentials{}
	var err error
	if c.roots, err = readCAs(f.CA, now); err != nil {
		return nil, err
	}
	if f.CRL != "" {
		if c.revoked, err = readRevocations(f.CRL, "", c.roots); err != nil {
			return nil, err
		}
	}
	if f.Certificate == "" && f.Key == "" {
		return c, nil
	}
	if f.Certificate == "" || f.Key == "" {
		return nil, errors.New("certificate and key go together: name both or neither")
	}
	if c.pair, err = readPair(f.Certificate, f.Key); err != nil {
		return nil, err
	}
	return c, checkClientPair(f.Certificate, c.pair, c.roots, now)
}

// checkClientPair is what a link asks of its own certificate and chain before
// it shows them. Whether the server will take them only the server knows.
func checkClientPair(file string, pair *tls.Certificate, roots []*x509.Certificate, now time.Time) error {
	if err := checkDates(file, pair.Leaf, now); err != nil {
		return err
	}
	if err := checkOwnUse(file, pair.Leaf, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	return checkOwnChain(file, pair, roots, now)
}

// checkOwnChain looks at what lies behind a leaf in its file, and at the CA if
// that is among roots.
func checkOwnChain(file string, pair *tls.Certificate, roots []*x509.Certificate, now time.Time) error {
	below := pair.Leaf
	for i, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		self := bytes.Equal(c.RawIssuer, c.RawSubject)
		if isSHA1(c) && !self {
			return fmt.Errorf("certificate %s: number %d (%s) is signed with SHA-1, which can be forged: have it issued anew with SHA-256", file, i+1, c.Subject)
		}
		if i == 0 {
			continue
		}
		if err := checkKey(c.PublicKey); err != nil {
			return fmt.Errorf("certificate %s: number %d (%s): %w", file, i+1, c.Subject, err)
		}
		if now.After(c.NotAfter) {
			return fmt.Errorf("certificate %s: number %d (%s) expired on %s: put the CA's new certificate there", file, i+1, c.Subject, c.NotAfter.UTC().Format(dateLayout))
		}
		if !bytes.Equal(below.RawIssuer, c.RawSubject) {
			return fmt.Errorf("certificate %s: number %d (%s) did not sign number %d, which is by %s: put the chain in order, each signed by the next", file, i+1, c.Subject, i, below.Issuer)
		}
		if err := below.CheckSignatureFrom(c); err != nil {
			return fmt.Errorf("certificate %s: number %d (%s) did not sign number %d (%w): put the right intermediate there", file, i+1, c.Subject, i, err)
		}
		below = c
	}
	return checkIssuer(file, below, roots)
}

// checkIssuer refuses a certificate that names a CA of roots as its issuer and
// is not signed by it. One of another CA may be right: the server may have a CA
// of its own for clients.
func checkIssuer(file string, c *x509.Certificate, roots []*x509.Certificate) error {
	var err error
	for _, root := range roots {
		if !bytes.Equal(c.RawIssuer, root.RawSubject) {
			continue
		}
		if err = c.CheckSignatureFrom(root); err == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("certificate %s names %s as its issuer, but that CA did not sign it (%w): have it signed by that CA, or correct ca", file, c.Issuer, err)
	}
	return nil
}

func isSHA1(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
		return true
	}
	return false
}

func (f *ClientFiles) config(c *credentials, serverName string) *tls.Config {
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: aeadSuites,
		RootCAs:      poolOf(c.roots),
		ServerName:   serverName,
		NextProtos:   f.ALPN,
		Time:         f.Now,
	}
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		var right []*x509.Certificate
		err := checkChains(s, func(chain []*x509.Certificate) error {
			right = chain
			if c.revoked == nil {
				return nil
			}
			return c.revoked.check(chain)
		})
		if err != nil {
			return fmt.Errorf("the server's certificate is refused: %w", err)
		}
		if f.Verified != nil {
			f.Verified(right)
		}
		return nil
	}
	if c.pair != nil {
		// Shown whatever CAs the server names, so that it says what it has
		// against ours.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair, nil }
	}
	return cfg
}
