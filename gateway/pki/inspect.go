package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Info is what people want to know about a certificate.
type Info struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Serial      string    `json:"serial"`      // hexadecimal
	Names       []string  `json:"names"`       // DNS names, addresses, e-mail addresses and URIs
	Use         []string  `json:"use"`         // "client", "server", "ca"
	Key         string    `json:"key"`         // "ECDSA P-256"
	NotBefore   time.Time `json:"not_before"`  // UTC
	NotAfter    time.Time `json:"not_after"`   // UTC
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the certificate, "AB:CD:…"
	KeyDigest   string    `json:"key_digest"`  // SHA-256 of its public key, as a denylist has it
}

// Inspect reads the first certificate of a PEM file. It judges nothing: what
// is expired or weak is shown as well.
func Inspect(file string) (Info, error) {
	list, err := InspectAll(file)
	if err != nil {
		return Info{}, err
	}
	return list[0], nil
}

// InspectAll is Inspect for every certificate of the file; there is at least one.
func InspectAll(file string) ([]Info, error) {
	list, err := readCertificates(file)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, c := range list {
		all = append(all, inspect(c))
	}
	return all, nil
}

func inspect(c *x509.Certificate) Info {
	return Info{
		Subject:     c.Subject.String(),
		Issuer:      c.Issuer.String(),
		Serial:      c.SerialNumber.Text(16),
		Names:       allNames(c),
		Use:         uses(c),
		Key:         describeKey(c.PublicKey),
		NotBefore:   c.NotBefore.UTC(),
		NotAfter:    c.NotAfter.UTC(),
		Fingerprint: fingerprint(c.Raw),
		KeyDigest:   keyDigest(c),
	}
}

func allNames(c *x509.Certificate) []string {
	names := append([]string{}, c.DNSNames...)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	names = append(names, c.EmailAddresses...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}

func uses(c *x509.Certificate) []string {
	list := []string{}
	if c.IsCA {
		list = append(list, "ca")
	}
	for _, use := range c.ExtKeyUsage {
		switch use {
		case x509.ExtKeyUsageClientAuth:
			list = append(list, "client")
		case x509.ExtKeyUsageServerAuth:
			list = append(list, "server")
		}
	}
	return list
}

func describeKey(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return "unknown"
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	parts := make([]string, len(sum))
	for i := range sum {
		parts[i] = strings.ToUpper(hex.EncodeToString(sum[i : i+1]))
	}
	return strings.Join(parts, ":")
}
