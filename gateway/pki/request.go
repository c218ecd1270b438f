package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// A Request is a certificate signing request (PKCS#10) with its new key.
type Request struct {
	DER    []byte
	Key    []byte // PEM, PKCS#8
	Public interface{ Equal(crypto.PublicKey) bool }
}

// PEM is the request as people send it.
func (r *Request) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.DER})
}

// NewRequest makes an ECDSA P-256 key and asks for a certificate with that
// common name, and with names (host names and IP addresses) as alternative ones.
func NewRequest(commonName string, names []string) (*Request, error) {
	if commonName == "" || len(commonName) > 64 {
		return nil, fmt.Errorf("the common name %q cannot be: use 1 to 64 characters", commonName)
	}
	hosts, addresses, err := splitNames(names)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}, DNSNames: hosts}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, a.AsSlice())
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return sign(template, key)
}

// RequestToRenew makes a key of the same kind as that of the certificate in file,
// and asks for one with the same names.
func RequestToRenew(file string) (*Request, error) {
	list, err := readCertificates(file)
	if err != nil {
		return nil, err
	}
	c := list[0]
	key, err := keyLike(c.PublicKey)
	if err != nil {
		return nil, err
	}
	return sign(&x509.CertificateRequest{
		RawSubject: c.RawSubject, DNSNames: c.DNSNames, EmailAddresses: c.EmailAddresses, IPAddresses: c.IPAddresses, URIs: c.URIs,
	}, key)
}

func keyLike(public crypto.PublicKey) (crypto.Signer, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return rsa.GenerateKey(rand.Reader, max(k.N.BitLen(), 2048))
	case ed25519.PublicKey:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	}
	return nil, errors.New("the certificate has a key of an unknown kind: have one issued for ECDSA, RSA or Ed25519")
}

func sign(template *x509.CertificateRequest, key crypto.Signer) (*Request, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, errors.New("make the request: the key cannot be compared")
	}
	return &Request{DER: der, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), Public: public}, nil
}

// WriteKey writes the request's key into a new file of mode 0600.
func (r *Request) WriteKey(file string) error { return writeNew(file, r.Key, 0o600) }

// WritePublic writes what is no secret into a new file.
func WritePublic(file string, data []byte) error { return writeNew(file, data, 0o644) }

// Reissue signs a new key with the CA in dir for NAME.crt there, with the same
// names, use and lifetime, and puts both in place of the ones before, which are
// kept as .old and not revoked.
func Reissue(dir, name string) (certificate, key string, err error) {
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	before, err := readCertificates(certificate)
	if err != nil {
		return "", "", err
	}
	c := before[0]
	if c.IsCA {
		return "", "", fmt.Errorf("%s is a CA, which is not renewed in place: make the next one in another folder, and put both into client_ca", certificate)
	}
	kind, opts := ForClient, Options{Lifetime: min(max(c.NotAfter.Sub(c.NotBefore)-backdate, time.Hour), serverLifetime)}
	use := x509.ExtKeyUsageClientAuth
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		kind, opts.Names, use = ForServer, allNames(c), x509.ExtKeyUsageServerAuth
	}
	der, own, err := signNew(dir, name, kind, opts)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return "", "", err
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certificate, key, install(certificate, key, public, secret, func(certFile, keyFile string) error {
		pair, err := readPair(certFile, keyFile)
		if err != nil {
			return err
		}
		return checkUse(certFile, pair.Leaf, use)
	})
}
