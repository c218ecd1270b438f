package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// Policy is what a listener asks of client certificates.
type Policy uint8

// The policies, in the configuration's words off, optional and required.
// A certificate that is shown must be right under Optional too.
const (
	Off Policy = iota
	Optional
	Required
)

// ServerFiles name what a listener needs.
type ServerFiles struct {
	Certificate string // PEM, the server's certificate first, then its chain
	Key         string // PEM, mode 0600 or 0640
	ClientCA    string // PEM, the CAs of client certificates; not read under Off
	Policy      Policy

	// Certificates that are refused although a CA of ClientCA vouches for them.
	// Empty: none. A file that is named must be there and right.
	ClientCRL      string // PEM or DER, signed by CAs of ClientCA
	ClientDenylist string // one a line: see readDenylist

	Now func() time.Time // by which certificates are judged; default time.Now

	// Report, if set, hears of files that changed and cannot be used, while the
	// listener goes on with what it has, once per change; and of a revocation
	// list that is out of date, once a day. It is called from the goroutine of
	// a handshake.
	Report func(error)
}

// aeadSuites are the TLS 1.2 suites with forward secrecy and AEAD; those of
// TLS 1.3 all are, and are not configurable.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// maxChain is the longest chain of a peer, root included.
const maxChain = 3

// Server returns a function that gives a listener's TLS configuration. The
// function reads the files at its first call and when they changed: another
// configuration than the last time means that they did. Its error says what is
// wrong with them, until they were right once; after that, changed files that
// cannot be used leave the last good ones in force. The configuration itself
// looks for changed files at every handshake, so a listener that lives long
// needs it only once. Its VerifyConnection, asked again, says whether a peer
// that was let in still has a CA and is on no list; dates it leaves to handshakes.
// Both are safe for concurrent use; whoever changes the configuration clones it
// first.
func Server(files ServerFiles) func() (*tls.Config, error) {
	s := &server{files: files}
	return s.load
}

type server struct {
	files ServerFiles

	// mu guards the rest. It is held over reading the files, so that of many
	// handshakes one reads them.
	mu     sync.Mutex
	stamps []fs.FileInfo
	good   *tls.Config // nil until the files were right once
	broken bool        // the files are wrong now; they are read again, once a second, until they are right
	read   time.Time   // last

	revoked *revocations // in force with good
	warned  time.Time    // last, of lists that are out of date
}

// load returns the newest good configuration, or else what is wrong with the
// files.
func (s *server) load() (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Looked at before reading: a change in between is seen the next time.
	stamps := stamp(s.files.Certificate, s.files.Key, s.files.ClientCA, s.files.ClientCRL, s.files.ClientDenylist)
	changed := !slices.EqualFunc(stamps, s.stamps, sameStamp)
	if s.good != nil && !changed && (!s.broken || time.Since(s.read) < time.Second) {
		s.warn()
		return s.good, nil
	}
	s.stamps, s.read = stamps, time.Now()
	finishInstall(s.files.Certificate, s.files.Key)
	fresh, revoked, err := s.files.read()
	s.broken = err != nil
	switch {
	case err == nil:
		fresh.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if newest, err := s.load(); newest != fresh {
				return newest, err
			}
			return nil, nil // fresh itself, with its session tickets
		}
		s.good, s.revoked, s.warned = fresh, revoked, time.Time{}
		s.warn()
	case s.good == nil:
		return nil, err
	case changed && s.files.Report != nil:
		s.files.Report(fmt.Errorf("the changed TLS files are not used: %w", err))
	}
	return s.good, nil
}

// warn reports, once a day, lists that are out of date.
func (s *server) warn() {
	now := timeOf(s.files.Now)
	if s.files.Report == nil || s.revoked == nil || now.Sub(s.warned) < day {
		return
	}
	if err := s.revoked.outdated(now); err != nil {
		s.warned = now
		s.files.Report(err)
	}
}

func stamp(files ...string) []fs.FileInfo {
	stamps := make([]fs.FileInfo, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			stamps[i] = info
		}
	}
	return stamps
}

