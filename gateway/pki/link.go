package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ClientFiles name what a link needs. Certificate and Key are both empty for a
// link that proves itself otherwise.
type ClientFiles struct {
	CA          string // PEM, the only CAs that are trusted; the system's are not
	Certificate string
	Key         string
}

// Client returns a function that gives a link's TLS configuration for the
// server of that host name or address. It reads the files at each call, so ask
// it at each connect. Its error names the file, the fault and what to do. The
// function is safe for concurrent use.
func Client(files ClientFiles) func(serverName string) (*tls.Config, error) {
	return func(serverName string) (*tls.Config, error) {
		if serverName == "" {
			return nil, errors.New("no name to verify the server by: put the server's host name into its address")
		}
		c, err := files.read()
		if err != nil {
			return nil, fmt.Errorf("TLS files for %s: %w", serverName, err)
		}
		c.ServerName = serverName
		return c, nil
	}
}

func (f ClientFiles) read() (*tls.Config, error) {
	if f.CA == "" {
		return nil, errors.New("no CA is named: name the file with the CA that signed the server's certificate")
	}
	roots, err := readCAs(f.CA)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CipherSuites:     aeadSuites,
		RootCAs:          poolOf(roots),
		VerifyConnection: checkServer,
	}
	if f.Certificate == "" && f.Key == "" {
		return c, nil
	}
	if f.Certificate == "" || f.Key == "" {
		return nil, errors.New("certificate and key go together: name both or neither")
	}
	pair, err := readPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	if err := checkDates(f.Certificate, pair.Leaf); err != nil {
		return nil, err
	}
	if err := checkOwnUse(f.Certificate, pair.Leaf, x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	c.Certificates = []tls.Certificate{*pair}
	return c, nil
}
