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

	// Report, if set, hears of files that changed and cannot be used; the
	// listener goes on with what it has. Once per change, from the goroutine
	// of a handshake.
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
// function reads the files at its first call and when they changed; its error
// says what is wrong with them now. The configuration itself looks for changed
// files at every handshake, so a listener that lives long needs it only once;
// changed files that cannot be used leave the last good ones in force.
// Both are safe for concurrent use; whoever changes the configuration clones it
// first.
func Server(files ServerFiles) func() (*tls.Config, error) {
	s := &server{files: files}
	return func() (*tls.Config, error) {
		c, err := s.load()
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

type server struct {
	files ServerFiles

	// mu guards the rest. It is held over reading the files, so that of many
	// handshakes one reads them.
	mu     sync.Mutex
	stamps []fs.FileInfo
	good   *tls.Config // nil until the files were right once
	broken bool        // the files are wrong now; they are read again until they are right
}

// load returns the newest good configuration, and the error of the files as
// they are now.
func (s *server) load() (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Looked at before reading: a change in between is seen the next time.
	stamps := stamp(s.files.Certificate, s.files.Key, s.files.ClientCA)
	changed := !slices.EqualFunc(stamps, s.stamps, sameStamp)
	if s.good != nil && !changed && !s.broken {
		return s.good, nil
	}
	s.stamps = stamps
	fresh, err := s.files.read()
	s.broken = err != nil
	if err == nil {
		fresh.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if newest, _ := s.load(); newest != fresh { // an error was reported
				return newest, nil
			}
			return nil, nil // fresh itself, with its session tickets
		}
		s.good = fresh
	} else if s.good != nil && changed && s.files.Report != nil {
		s.files.Report(fmt.Errorf("the changed TLS files are not used: %w", err))
	}
	return s.good, err
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

func (f ServerFiles) read() (*tls.Config, error) {
	pair, err := readPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	if err := checkOwnUse(f.Certificate, pair.Leaf, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, err
	}
	// A clock that is behind must not darken the house: clients judge that for
	// themselves.
	if err := checkNotExpired(f.Certificate, pair.Leaf); err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: aeadSuites,
		Certificates: []tls.Certificate{*pair},
	}
	if f.Policy == Off {
		return c, nil
	}
	if f.ClientCA == "" {
		return nil, errors.New("client certificates are asked for and no client CA is named: name one, or switch them off")
	}
	if c.ClientCAs, err = readCAs(f.ClientCA); err != nil {
		return nil, err
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if f.Policy == Optional {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A ticket would outlive the rotation of a CA and the end of a certificate.
	c.SessionTicketsDisabled = true
	c.VerifyConnection = verifyClient
	return c, nil
}

// verifyClient asks more of a client's chain than crypto/tls, which takes a
// certificate without any extended key usage for a client's.
func verifyClient(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return nil // under Required crypto/tls has refused already
	}
	if err := checkUse("of the client", s.PeerCertificates[0], x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	return checkChain(s)
}

// checkChain wants one verified chain that is short and has no weak key.
func checkChain(s tls.ConnectionState) error {
	err := errors.New("the peer's certificate was not verified")
	for _, chain := range s.VerifiedChains {
		if err = nil; len(chain) > maxChain {
			err = fmt.Errorf("the peer's chain has %d certificates: at most %d are allowed", len(chain), maxChain)
		}
		for _, c := range chain {
			err = errors.Join(err, checkKey(c.PublicKey))
		}
		if err == nil {
			return nil
		}
	}
	return err
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