func sameStamp(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

func (f ServerFiles) read() (*tls.Config, *revocations, error) {
	pair, err := readPair(f.Certificate, f.Key)
	if err != nil {
		return nil, nil, err
	}
	if err := checkOwnUse(f.Certificate, pair.Leaf, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, nil, err
	}
	// A clock that is behind must not darken the house: clients judge that for
	// themselves.
	if err := checkNotExpired(f.Certificate, pair.Leaf, timeOf(f.Now)); err != nil {
		return nil, nil, err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: aeadSuites,
		Certificates: []tls.Certificate{*pair},
		Time:         f.Now,
	}
	if f.Policy == Off {
		return c, nil, nil
	}
	revoked, err := f.askClients(c)
	return c, revoked, err
}

// askClients makes c ask for certificates of clients.
func (f ServerFiles) askClients(c *tls.Config) (*revocations, error) {
	if f.ClientCA == "" {
		return nil, errors.New("client certificates are asked for and no client CA is named: name one, or switch them off")
	}
	cas, err := readCAs(f.ClientCA, timeOf(f.Now))
	if err != nil {
		return nil, err
	}
	revoked, err := readRevocations(f.ClientCRL, f.ClientDenylist, cas)
	if err != nil {
		return nil, err
	}
	c.ClientCAs, c.ClientAuth = poolOf(cas), tls.RequireAndVerifyClientCert
	if f.Policy == Optional {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A ticket would outlive the rotation of a CA and the end of a certificate.
	c.SessionTicketsDisabled = true
	trusted := make(map[string]bool)
	for _, ca := range cas {
		trusted[string(ca.Raw)] = true
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return verifyClient(s, trusted, revoked) }
	return revoked, nil
}

// verifyClient asks more of a client's chain than crypto/tls, which takes a
// certificate without any extended key usage for a client's. It asks for one of
// the trusted CAs again, because they may have changed since the handshake.
func verifyClient(s tls.ConnectionState, trusted map[string]bool, revoked *revocations) error {
	if len(s.PeerCertificates) == 0 {
		return nil // under Required crypto/tls has refused already
	}
	if err := checkUse("of the client", s.PeerCertificates[0], x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	return checkChains(s, func(chain []*x509.Certificate) error {
		if root := chain[len(chain)-1]; !trusted[string(root.Raw)] {
			return fmt.Errorf("the CA %s is not trusted for clients any more", root.Subject)
		}
		return revoked.check(chain)
	})
}

// checkChains wants one verified chain that is short, has no weak key, and
// passes further.
func checkChains(s tls.ConnectionState, further func(chain []*x509.Certificate) error) error {
	err := errors.New("the peer's certificate was not verified")
	for _, chain := range s.VerifiedChains {
		if err = checkChain(chain); err == nil {
			err = further(chain)
		}
		if err == nil {
			return nil
		}
	}
	return err
}

func checkChain(chain []*x509.Certificate) error {
	if len(chain) > maxChain {
		return fmt.Errorf("the peer's chain has %d certificates: at most %d are allowed", len(chain), maxChain)
	}
	for _, c := range chain {
		if err := checkKey(c.PublicKey); err != nil {
			return fmt.Errorf("%s: %w", c.Subject, err)
		}
	}
	return nil
}

// checkOwnUse is checkUse for our own certificates: those of other houses may do
// without any extended key usage, and it is the peer who judges them.
func checkOwnUse(file string, c *x509.Certificate, use x509.ExtKeyUsage) error {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	return checkUse(file, c, use)
}

func checkUse(file string, c *x509.Certificate, use x509.ExtKeyUsage) error {
	if slices.Contains(c.ExtKeyUsage, use) {
		return nil
	}
	want := "clients (clientAuth)"
	if use == x509.ExtKeyUsageServerAuth {
		want = "servers (serverAuth)"
	}
	return fmt.Errorf("certificate %s is not made for %s: issue it with that extended key usage", file, want)
}
